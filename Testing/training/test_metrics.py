"""Measures of overlap and distance: against MONAI, closed forms on shifted boxes and spheres, and their symmetries."""

import monai.metrics as metrics
import numpy as np
import pytest
import surface_distance
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PedBoneSegTraining.evaluation.metrics import (
    ABSENT,
    FOUND,
    MISSING,
    SPURIOUS,
    TOLERANCE,
    score_bone,
    score_exam,
    summarize,
    surface_distances,
)

SPACING = (0.4, 0.7, 3.0)


def box(shape, low, high):
    mask = np.zeros(shape, bool)
    mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
    return mask


def ball(shape, spacing, center_mm, radius_mm):
    axes = [(np.arange(n) + 0.5) * s - c for n, s, c in zip(shape, spacing, center_mm, strict=True)]
    return sum(np.square(a) for a in np.meshgrid(*axes, indexing="ij")) <= radius_mm**2


def test_a_box_shifted_along_one_axis_has_the_distances_that_one_counts_by_hand():
    # 1×1×4 voxels, shifted by one along the third axis (3 mm): of four surface voxels three coincide, one is 3 mm off.
    reference, prediction = box((3, 3, 8), (1, 1, 1), (2, 2, 5)), box((3, 3, 8), (1, 1, 2), (2, 2, 6))
    score = score_bone(prediction, reference, SPACING)
    assert score.state == FOUND
    assert score.dice == pytest.approx(2 * 3 / 8)
    assert score.sensitivity == pytest.approx(3 / 4)
    assert score.specificity == pytest.approx((72 - 4 - 1) / (72 - 4))
    assert score.mssd == pytest.approx(3.0)
    assert score.assd == pytest.approx((3.0 + 3.0) / 8)
    assert score.ravd == 0
    assert score.hd95 == pytest.approx(3.0)  # one voxel in four is farther than none
    assert score.surface_dice == pytest.approx(6 / 8)


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("shift", [1, 3])
def test_a_solid_box_shifted_by_n_voxels(axis, shift):
    """ASSD in closed form, the shift being short of half the box and of every other way to a surface."""
    spacing, size, shape = (1.0, 1.0, 1.0), np.array([9, 10, 11]), (20, 20, 20)
    low = np.array([4, 4, 4])
    moved = low.copy()
    moved[axis] += shift
    score = score_bone(box(shape, moved, moved + size), box(shape, low, low + size), spacing)
    across = [n for a, n in enumerate(size) if a != axis]
    faces = across[0] * across[1]
    to_edge = [np.minimum(np.arange(n), n - 1 - np.arange(n)) for n in across]
    nearest_side = np.minimum(to_edge[0][:, None], to_edge[1][None, :])
    leading = shift * faces  # the end face outside the other box: straight back to that one's
    rim = 2 * (across[0] + across[1]) - 4
    walking = rim * sum(range(1, shift))  # the sides that stick out, without their end face
    trailing = np.minimum(nearest_side, shift).sum()  # the end face inside the other box: to its end or nearest side
    surface = np.prod(size) - np.prod(size - 2)
    assert score.mssd == pytest.approx(shift)
    assert score.assd == pytest.approx((leading + walking + trailing) / surface)
    assert score.dice == pytest.approx(1 - shift / size[axis])


def test_concentric_balls_in_anisotropic_voxels_are_their_radii_apart():
    spacing, shape = (0.5, 0.25, 1.0), (80, 160, 40)
    middle = [n * s / 2 for n, s in zip(shape, spacing, strict=True)]
    small, large = ball(shape, spacing, middle, 12.0), ball(shape, spacing, middle, 16.0)
    score = score_bone(small, large, spacing)
    assert 4.0 - np.linalg.norm(spacing) / 2 <= score.assd <= 4.0  # the nearest voxel centre is never the farther one
    assert 4.0 <= score.mssd <= 4.0 + np.linalg.norm(spacing)
    assert score.sensitivity == pytest.approx((12 / 16) ** 3, rel=0.01)
    assert score.ravd == pytest.approx(1 - (12 / 16) ** 3, rel=0.01)
    assert score.specificity == 1


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("seed", range(4))
def test_equal_to_monai(seed):
    generator = np.random.default_rng(seed)
    reference, prediction = (
        ball((30, 24, 16), SPACING, generator.uniform((4, 5, 18), (8, 11, 30)), generator.uniform(3, 7))
        for _ in range(2)
    )
    prediction ^= generator.random(prediction.shape) < 0.01
    ours = score_bone(prediction, reference, SPACING)
    p, r = (torch.from_numpy(mask)[None, None] for mask in (prediction, reference))
    assert ours.mssd == pytest.approx(metrics.compute_hausdorff_distance(p, r, True, spacing=SPACING).item(), rel=1e-6)
    assert ours.assd == pytest.approx(
        metrics.compute_average_surface_distance(p, r, True, symmetric=True, spacing=SPACING).item(), rel=1e-6
    )
    robust = metrics.compute_hausdorff_distance(p, r, True, percentile=95, spacing=SPACING).item()
    assert ours.hd95 == pytest.approx(robust, abs=max(SPACING))  # MONAI interpolates between two distances
    assert ours.dice == pytest.approx(metrics.compute_dice(p.float(), r.float()).item(), rel=1e-6)
    confusion = metrics.get_confusion_matrix(p.float(), r.float())
    for name in ("sensitivity", "specificity"):
        theirs = metrics.compute_confusion_matrix_metric(name, confusion).item()
        assert getattr(ours, name) == pytest.approx(theirs, rel=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_hd95_and_surface_dice_are_deepminds_formulas(seed):
    """Fed with our distances, every voxel of a surface weighing alike, `surface-distance` gives our numbers."""
    generator = np.random.default_rng(seed)
    reference, prediction = (
        ball((30, 24, 16), SPACING, generator.uniform((4, 5, 18), (8, 11, 30)), generator.uniform(3, 7))
        for _ in range(2)
    )
    ours = score_bone(prediction, reference, SPACING)
    theirs = {}
    for key, distances in zip(
        ("pred_to_gt", "gt_to_pred"), surface_distances(prediction, reference, SPACING), strict=True
    ):
        theirs[f"distances_{key}"] = np.sort(distances)
        theirs[f"surfel_areas_{key.split('_')[0]}"] = np.ones(len(distances))
    assert ours.hd95 == pytest.approx(surface_distance.compute_robust_hausdorff(theirs, 95))
    agreeing = surface_distance.compute_surface_dice_at_tolerance(theirs, TOLERANCE)
    assert ours.surface_dice == pytest.approx(agreeing)


@pytest.mark.parametrize("radius", [7.0, 9.5])
def test_near_to_deepminds_surface_distance_on_their_own_surfaces(radius):
    """They place the surface between voxels and weigh it by area: within a voxel's size of ours."""
    spacing, shape = (0.5, 0.5, 0.5), (60, 60, 60)
    reference, prediction = ball(shape, spacing, (15, 15, 15), 9.0), ball(shape, spacing, (15.4, 15, 14.7), radius)
    ours = score_bone(prediction, reference, spacing)
    theirs = surface_distance.compute_surface_distances(reference, prediction, spacing)
    assert ours.hd95 == pytest.approx(surface_distance.compute_robust_hausdorff(theirs, 95), abs=0.5)
    assert ours.surface_dice == pytest.approx(
        surface_distance.compute_surface_dice_at_tolerance(theirs, TOLERANCE), abs=0.15
    )


masks = st.integers(0, 2**32 - 1).map(lambda seed: np.random.default_rng(seed).random((2, 6, 5, 4)) < 0.3)


@settings(max_examples=40, deadline=None)
@given(masks, st.sampled_from([(0, 1, 2), (2, 0, 1), (1, 0, 2)]), st.floats(0.1, 10))
def test_symmetries(pair, axes, factor):
    a, b = pair
    a[0, 0, 0] = b[-1, -1, -1] = True
    score, swapped = score_bone(a, b, SPACING), score_bone(b, a, SPACING)
    turned = score_bone(a.transpose(axes), b.transpose(axes), [SPACING[axis] for axis in axes])
    scaled = score_bone(a, b, [factor * s for s in SPACING])
    for name in ("dice", "mssd", "assd", "hd95", "surface_dice"):
        assert getattr(swapped, name) == pytest.approx(getattr(score, name))
        assert getattr(turned, name) == pytest.approx(getattr(score, name))
    assert scaled.assd == pytest.approx(factor * score.assd)
    assert scaled.mssd == pytest.approx(factor * score.mssd)
    assert scaled.hd95 == pytest.approx(factor * score.hd95)
    assert score.hd95 <= score.mssd and score.assd <= score.mssd
    assert score_bone(a, a, SPACING).assd == 0


def test_empty_masks_have_a_state_and_no_distance():
    nothing, something = np.zeros((4, 4, 4), bool), box((4, 4, 4), (1, 1, 1), (3, 3, 3))
    missing = score_bone(nothing, something, SPACING)
    assert (missing.state, missing.dice, missing.sensitivity, missing.ravd) == (MISSING, 0, 0, 1)
    assert missing.mssd is None and missing.assd is None and missing.hd95 is None and missing.surface_dice == 0
    spurious = score_bone(something, nothing, SPACING)
    assert (spurious.state, spurious.dice, spurious.ravd, spurious.assd) == (SPURIOUS, 0, None, None)
    assert spurious.specificity == pytest.approx(1 - 8 / 64)
    absent = score_bone(nothing, nothing, SPACING)
    assert (absent.state, absent.dice, absent.specificity) == (ABSENT, None, 1)


def test_a_missing_bone_lowers_the_mean_dice_and_is_counted_where_distances_cannot_speak_of_it():
    nothing, something = np.zeros((4, 4, 4), bool), box((4, 4, 4), (1, 1, 1), (3, 3, 3))
    pairs = [(something, something), (nothing, something), (something, nothing), (nothing, nothing)]
    scores = [score_bone(*pair, SPACING) for pair in pairs]
    summary = summarize(scores)
    assert (summary.exams, summary.missing, summary.spurious) == (2, 1, 1)
    assert summary.means["dice"] == pytest.approx(0.5)
    assert summary.means["assd"] == 0
    assert summarize([]).means["dice"] is None


def test_bones_are_matched_by_name_and_unlabelled_ones_left_out():
    prediction, reference = np.zeros((2, 4, 4, 4), np.uint8)
    prediction[:2], prediction[2:] = 1, 2
    reference[:2], reference[2:] = 7, 3
    scores = score_exam(
        prediction,
        reference,
        SPACING,
        {"tibia": 1, "fibula": 2, "talus": 3},
        {"tibia": 7, "fibula": 3, "talus": 9},
        unlabelled=["talus"],
    )
    assert {name: score.dice for name, score in scores.items()} == {"tibia": 1, "fibula": 1}
