"""The demo's page and its pictures."""

import re

import numpy as np
import pytest
from tiny import make_tiny_bundle

from PedBoneSegLib.anatomy import joint_table
from PedBoneSegLib.errors import BadInput, BadModel
from PedBoneSegLib.program import demo
from PedBoneSegLib.results.pictures import overlay, write_png
from PedBoneSegLib.volume import Grid, Volume

EYE = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


def blocks():
    """6 sagittal slices of 40 × 30 mm: a femur above a tibia, in a bright body."""
    array, labels = np.full((6, 30, 20), 500, np.int16), np.zeros((6, 30, 20), np.uint8)
    array[:, :, 10:] += 100
    labels[1:5, 10:20, 12:18], labels[1:5, 10:20, 2:8] = 1, 2  # k runs upward, 2 mm a voxel
    return Volume(array, Grid((6, 30, 20), (4.0, 1.0, 2.0), (0.0, 0.0, 0.0), EYE)), labels


def test_overlay_has_square_pixels_and_outlines():
    volume, labels = blocks()
    table = joint_table("knee")
    sheet = overlay(volume, labels, table, count=4, columns=2)
    assert sheet.shape == (80, 60, 3) and sheet.dtype == np.uint8
    tile = sheet[:40, :30].astype(int)
    solid = [(tile == bone.color).all(axis=-1) for bone in table.bones]
    assert [int(one.sum()) for one in solid] == [40, 40, 0, 0]  # the rim of 12 × 10 mm: 2 × 12 + 2 × 10 − 4
    rows = [np.flatnonzero(one.any(axis=1)) for one in solid[:2]]
    assert (rows[0].min(), rows[0].max(), rows[1].min(), rows[1].max()) == (4, 15, 24, 35)  # the femur is above


def test_png(tmp_path):
    import SimpleITK as sitk

    pixels = np.random.default_rng(0).integers(0, 256, (17, 23, 3)).astype(np.uint8)
    write_png(tmp_path / "a.png", pixels)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "a.png"))), pixels)


def test_the_page(tmp_path, monkeypatch):
    import SimpleITK as sitk

    volume, _ = blocks()
    image = sitk.GetImageFromArray(volume.array.transpose(2, 1, 0))
    image.SetSpacing(volume.grid.spacing)
    sitk.WriteImage(image, str(tmp_path / "sample.nii.gz"))
    (tmp_path / "home" / "models").mkdir(parents=True)
    make_tiny_bundle(tmp_path / "home" / "models" / "tiny.safetensors")
    monkeypatch.setenv("PEDBONESEG_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(demo.store, "BUILT_IN", tmp_path / "none")
    monkeypatch.setattr(demo, "SAMPLE", tmp_path / "missing.nii.gz")
    with pytest.raises(BadInput, match="sample"):
        demo.run(tmp_path / "out")
    monkeypatch.setattr(demo, "SAMPLE", tmp_path / "sample.nii.gz")
    for _ in range(2):  # the second call replaces the first one's files
        page = demo.run(tmp_path / "out")
    text = page.read_text(encoding="utf-8")
    assert "not a medical device" in text and "tiny 1" in text and "Random weights." in text
    for bone in joint_table("knee").bones:  # the legend: each bone's color and name
        assert f'rgb{bone.color}"></span>{bone.name.capitalize()}' in text
    pictures = re.findall('(?:src|href)="([^"]+)"', text)
    assert sorted([*pictures, "index.html"]) == sorted(path.name for path in (tmp_path / "out").iterdir())


def test_without_a_model_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PEDBONESEG_HOME", str(tmp_path))
    monkeypatch.setattr(demo.store, "BUILT_IN", tmp_path / "none")
    with pytest.raises(BadModel, match="no model"):
        demo.run(tmp_path / "out")
    assert not (tmp_path / "out").exists()
