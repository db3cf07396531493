"""Measures of calibration and what is fitted with them, by hand-worked cases and known answers."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from exam_phantoms import phantom
from PedBoneSegTraining.data.dataset import LoadedCase
from PedBoneSegTraining.models.calibration import (
    Reliability,
    SegmentedExam,
    fit_review,
    fit_temperature,
    foreground_box,
    reliability,
    rising,
    sample_voxels,
    segment_for_review,
    voxels_in_box,
)
from tiny import random_network, tiny_config, tiny_manifest

from PedBoneSegLib.inference.predictor import Predictor
from PedBoneSegLib.inference.review import LEVELS, uncalibrated_error
from PedBoneSegLib.inference.slices import SliceSettings, SliceStack
from PedBoneSegLib.volume import Grid, Volume

EYE = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


def logits_of(chances: list[list[float]]) -> torch.Tensor:
    return torch.tensor(chances, dtype=torch.float64).log()


def knee_case(seed: int = 0, known: bool = True) -> LoadedCase:
    image, labels = phantom("knee", seed)
    volume = Volume(image, Grid(image.shape, (5.0, 2.0, 2.0), (0.0, 0.0, 0.0), EYE), f"knee {seed}")
    return LoadedCase(volume.name, volume, labels, np.array([True, True, True, True, known]))


@pytest.fixture(scope="module")
def knee():
    """Random weights, the bones' logits centered so that all of them occur, in crumbs."""
    config = tiny_config()
    network, cards = random_network(config), tiny_manifest(config).domains
    stack = SliceStack(knee_case().volume, SliceSettings(1.0))
    images = torch.from_numpy(stack.images(stack.occupied))
    with torch.no_grad():
        network.head.weight.mul_(10)
        logits = network(images, ["knee"] * len(images)).logits["knee"]
        network.head.bias[network.head.rows["knee"]] -= logits.mean((0, 2, 3))
    return Predictor.for_network(network, cards, "cpu"), cards[1]


def test_measures_by_hand():
    sums = Reliability()
    sums.add(logits_of([[0.9, 0.1], [0.9, 0.1], [0.3, 0.7], [0.2, 0.8]]), torch.tensor([0, 1, 1, 1]))
    # bins: 0.9 twice, one right: |0.5 − 0.9| for 2 voxels; 0.7 and 0.8, right: 0.3 and 0.2
    assert sums.ece == pytest.approx((2 * 0.4 + 0.3 + 0.2) / 4)
    assert sums.brier == pytest.approx((2 * 0.01 + 2 * 0.81 + 2 * 0.09 + 2 * 0.04) / 4)
    assert sums.nll == pytest.approx(-np.log([0.9, 0.1, 0.7, 0.8]).mean())
    assert sums.voxels.sum() == 4 and sums.voxels[13] == 2  # (13/15, 14/15] holds 0.9


def test_measures_add_up():
    random = torch.Generator().manual_seed(0)
    logits, truth = torch.randn(500, 4, generator=random), torch.randint(0, 4, (500,), generator=random)
    whole, parts = Reliability(), [Reliability(), Reliability()]
    whole.add(logits, truth)
    parts[0].add(logits[:123], truth[:123])
    parts[1].add(logits[123:], truth[123:])
    both = parts[0] + parts[1]
    assert (both.ece, both.brier, both.nll) == pytest.approx((whole.ece, whole.brier, whole.nll))
    assert Reliability().ece == 0 and Reliability().to_dict()["bins"][0]["accuracy"] is None


def test_perfect_calibration_has_no_error():
    """Labels drawn with the very probabilities that are claimed."""
    random = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(200_000, 3, generator=random)
    truth = torch.multinomial(logits.softmax(1), 1, generator=random)[:, 0]
    sums = Reliability()
    sums.add(logits, truth)
    assert sums.ece < 0.005
    sure = Reliability()
    sure.add(3 * logits, truth)
    assert sure.ece > 0.1 and sure.nll > sums.nll and sure.brier > sums.brier


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_is_found_again(temperature):
    random = torch.Generator().manual_seed(0)
    samples = []
    for _ in range(4):
        logits = 2 * torch.randn(20_000, 4, generator=random)
        samples.append((logits * temperature, torch.multinomial(logits.softmax(1), 1, generator=random)[:, 0]))
    assert fit_temperature(samples) == pytest.approx(temperature, rel=0.03)


def test_every_exam_counts_alike():
    """A large exam at temperature 1 and a small one at 4: between, not the large one's."""
    random = torch.Generator().manual_seed(0)
    samples = []
    for count, factor in ((50_000, 1.0), (500, 4.0)):
        logits = 2 * torch.randn(count, 3, generator=random)
        samples.append((logits * factor, torch.multinomial(logits.softmax(1), 1, generator=random)[:, 0]))
    assert 1.8 < fit_temperature(samples) < 4


def test_the_box_is_dilated_in_millimeters():
    labels = np.zeros((10, 60, 60), np.uint8)
    labels[4:6, 20:30, 3] = 2
    assert foreground_box(labels, (5.0, 1.0, 3.0)) == (slice(2, 8), slice(10, 40), slice(0, 8))
    assert foreground_box(np.zeros((2, 2, 2)), (1.0, 1.0, 1.0)) is None


def test_voxels_come_from_the_box_with_their_own_truth(knee):
    predictor, card = knee
    case = knee_case()
    parts = list(voxels_in_box(predictor, card, case))
    truth = torch.cat([part[1] for part in parts])
    box = foreground_box(case.labels, case.volume.grid.spacing)
    assert len(truth) <= case.labels[box].size
    for label in range(1, 5):  # every voxel of a bone is in its box and inside the body
        assert int((truth == label).sum()) == int((case.labels == label).sum())
    chosen = torch.cat([part[0] for part in parts]).argmax(1)
    result = segment_for_review(predictor, card, case)
    first = np.where(result.changed, 255, result.labels)  # where nothing was changed the two agree
    shared = int((first[box] > 0).sum() - (first[box] == 255).sum())
    assert int((chosen > 0).sum()) >= shared > 0
    assert list(voxels_in_box(predictor, card, knee_case(known=False))) == []
    sums = reliability(predictor, card, case)
    assert sums.voxels.sum() == len(truth) and sums.right.sum() == int((chosen == truth).sum())


def test_the_same_voxels_are_drawn_again(knee):
    predictor, card = knee
    one, other = (sample_voxels(predictor, card, knee_case()) for _ in range(2))
    assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1]) and 1000 < len(one[1]) <= 21_000


def test_rising_by_hand():
    np.testing.assert_allclose(rising(np.array([1.0, 3, 2, 4]), np.ones(4)), [1, 2.5, 2.5, 4])
    np.testing.assert_allclose(rising(np.array([3.0, 2, 1]), np.array([1.0, 1, 2])), [1.75, 1.75, 1.75])
    np.testing.assert_allclose(rising(np.array([0.0, 1, 5]), np.ones(3)), [0, 1, 5])


def test_rising_is_the_nearest_that_rises():
    random = np.random.default_rng(0)
    values, weights = random.normal(size=40).cumsum() * 0.3, random.uniform(0.1, 3, 40)
    found = rising(values, weights)
    assert (np.diff(found) >= 0).all() and (found * weights).sum() == pytest.approx((values * weights).sum())
    best = (weights * (found - values) ** 2).sum()
    for _ in range(300):
        other = np.sort(found + random.normal(0, 0.1, 40))
        assert (weights * (other - values) ** 2).sum() >= best


def test_the_review_learns_how_often_each_level_errs():
    image = Volume(
        np.random.default_rng(0).normal(100, 20, (4, 64, 64)).astype(np.float32),
        Grid((4, 64, 64), (5.0, 1.0, 1.0), (0.0, 0.0, 0.0), EYE),
    )
    stack, random = SliceStack(image, SliceSettings(1.0)), np.random.default_rng(1)
    shape = image.array.shape
    raw = random.choice(np.array([0, 60, 120], np.uint8), shape)
    labels, changed = (random.random(shape) < 0.5).astype(np.uint8), random.random(shape) < 0.05
    rate = np.where(changed, 0.6, np.where(labels > 0, 0.4, 0.1) * (raw / 120))
    wrong = random.random(shape) < rate
    fitted = fit_review([SegmentedExam(stack, labels, raw, changed, wrong)] * 2)
    np.testing.assert_allclose(fitted.table[0, [60, 120]], [0.05, 0.1], atol=0.012)
    np.testing.assert_allclose(fitted.table[1, [60, 120]], [0.2, 0.4], atol=0.025)
    np.testing.assert_allclose(fitted.table[2], 0.6, atol=0.03)
    assert fitted.table[0, 0] < 1e-3 and (np.diff(fitted.table[:2]) >= 0).all() and fitted.exams == 2


def test_without_errors_the_review_hopes_no_more_than_it_saw():
    stack = SimpleNamespace(oriented=lambda array: array, occupied=[0], crop=(slice(None), slice(None)), count=1)
    nothing = np.zeros((1, 20, 20), np.uint8)
    fitted = fit_review([SegmentedExam(stack, nothing, nothing, nothing > 0, nothing > 0)])
    assert fitted.table[0, 0] == 0 and fitted.table[2, 0] == pytest.approx(0.5)
    assert fitted.table[0, 200] == pytest.approx(
        uncalibrated_error()[200]
    )  # nobody saw this level: as the network claims
    assert fitted.table.shape == (3, LEVELS + 1)


def test_what_was_cleaned_away_is_judged_by_the_final_label(knee):
    predictor, card = knee
    result = segment_for_review(predictor, card, knee_case())
    whole = predictor.segment(knee_case().volume, "knee")
    np.testing.assert_array_equal(result.labels, whole.labels)
    assert result.changed.any()
    np.testing.assert_array_equal(result.wrong, whole.labels != knee_case().labels)
