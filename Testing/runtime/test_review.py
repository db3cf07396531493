"""Doubt of the final labels and the order of review, by hand-worked cases and against a plain computation."""

import numpy as np
import pytest
import torch
from tiny import random_network, tensors_of, tiny_config, tiny_manifest

from PedBoneSegLib.errors import BadModel
from PedBoneSegLib.inference.predictor import Predictor
from PedBoneSegLib.inference.review import (
    LEVELS,
    Calibration,
    bone_areas,
    calibrate,
    count_levels,
    jumps,
    ranked,
    raw_doubt,
    review_order,
    uncalibrated_error,
)
from PedBoneSegLib.inference.slices import SliceSettings, SliceStack
from PedBoneSegLib.models.bundle import Bundle, write_bundle
from PedBoneSegLib.results.documents import segment_document
from PedBoneSegLib.volume import Grid, Volume

FLIPPED = ((-1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


def volume(size=(6, 48, 40), direction=FLIPPED) -> Volume:
    """Slices lie across i; with the flipped axis, slice 0 is the last voxel of i."""
    array = np.random.default_rng(0).normal(100, 20, size)
    array[0] = 0  # no body there
    return Volume(array.astype(np.float32), Grid(size, (5.0, 1.0, 1.0), (0.0, 0.0, 0.0), direction))


def table(background: float, bone: float, changed: float) -> Calibration:
    """The probability does not depend on the level."""
    return Calibration(np.repeat([[background], [bone], [changed]], LEVELS + 1, axis=1), 9)


def test_raw_levels_by_hand():
    levels = raw_doubt(torch.tensor([1.0, 0.75, 0.0, 1 + 1e-7]))
    assert levels.tolist() == [0, 127, 254, 0]
    np.testing.assert_allclose(uncalibrated_error()[[0, 127, 254]], [0, 0.25, 1])


def test_the_most_urgent_comes_first():
    assert ranked(np.array([10.0, 40.0, 30.0, 20.0]), spacing=50.0).tolist() == [1, 2, 3, 0]
    assert ranked(np.zeros(3), 1.0).tolist() == [0, 1, 2] and ranked(np.zeros(0), 1.0).tolist() == []


def test_thin_neighbours_are_not_repeated_needlessly():
    urgency = np.array([5.0, 9.0, 10.0, 9.0, 5.0, 1.0, 6.0])
    thin = ranked(urgency, spacing=0.5).tolist()
    assert thin[:2] == [2, 6] and sorted(thin) == list(range(7))  # 2 mm away: weight 0.98; 0.5 mm: 0.22
    assert ranked(urgency, spacing=8.0).tolist() == [2, 1, 3, 6, 0, 4, 5]


def test_jumps_of_two_bones_by_hand():
    areas = np.array([[10, 0], [10, 4], [30, 4], [10, 4]])
    assert jumps(areas).tolist() == [0 + 4, 10 + 2, 20 + 0, 20 + 0]
    assert jumps(areas[:1]).tolist() == [0] and jumps(areas[:, :0]).tolist() == [0, 0, 0, 0]


def test_expected_errors_of_a_slice_by_hand():
    image = volume()
    stack = SliceStack(image, SliceSettings(1.0))
    assert stack.axis == 0 and stack.sense == -1 and list(stack.occupied) == [0, 1, 2, 3, 4]
    labels, raw = np.zeros((2, *image.array.shape), np.uint8)
    raw[:] = 3
    raw[0] = 255
    labels[2, 10:14, 10:20] = 1  # 40 voxels of bone in the slice i = 2
    changed = np.zeros(labels.shape, bool)
    changed[2, 10, 10:15] = True  # of these, 5 that post-processing made
    changed[4, 0, 0:7] = True
    area = 48 * 40
    counts = count_levels(stack, raw, labels, changed)
    assert counts.shape == (6, 3, LEVELS + 1)
    assert counts[3, :, 3].tolist() == [area - 40, 35, 5]  # i = 2 is slice 3
    assert counts[1, :, 3].tolist() == [area - 7, 0, 7] and counts[5].sum() == 0
    areas = bone_areas(stack, labels)
    assert areas.tolist() == [[0], [0], [0], [40], [0], [0]]
    answer = review_order(stack, counts, areas, table(0.001, 0.1, 0.5))
    assert answer.axis == 0 and [entry.index for entry in answer.slices] == [2, 1, 3, 4, 5]
    expected = (area - 40) * 0.001 + 3.5 + 2.5
    assert answer.slices[0].score == pytest.approx(expected, abs=0.05)
    total = expected + (area - 7) * 0.001 + 3.5 + 3 * area * 0.001
    assert answer.slices[0].share == pytest.approx(expected / total, abs=1e-3)
    assert answer.slices[-1].share == 1 and len(answer.slices) == 5


def test_doubt_is_calibrated_in_place_and_255_stays():
    image = volume()
    stack = SliceStack(image, SliceSettings(1.0))
    raw = np.full(image.array.shape, 254, np.uint8, order="F")
    raw[0], raw[3, 5, 5] = 255, 0
    labels, changed = np.zeros(raw.shape, np.uint8), np.zeros(raw.shape, bool)
    labels[3], changed[4] = 2, True
    rising = np.linspace(0, 0.5, LEVELS + 1)
    calibrate(stack, raw, labels, changed, Calibration(np.stack([rising, rising / 5, np.full(LEVELS + 1, 0.8)])))
    assert (raw[0] == 255).all() and raw[3, 5, 5] == 0
    assert raw[1, 9, 9] == 127 and raw[3, 9, 9] == 25 and raw[4, 9, 9] == 203


def test_calibration_survives_the_manifest_and_forgeries_do_not():
    fitted = Calibration(np.stack([uncalibrated_error() / 3, uncalibrated_error(), np.full(LEVELS + 1, 0.4)]), 24)
    again = Calibration.from_dict(fitted.to_dict())
    np.testing.assert_allclose(again.table, fitted.table, rtol=1e-5)
    assert again.exams == 24
    for change in ({"bone": [0.5]}, {"changed": 2}, {"background": "x"}, {"exams": None}):
        with pytest.raises(BadModel, match="calibration"):
            Calibration.from_dict({**fitted.to_dict(), **change})
    assert Calibration.of(None, "knee").exams == 0


def test_a_jump_moves_a_slice_forward_and_does_not_count_as_error():
    """Equal doubt everywhere; the bone is lost in one slice: it comes first, its neighbours next."""
    image = volume()
    stack = SliceStack(image, SliceSettings(1.0))
    labels, raw = np.zeros((2, *image.array.shape), np.uint8)
    labels[[1, 2, 4, 5], 10:20, 10:20] = 1
    counts = count_levels(stack, raw, labels, labels > 1)
    answer = review_order(stack, counts, bone_areas(stack, labels), table(0.001, 0.001, 0.5))
    assert [entry.index for entry in answer.slices] == [3, 4, 2, 5, 1]
    assert [entry.share for entry in answer.slices] == [0.2, 0.4, 0.6, 0.8, 1.0]


def test_a_slice_without_signal_between_others_is_expected_to_lack_their_bones():
    image = volume()
    image.array[3] = 0
    stack = SliceStack(image, SliceSettings(1.0))
    assert list(stack.occupied) == [0, 1, 3, 4]
    labels, raw = np.zeros((2, *image.array.shape), np.uint8)
    labels[2, 10:20, 10:20], labels[4, 10:20, 10:30] = 1, 2
    areas = bone_areas(stack, labels)
    answer = review_order(stack, count_levels(stack, raw, labels, labels > 2), areas, Calibration.none())
    first = answer.slices[0]
    assert (first.index, first.score) == (3, 150) and len(answer.slices) == 5


@pytest.mark.parametrize("size", [(6, 48, 40), (1, 48, 40)])
def test_without_a_body_nothing_is_listed(size):
    image = volume(size)
    image.array[:] = 0
    stack = SliceStack(image, SliceSettings(1.0))
    labels = np.zeros(size, np.uint8)
    counts = count_levels(stack, labels, labels, labels > 0)
    assert review_order(stack, counts, bone_areas(stack, labels), Calibration.none()).slices == ()


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """The same model with and without a calibrated review of the knee."""
    config = tiny_config()
    network = random_network(config)
    network.head.weight.data *= 20
    folder = tmp_path_factory.mktemp("model")
    made = []
    for name, entries in (("with", {"knee": table(0.001, 0.1, 0.5).to_dict()}), ("without", None)):
        write_bundle(folder / f"{name}.safetensors", tiny_manifest(config, review=entries), tensors_of(network))
        made.append(Bundle.load(folder / f"{name}.safetensors"))
    return made


def test_the_answer_lists_slices_only_where_the_model_is_calibrated(bundles):
    calibrated, plain = (Predictor(bundle, "cpu") for bundle in bundles)
    assert "review" not in segment_document(plain.segment(volume(), "knee"), None)
    assert "review" not in segment_document(calibrated.segment(volume(), "ankle"), None)
    result = calibrated.segment(volume(), "knee")
    listed = segment_document(result, None)["review"]
    assert listed["axis"] == 0 and sorted(each["index"] for each in listed["slices"]) == [1, 2, 3, 4, 5]
    shares = [each["share"] for each in listed["slices"]]
    assert shares == sorted(shares) and shares[-1] == 1


def test_scores_are_the_sum_of_the_map_that_is_written(bundles):
    """A slice's expected errors and the 8-bit map come from the same numbers."""
    doubt = np.zeros(volume().array.shape, np.uint8)
    result = Predictor(bundles[0], "cpu").segment(volume(), "knee", uncertainty=doubt)
    assert (doubt[0] == 255).all() and set(np.unique(doubt[1:])) <= {0, 25, 127}
    assert ((doubt == 25) <= (result.labels > 0)).all()
    for entry in result.review.slices:
        values, numbers = np.unique(doubt[entry.index], return_counts=True)
        exact = {0: 0.001, 25: 0.1, 127: 0.5}
        assert entry.score == pytest.approx(sum(exact[v] * n for v, n in zip(values, numbers, strict=True)), abs=0.06)
