"""A volume becomes slices and comes back: on any grid, in any numeric type, exactly where it was."""

from itertools import permutations, product
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from PedBoneSegLib.errors import BadModel
from PedBoneSegLib.inference.passes import on_own_pixels
from PedBoneSegLib.inference.resampling import SliceAxis, largest_share, linear_matrix
from PedBoneSegLib.inference.slices import PLANES, SliceSettings, SliceStack, canonical_axes, choose_plane

SETTINGS = SliceSettings(pixel_mm=1.0)


def volume(array, spacing=(1.0, 1.0, 1.0), direction=None):
    direction = np.eye(3) if direction is None else np.asarray(direction)
    return SimpleNamespace(array=array, grid=SimpleNamespace(size=array.shape, spacing=spacing, direction=direction))


def body(shape, seed=0):
    """An off-center ellipsoid of textured signal in dark noise; no axis is like another, no flip leaves it as it is."""
    rng = np.random.default_rng(seed)
    axes = np.meshgrid(*[np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in shape], indexing="ij")
    inside = sum(((a - s) / r) ** 2 for a, s, r in zip(axes, (0.1, -0.15, 0.05), (0.6, 0.7, 0.8), strict=True)) < 1
    return (rng.integers(0, 20, shape) + inside * (400 + 100 * axes[1] + rng.normal(0, 40, shape))).astype(np.float32)


def turned(array, spacing, order, flips):
    """The same thing in space with another array layout: permuted axes, some of them run backwards."""
    direction = np.eye(3)[:, order] * np.array(flips)
    view = array.transpose(order)[tuple(slice(None, None, f) for f in flips)]
    return volume(view, tuple(spacing[a] for a in order), direction)


LAYOUTS = list(product(permutations(range(3)), product((1, -1), repeat=3)))


@pytest.mark.parametrize("order, flips", LAYOUTS)
def test_layout_in_the_file_does_not_matter(order, flips):
    array, spacing = body((14, 40, 36)), (4.0, 0.9, 1.1)
    plain = SliceStack(volume(array, spacing), SETTINGS)
    other = SliceStack(turned(array, spacing, order, flips), SETTINGS)
    assert (other.plane, other.count, other.shape, other.crop) == ("sagittal", 14, plain.shape, plain.crop)
    np.testing.assert_array_equal(other.occupied, plain.occupied)
    np.testing.assert_array_equal(other.images(range(14)), plain.images(range(14)))


@pytest.mark.parametrize("plane", PLANES)
def test_rows_and_columns_run_as_documented(plane):
    """Each world axis as the intensity: read along the slice, row and column axes it must rise or fall as stated."""
    for world, axis in enumerate("LPS"):
        ramp = np.moveaxis(np.broadcast_to(np.arange(1.0, 33.0), (32, 32, 32)), -1, world)
        images = SliceStack(volume(ramp), SETTINGS, force_plane=plane).images(range(32))[:, 0]
        rise = [
            np.sign(images[-1].mean() - images[0].mean()),
            *(
                np.sign(d)
                for d in (images[:, -1].mean() - images[:, 0].mean(), images[:, :, -1].mean() - images[:, :, 0].mean())
            ),
        ]
        expected = {
            "sagittal": {"L": (1, 0, 0), "S": (0, -1, 0), "P": (0, 0, 1)},
            "coronal": {"P": (1, 0, 0), "S": (0, -1, 0), "L": (0, 0, 1)},
            "axial": {"S": (1, 0, 0), "P": (0, 1, 0), "L": (0, 0, 1)},
        }[plane][axis]
        big = [r if abs(r) else 0 for r in rise]
        assert tuple(int(b) if e else 0 for b, e in zip(big, expected, strict=True)) == expected


def rotation(angles):
    a, b, c = angles
    x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return x @ y @ z


shapes = st.tuples(*[st.integers(1, 24)] * 3)
spacings = st.tuples(*[st.floats(0.2, 8)] * 3)
angles = st.tuples(*[st.floats(-3.2, 3.2)] * 3)
kinds = st.sampled_from(["u1", "i1", "u2", "i2", "i4", "u4", "i8", "f4", "f8", ">i2", ">f4"])


@settings(max_examples=150, deadline=None)
@given(shapes, spacings, angles, st.sampled_from([1, -1]), kinds, st.sampled_from([0.3, 0.8, 2.5]), st.integers(0, 2))
def test_every_voxel_of_the_crop_comes_back_to_its_place(shape, spacing, angle, hand, kind, pixel_mm, context):
    """Any size, spacing, oblique direction of either handedness and numeric type."""
    array = np.clip(body(shape, seed=sum(shape)) / 5, 0, 127).astype(kind)
    source = volume(array, spacing, rotation(angle) * np.array([1, 1, hand]))
    stack = SliceStack(source, SliceSettings(pixel_mm, context))
    images = stack.images(range(stack.count))
    assert images.shape == (stack.count, 2 * context + 1, *stack.shape) and images.dtype == np.float32
    assert np.isfinite(images).all() and not any(n % 32 for n in stack.shape)
    names = np.arange(array.size, dtype=np.int64).reshape(shape) + 1
    into = np.zeros(shape, np.int64)
    slices = stack.oriented(names)[(slice(None), *stack.crop)]
    stack.place(slices, range(stack.count), into)
    np.testing.assert_array_equal(into[into > 0], names[into > 0])
    assert np.count_nonzero(into) == slices.size
    assert (
        stack.oriented(names)[0, 0, 0]
        == names[
            tuple(
                stack.own_index(0) if a == stack.axis else np.argwhere(names == stack.oriented(names)[0, 0, 0])[0][a]
                for a in range(3)
            )
        ]
    )
    for window, scale, crop in zip(stack.window, stack.scale, stack.crop, strict=True):
        covered = (window.stop - window.start) * scale
        assert crop.stop - crop.start - 1e-5 * scale <= covered < crop.stop - crop.start + scale


@settings(max_examples=60, deadline=None)
@given(st.floats(0.3, 2.2), st.floats(0.3, 2.2), st.floats(0.4, 1.5))
def test_a_ramp_is_reproduced_there_and_back(row_mm, column_mm, pixel_mm):
    """Positions survive: within a tenth of the coarser pixel, away from the border."""
    i, j = np.meshgrid(np.arange(40.0), np.arange(36.0), indexing="ij")
    ramp = np.broadcast_to(300 + 10 * i + 7 * j, (3, 40, 36))
    stack = SliceStack(
        volume(ramp, (9.0, row_mm, column_mm), np.eye(3)[:, [0, 2, 1]] * [1, -1, 1]), SliceSettings(pixel_mm)
    )
    assert (stack.plane, stack.crop) == ("sagittal", (slice(0, 40), slice(0, 36)))
    norm = stack.normalization
    back = on_own_pixels(torch.from_numpy(stack.images([1])), stack)[0, 0].numpy() * norm.deviation + norm.mean
    edges = [int(np.ceil(2 * max(mm, pixel_mm) / mm)) + 2 for mm in (row_mm, column_mm)]
    inner = tuple(slice(edge, -edge) for edge in edges)
    expected, found = ramp[1][inner], back[inner]
    clear = (expected > norm.low + 40) & (expected < norm.high - 40)  # what the percentiles clip is not a ramp
    np.testing.assert_allclose(found[clear], expected[clear], atol=1.7 * max(1, *stack.scale))


def test_equal_pixels_are_a_copy():
    array = body((8, 50, 45))
    stack = SliceStack(volume(array, (5.0, 1.0, 1.0)), SETTINGS)
    norm, images = stack.normalization, stack.images(range(8))
    expected = (np.clip(stack.oriented(array), norm.low, norm.high) - norm.mean) / norm.deviation
    found = images[:, 0][(slice(None), *stack.window)]
    np.testing.assert_allclose(found, expected[(slice(None), *stack.crop)], atol=1e-5)
    assert stack.window[0].start > stack.crop[0].start  # so that the first row lies beyond the field of view
    np.testing.assert_allclose(images[:, 0, 0], (norm.low - norm.mean) / norm.deviation, atol=1e-5)
    back = on_own_pixels(torch.from_numpy(images), stack)[:, 0].numpy()
    np.testing.assert_array_equal(back, images[:, 0][(slice(None), *stack.window)])


def test_linear_matrix_by_hand():
    np.testing.assert_allclose(
        linear_matrix(np.array([-0.5, 0, 0.25, 2, 2.6]), 1, 3),
        [[1, 0, 0], [1, 0, 0], [0.75, 0.25, 0], [0, 0, 1], [0, 0, 0]],
    )
    np.testing.assert_allclose(linear_matrix(np.array([2.0]), 2, 5), [[0, 0.25, 0.5, 0.25, 0]])


def test_averaging_removes_what_would_alias():
    stripes = np.zeros((4, 64, 64), np.float32) + 100 + 100 * (np.arange(64) % 2)
    images = SliceStack(volume(stripes, (5.0, 0.5, 0.5)), SliceSettings(2.0)).images([1])[0, 0]
    assert images[:16, 9:24][4:12].std() < 0.05 * 1.0  # the deviation of the stripes themselves is 1


@pytest.mark.parametrize("plane", PLANES)
def test_labels_go_there_and_back(plane):
    labels = np.zeros((30, 44, 38), np.uint8)
    labels[5:25, 8:30, 9:20], labels[8:20, 30:40, 10:30] = 1, 2
    fine = SliceSettings(0.45, margin_mm=40)
    stack = SliceStack(volume(body(labels.shape), (1.0, 1.1, 0.9)), fine, force_plane=plane)
    targets = stack.labels(labels, range(stack.count))
    assert targets.shape == (stack.count, *stack.shape) and targets.dtype == np.uint8
    onehot = (targets[:, None] == np.arange(3)[:, None, None]).astype(np.float32)
    own = on_own_pixels(torch.from_numpy(onehot), stack).argmax(1).numpy()
    into = np.zeros_like(labels)
    stack.place(own, range(stack.count), into)
    np.testing.assert_array_equal(into, labels)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.35, 0.45, 0.7]))
def test_a_perfect_network_comes_back_exactly_at_twice_the_pixel_size(seed, spacing):
    """Any map of 2 × 2 blocks, not one voxel shifted; floor(x + 0.5) moved all of them by half a voxel."""
    blocks = np.random.default_rng(seed).integers(0, 3, (4, 20, 18)).astype(np.uint8)
    labels = blocks.repeat(2, 1).repeat(2, 2)
    signal = np.full(labels.shape, 100.0, np.float32) + labels
    stack = SliceStack(volume(signal, (4.0, spacing, spacing)), SliceSettings(2 * spacing), force_plane="sagittal")
    targets = stack.labels(labels, range(4))
    np.testing.assert_array_equal(targets[:, *stack.window], stack.oriented(labels)[:, ::2, ::2])
    onehot = (targets[:, None] == np.arange(3)[:, None, None]).astype(np.float32)
    own = on_own_pixels(torch.from_numpy(onehot), stack).argmax(1)
    np.testing.assert_array_equal(own, stack.oriented(labels))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.3, 5.0))
def test_labels_are_those_that_fill_most_of_a_pixel_whichever_way_an_axis_is_read(seed, pixel_mm):
    """Against areas counted on a grid 40 times finer; and read backwards, the same backwards."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, (12, 15)).repeat(3, 0).repeat(3, 1).astype(np.uint8)
    rows, columns = (SliceAxis(n, 1.0, 0, n, n / max(1, round(n / pixel_mm))) for n in labels.shape)
    found = largest_share(labels, rows, columns)
    back = largest_share(np.ascontiguousarray(labels[::-1, ::-1]), rows, columns)
    within = tuple(slice(line.pad, line.pad + line.used) for line in (rows, columns))
    np.testing.assert_array_equal(back[within], found[within][::-1, ::-1])
    rest = found.copy()
    rest[within] = 0
    assert not rest.any()
    fine = [np.arange(line.used * 40).reshape(-1, 40) / 40 + 0.0125 for line in (rows, columns)]
    seen = [
        np.minimum((f * line.ratio).astype(int), n - 1)
        for f, line, n in zip(fine, (rows, columns), labels.shape, strict=True)
    ]
    pixels = labels[seen[0][:, None, :, None], seen[1][None, :, None, :]]
    shares = np.stack([(pixels == label).mean(axis=(2, 3)) for label in range(4)])
    chosen = np.take_along_axis(shares, found[within][None].astype(int), 0)[0]
    assert (chosen >= shares.max(0) - 0.03).all()


@settings(max_examples=40, deadline=None)
@given(st.floats(0.01, 1000), st.floats(-5000, 5000))
def test_gain_and_offset_do_not_matter(gain, offset):
    array = body((10, 30, 26)).astype(np.float64)
    plain = SliceStack(volume(array, (3.0, 1.0, 1.0)), SETTINGS)
    other = SliceStack(volume(array * gain + offset, (3.0, 1.0, 1.0)), SETTINGS)
    assert other.crop == plain.crop
    np.testing.assert_allclose(other.images([4, 5]), plain.images([4, 5]), atol=1e-4)


def test_normalized_inside_the_body():
    """More air around the body changes nothing, one absurdly bright voxel next to nothing."""
    array = body((12, 120, 120))
    small = SliceStack(volume(array, (4.0, 1.0, 1.0)), SETTINGS).normalization
    airy = SliceStack(volume(np.pad(array, ((0, 0), (60, 60), (60, 60))), (4.0, 1.0, 1.0)), SETTINGS).normalization
    spiked = array.copy()
    spiked[6, 54, 60] = 1e6
    spike = SliceStack(volume(spiked, (4.0, 1.0, 1.0)), SETTINGS).normalization
    for norm in (airy, spike):
        assert (norm.mean, norm.deviation) == pytest.approx((small.mean, small.deviation), rel=0.15)
    assert small.mean == pytest.approx(array[array > 200].mean(), rel=0.12)


def test_context_is_a_distance_and_the_edge_repeats():
    array = np.zeros((7, 32, 32), np.float32) + np.arange(1, 8)[:, None, None] * 100
    stack = SliceStack(volume(array, (2.0, 1.0, 1.0)), SliceSettings(1.0, context=2, context_mm=4.0))
    values = stack.images([0, 3, 6])[:, :, 16, 16]
    level = stack.images(range(7))[:, 2, 16, 16]
    np.testing.assert_array_equal(values, level[[[0, 0, 0, 2, 4], [0, 1, 3, 5, 6], [2, 4, 6, 6, 6]]])


def test_slices_without_signal_are_not_occupied():
    array = body((12, 32, 32))
    array[:3] = array[9:] = 0
    stack = SliceStack(volume(array, (4.0, 1.0, 1.0)), SETTINGS)
    np.testing.assert_array_equal(stack.occupied, range(3, 9))


@pytest.mark.parametrize("value", [0, 7, np.nan, np.inf])
def test_a_volume_without_signal(value):
    stack = SliceStack(volume(np.full((5, 20, 20), value, np.float32)), SETTINGS)
    assert len(stack.occupied) == 0 and not stack.images([2]).any()
    assert stack.non_finite == (0 if np.isfinite(value) else 2000)


def test_non_finite_voxels_read_as_the_lowest():
    array = body((6, 30, 30))
    bad = array.copy()
    bad[2, :3, :3], bad[3, 0, 0] = np.nan, -np.inf
    clean = array.copy()
    clean[2, :3, :3] = clean[3, 0, 0] = array.min()
    found, expected = (SliceStack(volume(a, (4.0, 1.0, 1.0)), SETTINGS) for a in (bad, clean))
    assert found.non_finite == 10
    np.testing.assert_array_equal(found.images(range(6)), expected.images(range(6)))


@pytest.mark.parametrize(
    "spacing, size, plane",
    [
        ((4, 0.5, 0.5), (20, 99, 99), "sagittal"),
        ((0.5, 4, 0.5), (99, 20, 99), "coronal"),
        ((0.5, 0.5, 4), (99, 99, 20), "axial"),
        ((0.7, 0.7, 0.8), (99, 99, 99), "coronal"),
        ((0.5, 3, 3), (99, 20, 20), "coronal"),
        ((1, 1, 1), (99, 99, 1), "axial"),
        ((9, 1, 1), (99, 99, 1), "axial"),
        ((1, 1, 1), (1, 1, 99), "coronal"),
    ],
)
def test_the_plane_across_the_coarsest_axis(spacing, size, plane):
    grid = SimpleNamespace(size=size, spacing=spacing, direction=np.eye(3))
    assert choose_plane(grid, SliceSettings(1.0, plane="coronal")) == plane


def test_canonical_axes_of_an_oblique_volume():
    direction = np.eye(3)[:, [2, 0, 1]] * [1, -1, 1] @ rotation((0.2, -0.1, 0.15))
    assert canonical_axes(direction) == ((1, -1), (2, 1), (0, 1))


def test_a_body_longer_than_the_field_is_cut_in_the_middle():
    stack = SliceStack(
        volume(np.full((3, 200, 60), 9.0) + np.arange(60), (9.0, 1.0, 1.0)), SliceSettings(1.0, field_mm=100)
    )
    assert stack.field_cut and stack.crop == (slice(0, 60), slice(50, 150))


def test_order_and_repetition_of_the_indices_do_not_matter():
    stack = SliceStack(volume(body((40, 33, 35)), (1.9, 1.0, 1.0)), SliceSettings(0.7, context=1), force_plane="axial")
    every = stack.images(range(stack.count))
    np.testing.assert_array_equal(stack.images([30, 2, 2, 17]), every[[30, 2, 2, 17]])
    assert stack.images([]).shape == (0, 3, *stack.shape)


def test_settings_travel_and_unknown_ones_are_refused():
    assert SliceSettings.from_dict(SETTINGS.to_dict()) == SETTINGS
    for wrong in ({"pixel_mm": 1.0, "pixels": 3}, {"context": 1}, {"pixel_mm": 0}, {"pixel_mm": 1, "plane": "oblique"}):
        with pytest.raises(BadModel):
            SliceSettings.from_dict(wrong)
