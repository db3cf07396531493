"""Pieces of bones in 3-D: which stay, which change their bone, which go."""

import sys

import numpy as np
import pytest

from PedBoneSegLib.errors import Cancelled
from PedBoneSegLib.inference.postprocess import clean

NAMES = ("femur", "tibia", "fibula")


def scene(**boxes):
    """An empty 1 mm³ map with boxes of labels: name=(label, i range, j range, k range)."""
    labels = np.zeros((80, 60, 60), np.uint8)
    for label, *ranges in boxes.values():
        labels[tuple(slice(*r) for r in ranges)] = label
    return labels


FEMUR = (1, (0, 20), (10, 40), (10, 40))
TIBIA = (2, (25, 45), (10, 40), (10, 40))
FIBULA = (3, (25, 45), (45, 50), (10, 20))


def codes(labels, spacing=(1, 1, 1)):
    return [notice.code for notice in clean(labels, spacing, NAMES)]


def test_clean_bodies_are_left_alone():
    labels = scene(a=FEMUR, b=TIBIA, c=FIBULA)
    before = labels.copy()
    assert codes(labels) == []
    np.testing.assert_array_equal(labels, before)


@pytest.mark.parametrize("size, gap, stays", [(5, 3, True), (5, 14, True), (5, 16, False), (4, 3, False)])
def test_an_epiphysis_is_kept_by_volume_and_distance(size, gap, stays):
    """125 mm³ is above 0.1 ml, 64 mm³ is not; the distance is between voxel centers."""
    start = 20 + gap - 1
    labels = scene(piece=(1, (start, start + size), (20, 20 + size), (20, 20 + size)), femur=FEMUR)
    labels[70:, 50:, 50:] = 2
    labels[70:, 50:, :5] = 3
    assert codes(labels) == []
    assert labels[start + 1, 22, 22] == (1 if stays else 0)
    assert np.count_nonzero(labels == 1) == 18000 + (size**3 if stays else 0)


def test_distance_and_volume_are_in_millimeters():
    labels = scene(femur=FEMUR, piece=(1, (24, 29), (20, 25), (20, 25)), b=(2, (70, 80), (50, 60), (50, 60)))
    assert codes(labels.copy(), (1, 1, 1)) == ["missing"]
    far = labels.copy()
    clean(far, (4.0, 1, 1), NAMES)  # 4 voxels are 20 mm between centers now
    assert far[26, 22, 22] == 0
    small = labels.copy()
    clean(small, (0.5, 1, 1), NAMES)  # the piece holds 62 mm³
    assert small[26, 22, 22] == 0


def test_a_fragment_inside_another_bone_becomes_that_bone():
    labels = scene(a=FEMUR, b=TIBIA, c=FIBULA, wrong=(2, (8, 10), (20, 22), (20, 22)))
    clean(labels, (1, 1, 1), NAMES)
    assert (labels[8:10, 20:22, 20:22] == 1).all()


def test_a_few_slices_of_a_shaft_called_another_bone_are_won_back():
    """A section of the femur's shaft: its two ends touch the femur, its sides the background."""
    labels = scene(a=(1, (0, 50), (20, 44), (20, 44)), b=(2, (55, 75), (10, 50), (10, 50)), c=FIBULA)
    labels[labels == 3] = 0
    labels[70:80, 50:60, 50:60] = 3
    labels[20:26, 20:44, 20:44] = 2  # 2 × 24² = 1152 mm² of ends, 4 × 24 × 6 = 576 mm² of sides
    clean(labels, (1, 1, 1), NAMES)
    assert (labels[20:26, 20:44, 20:44] == 1).all()


def test_an_epiphysis_that_touches_the_neighbour_a_little_stays_its_own():
    """A tibial epiphysis, 10 × 10 × 4, that touches the femur over 40 of its 360 mm²: 11 %."""
    labels = scene(a=FEMUR, b=(2, (30, 50), (10, 40), (10, 40)), c=FIBULA, e=(2, (20, 24), (37, 47), (20, 30)))
    labels[25:45, 45:50, 10:20] = 0
    labels[70:, 50:, 50:] = 3
    labels[20:24, 40:47, 20:30] = 2
    clean(labels, (1, 1, 1), NAMES)
    assert (labels[20:24, 37:47, 20:30] == 2).all()


def test_contact_counts_faces_by_their_area():
    """Thin voxels: the same fragment touches the femur over 1/6 of its voxel faces, but over most of its surface."""
    labels = scene(a=FEMUR, b=TIBIA, c=FIBULA)
    labels[20, 20, 20] = 2
    cube, thin = labels.copy(), labels.copy()
    clean(cube, (1, 1, 1), NAMES)
    clean(thin, (0.1, 1, 1), NAMES)  # 1 of (1 + 1 + 4 × 0.1) mm²
    assert (cube[20, 20, 20], thin[20, 20, 20]) == (0, 1)


@pytest.mark.parametrize("share, warned", [(1.0, True), (0.5, True), (0.3, False)])
def test_two_sides(share, warned):
    labels = scene(
        a=(1, (0, 20), (0, 20), (0, 20)),
        b=(1, (50, 50 + int(20 * share)), (0, 20), (0, 20)),
        c=(2, (0, 20), (22, 40), (0, 20)),
        d=(3, (0, 20), (45, 50), (0, 20)),
    )
    assert codes(labels) == (["two-sides"] if warned else [])
    assert bool(labels[51, 1, 1]) is warned


def test_a_missing_bone_is_said():
    labels = scene(a=FEMUR, b=TIBIA)
    (notice,) = clean(labels, (1, 1, 1), NAMES)
    assert notice.code == "missing" and "fibula" in notice.message


@pytest.mark.parametrize("turn", [(0, 1, 2), (2, 0, 1), (1, 2, 0), (2, 1, 0)])
@pytest.mark.parametrize("order", "CF")
def test_the_order_of_axes_and_memory_does_not_matter(turn, order):
    rng = np.random.default_rng(3)
    labels = np.where(rng.random((30, 34, 26)) < 0.3, rng.integers(1, 4, (30, 34, 26)), 0).astype(np.uint8)
    labels[2:12, 3:20, 4:20], labels[15:28, 3:20, 4:20], labels[8:20, 24:32, 5:20] = 1, 2, 3
    spacing = (1.0, 0.7, 1.9)
    expected = labels.copy()
    clean(expected, spacing, NAMES)
    found = np.array(labels.transpose(turn), order=order)
    clean(found, tuple(spacing[a] for a in turn), NAMES)
    np.testing.assert_array_equal(found, expected.transpose(turn))


def test_cancel():
    def check():
        raise Cancelled()

    with pytest.raises(Cancelled):
        clean(scene(a=FEMUR), (1, 1, 1), NAMES, check)


def calls_of(side: int) -> int:
    """Function calls, Python's and C's, that cleaning a cube of noise takes."""
    labels = np.random.default_rng(0).integers(0, 4, (side, side, side)).astype(np.uint8)
    calls = 0

    def count(frame, event, argument) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        clean(labels, (0.5, 0.5, 0.5), NAMES)
    finally:
        sys.setprofile(None)
    return calls


def test_bounded_on_noise():
    """Nothing but fragments: 64 times as many take no more calls, that is, no loop goes over the fragments."""
    assert calls_of(96) < 1.5 * calls_of(24)
