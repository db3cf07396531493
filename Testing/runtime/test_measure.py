import csv
import io
import json

import numpy as np
import pytest
from grids import AXES, make_grid, rotation
from hypothesis import given, settings
from hypothesis import strategies as st

from PedBoneSegLib.anatomy import joint_table
from PedBoneSegLib.results import columns
from PedBoneSegLib.results.columns import Column, Measurements
from PedBoneSegLib.results.columns.standard import surface_mm2
from PedBoneSegLib.results.documents import measure_csv, measure_document
from PedBoneSegLib.results.measure import measure_bones

KNEE = joint_table("knee")
CENTER = np.array([12.0, -34.0, 56.0])


def make_shape(inside, reach, spacing, direction):
    """A mask, and its grid, of the places (relative to CENTER, LPS mm) for which `inside` holds; `reach` in mm."""
    size = [int(2 * reach / step) + 6 for step in spacing]
    grid = make_grid(size, spacing, (0, 0, 0), direction)
    middle = grid.affine[:3, :3] @ (np.array(size) / 2 - 0.37)
    grid = make_grid(size, spacing, CENTER - middle, direction)
    places = np.indices(size).reshape(3, -1).T @ grid.affine[:3, :3].T + grid.origin - CENTER
    return inside(places).reshape(size), grid


def ellipsoid(semiaxes, turn):
    return lambda places: ((places @ turn / semiaxes) ** 2).sum(1) <= 1


def ellipsoid_area(a, b, c):
    theta, phi = np.meshgrid(np.linspace(0, np.pi, 600), np.linspace(0, 2 * np.pi, 1200), indexing="ij")
    weights = np.sqrt(
        (b * c * np.sin(theta) * np.cos(phi)) ** 2
        + (a * c * np.sin(theta) * np.sin(phi)) ** 2
        + (a * b * np.cos(theta)) ** 2
    )
    return np.trapezoid(np.trapezoid(np.sin(theta) * weights, phi[0], axis=1), theta[:, 0])


@settings(max_examples=12, deadline=None)
@given(
    st.integers(0, 999), st.booleans(), st.sampled_from([(1, 1, 1), (0.6, 0.6, 2.5), (2.5, 0.7, 0.8)]), st.booleans()
)
def test_ellipsoids_measure_as_they_should_in_the_patients_space(seed, oblique, spacing, left_handed):
    """Any turn of the grid, of either handedness, and any turn of the ellipsoid: the same bone, the same measures."""
    semiaxes, turn = np.array([30.0, 18.0, 12.0]), rotation(seed)
    direction = AXES[seed % 48] * [1, 1, -1 if left_handed else 1]
    direction = rotation(seed + 1) @ direction if oblique else direction
    mask, grid = make_shape(ellipsoid(semiaxes, turn), 31, spacing, direction)
    bone = measure_bones(np.asfortranarray(mask.astype(np.uint8) * 2), grid, KNEE)["tibia"]
    assert bone.label == 2
    assert bone["volume_ml"] == pytest.approx(4 / 3 * np.pi * semiaxes.prod() / 1000, rel=0.015)
    assert 100 * bone["surface_cm2"] == pytest.approx(ellipsoid_area(*semiaxes), rel=0.03)
    np.testing.assert_allclose(bone["center_mm"], CENTER, atol=0.15)
    extents = 2 * np.sqrt(((turn * semiaxes) ** 2).sum(1))  # of an ellipsoid along L, P and S
    np.testing.assert_allclose(bone["extent_mm"], extents, atol=max(spacing))
    np.testing.assert_allclose(bone["length_mm"], 2 * semiaxes, atol=max(spacing))
    alignment = np.abs(np.array(bone["axes"]) @ turn)
    np.testing.assert_allclose(alignment, np.eye(3), atol=0.04)


def test_a_box_along_the_voxels_measures_exactly():
    grid = make_grid((20, 20, 20), (0.5, 1, 2), (-3, 4, 5), [[0, 0, -1], [1, 0, 0], [0, 1, 0]])  # i: P, j: S, k: R
    labels = np.zeros(grid.size, np.uint8)
    labels[2:14, 3:10, 5:9] = 1
    femur = measure_bones(labels, grid, KNEE)["femur"]
    assert femur["volume_ml"] == pytest.approx(12 * 0.5 * 7 * 1 * 4 * 2 / 1000)
    assert femur["extent_mm"] == pytest.approx([4 * 2, 12 * 0.5, 7 * 1])
    assert femur["length_mm"] == pytest.approx([8, 7, 6])
    assert femur["center_mm"] == pytest.approx([-3 - 2 * 6.5, 4 + 0.5 * 7.5, 5 + 6])
    np.testing.assert_allclose(femur["axes"], [[1, 0, 0], [0, 0, 1], [0, 1, 0]], atol=1e-12)


@pytest.mark.parametrize("turn", [np.eye(3), rotation(8)])
def test_a_boxs_surface_is_rounded_by_no_more_than_said(turn):
    half = np.array([20, 15, 10])
    mask, grid = make_shape(lambda places: (np.abs(places @ turn) <= half).all(1), 27, (0.8, 0.8, 0.8), np.eye(3))
    area = surface_mm2(mask, grid.spacing)
    true = 8 * (20 * 15 + 15 * 10 + 10 * 20)
    assert 0.9 * true < area < 1.01 * true


def test_a_bone_cut_by_the_images_border_is_closed_there():
    mask, grid = make_shape(ellipsoid(np.array([20.0, 20, 20]), np.eye(3)), 21, (1, 1, 1), np.eye(3))
    half = mask[:, :, mask.shape[2] // 2 :]
    flat = half[:, :, 0].sum()
    whole = surface_mm2(mask, grid.spacing)
    assert surface_mm2(half, grid.spacing) == pytest.approx(whole / 2 + flat, rel=0.03)


def test_one_voxel_and_one_slice_have_measures_too():
    grid = make_grid((9, 9, 1), (0.5, 0.5, 4))
    labels = np.zeros(grid.size, np.uint8)
    labels[4, 4, 0], labels[0:8, 0:2, 0] = 1, 2
    result = measure_bones(labels, grid, KNEE)
    assert result["femur"]["volume_ml"] == pytest.approx(0.001)
    assert result["femur"]["extent_mm"] == pytest.approx([0.5, 0.5, 4])
    assert result["tibia"]["length_mm"] == pytest.approx([4, 4, 1]) and result["tibia"]["surface_cm2"] > 0


def test_a_bone_that_is_not_there_has_no_volume_and_nothing_else():
    patella = measure_bones(np.zeros((3, 9, 7), np.uint8), make_grid(), KNEE)["patella"]
    assert patella.label == 4 and patella["volume_ml"] == 0
    assert set(map(str, [value for key, value in patella.items() if key != "volume_ml"])) == {"None"}


def test_json_and_csv():
    labels = np.zeros((9, 9, 9), np.uint8)
    labels[2:5, 2:6, 2:7] = 1
    document = measure_document(Measurements("knee", "left", measure_bones(labels, make_grid((9, 9, 9)), KNEE)))
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert list(document) == ["joint", "side", "bones"]
    result = document["bones"]
    assert list(result["femur"]) == [
        "label", "volume_ml", "surface_cm2", "center_mm", "extent_mm", "length_mm", "axes",
    ]  # fmt: skip
    rows = list(csv.DictReader(io.StringIO(measure_csv(result))))
    assert [row["bone"] for row in rows] == list(KNEE.names)
    assert float(rows[0]["extent_mm_1"]) == result["femur"]["extent_mm"][0]
    assert float(rows[0]["axes_3_2"]) == result["femur"]["axes"][2][1]
    assert rows[1]["volume_ml"] == "0.0" and rows[1]["surface_cm2"] == ""
    assert measure_csv({}) == "bone\n"


def test_a_column_from_outside_the_package_is_measured_and_titled(monkeypatch):
    monkeypatch.setattr(columns, "_registered", [])
    lengths = Column("ratio", lambda bone: (bone.lengths[0] / bone.lengths).tolist()[1:], titles=("1st/2nd", "1st/3rd"))
    columns.register(lengths)
    with pytest.raises(ValueError, match="already a measurement 'ratio'"):
        columns.register(lengths)
    labels = np.zeros((9, 9, 9), np.uint8)
    labels[0:8, 0:4, 0:2] = 1
    measurements = Measurements("knee", None, measure_bones(labels, make_grid((9, 9, 9), (1, 1, 1)), KNEE))
    assert measurements["femur"]["ratio"] == pytest.approx([2, 4]) and measurements["tibia"]["ratio"] is None
    table = list(csv.DictReader(io.StringIO(measure_csv(measure_document(measurements)["bones"]))))
    assert float(table[0]["ratio_2"]) == pytest.approx(4) and table[1]["ratio_2"] == ""
    assert columns.titles()["ratio_2"] == "1st/3rd" and columns.titles()["volume_ml"] == "Volume (ml)"
