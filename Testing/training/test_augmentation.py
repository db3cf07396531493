"""Augmentation and the bank: draws, geometry and intensities against hand-worked values."""

import math

import numpy as np
import pytest
import torch
from exam_phantoms import SPACING, phantom
from PedBoneSegTraining.data.augmentation import (
    UNIFORMS,
    Augmentation,
    Draws,
    change_intensities,
    coarsening,
    coordinates,
    mirror_slices,
    sample_generator,
)
from PedBoneSegTraining.data.bank import Bank
from PedBoneSegTraining.data.dataset import LoadedCase
from PedBoneSegTraining.data.source import DatasetSource, MixedSource

from PedBoneSegLib.inference.slices import SliceSettings, SliceStack
from PedBoneSegLib.volume import Grid, Volume

CPU = torch.device("cpu")
OFF = Augmentation(
    rotation=0, scale=0, aspect=0, shift=0, flips=(0.0, 0.0, 0.0), elastic=0, gamma=0, bias=0, noise=0, low_resolution=1
)
LARGE = torch.tensor([[500, 500]])  # rows and columns of a slice that is larger than any patch
DIRECTION = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


def changed(**settings) -> Augmentation:
    return Augmentation(**{**OFF.__dict__, **settings})


def exam(number: int, spacing=SPACING) -> LoadedCase:
    image, labels = phantom("knee", number)
    grid = Grid(image.shape, spacing, (0.0, 0.0, 0.0), DIRECTION)
    return LoadedCase(f"exam{number}", Volume(image, grid), labels, np.ones(5, bool))


def bank(exams=3, spacing=SPACING, **settings) -> Bank:
    return Bank((exam(number, spacing) for number in range(exams)), SliceSettings(pixel_mm=2.0, **settings), CPU)


def source(augmentation=None, patch=(64, 64), seed=0, **settings) -> DatasetSource:
    return DatasetSource("knee", bank(**settings), augmentation or Augmentation(), patch, 0.7, seed)


def draws(count=4, **uniforms) -> Draws:
    """Draws with some uniforms set; 0.5 elsewhere, which is no change and no effect of a share below."""
    uniform = torch.full((count, UNIFORMS), 0.5)
    for name, value in uniforms.items():
        uniform[:, int(name[1:])] = value
    return Draws(uniform, torch.zeros(count, 3, 8, 8), list(range(count)))


# ------------------------------------------------------------------------------------------------------- the draws


def test_a_sample_is_the_same_in_any_batch_and_never_the_same_as_another():
    samples = source(context=1)
    five, two, again = samples.batch(7, 5), samples.batch(7, 2), samples.batch(7, 5)
    assert torch.equal(five.images, again.images) and torch.equal(five.labels, again.labels)
    assert torch.equal(five.images[:2], two.images) and torch.equal(five.labels[:2], two.labels)
    assert five.cases[:2] == two.cases
    for other in (samples.batch(8, 5), source(seed=1, context=1).batch(7, 5)):
        assert not any(torch.equal(a, b) for a in five.images for b in other.images)


def test_the_generator_is_a_function_of_every_part_of_its_key():
    keys = [(0, "a", 1), (0, "a", 2), (0, "b", 1), (1, "a", 1)]
    numbers = {float(torch.rand(1, generator=sample_generator(*key))) for key in keys}
    assert len(numbers) == 4
    assert float(torch.rand(1, generator=sample_generator(0, "a", 1))) in numbers


def test_switching_one_effect_off_leaves_the_others_as_they_were():
    both = source(changed(rotation=20, gamma=0.5, gamma_share=1.0)).batch(0, 3)
    turned = source(changed(rotation=20)).batch(0, 3)
    assert torch.equal(both.labels, turned.labels)
    assert not torch.equal(both.images, turned.images)


# ---------------------------------------------------------------------------------------------------- the geometry


def test_without_augmentation_the_bank_gives_back_the_runtimes_slices():
    case, settings = exam(0), SliceSettings(pixel_mm=2.0, context=1, context_mm=10.0)
    stack = SliceStack(case.volume, settings)
    stored = Bank([case], settings, CPU)
    assert (stored.rows, stored.columns) == ([stack.shape[0]], [stack.shape[1]])
    where = torch.stack(torch.meshgrid(*map(torch.arange, stack.shape), indexing="ij")).float()
    for index in (0, 4, 9):
        images, labels = stored.read(torch.tensor([0]), torch.tensor([index]), where[None])
        np.testing.assert_allclose(images[0].numpy(), stack.images([index])[0], atol=4e-3)  # half precision
        assert np.array_equal(labels[0].numpy(), stack.labels(case.labels, [index])[0])


def test_half_a_pixel_is_the_mean_of_two_and_outside_is_the_darkest():
    stored = bank(1)
    inside = torch.tensor([[[[20.0, 20.0, 20.0]], [[30.0, 30.5, 31.0]]]])  # [1, 2, rows 1, columns 3]
    images, _ = stored.read(torch.tensor([0]), torch.tensor([5]), inside)
    left, middle, right = images[0, 0, 0].tolist()
    assert middle == pytest.approx((left + right) / 2, abs=1e-6)
    outside = torch.full((1, 2, 1, 1), -50.0)
    images, labels = stored.read(torch.tensor([0]), torch.tensor([5]), outside)
    assert float(images) == pytest.approx(float(stored._fill[0])) and int(labels) == 0
    assert float(images) <= float(stored.images.min()) + 1e-3


def test_a_turn_of_ninety_degrees_a_mirror_and_a_zoom():
    turned = coordinates(draws(u8=1.0), changed(rotation=90), (5, 5), LARGE)[0]
    rows, columns = turned
    assert rows[0, 0] == pytest.approx(2) and columns[0, 0] == pytest.approx(-2)  # upper left looks lower left
    mirrored = coordinates(draws(u14=0.0), changed(flips=(0.0, 0.0, 0.5)), (5, 5), LARGE)[0]
    assert mirrored[1, 0].tolist() == [2, 1, 0, -1, -2] and mirrored[0, :, 0].tolist() == [-2, -1, 0, 1, 2]
    zoomed = coordinates(draws(u9=1.0), changed(scale=0.25), (5, 5), LARGE)[0]
    assert zoomed[0, :, 0].tolist() == [-2.5, -1.25, 0, 1.25, 2.5]
    shifted = coordinates(draws(u11=1.0), changed(shift=0.2), (5, 5), LARGE)[0]
    assert shifted[0, :, 0].tolist() == [-1, 0, 1, 2, 3]
    small = coordinates(draws(u11=1.0), changed(shift=0.5), (5, 5), torch.tensor([[2, 9]]))[0]
    assert small[0, :, 0].tolist() == [-1, 0, 1, 2, 3]  # half of the body's two rows, not of the patch's five


def test_an_elastic_field_moves_by_its_share_of_the_patch():
    drawn = draws(u15=0.0)
    drawn.fields[:, 0] = 1.0
    where = coordinates(drawn, changed(elastic=0.1, elastic_share=0.3), (32, 64), LARGE)
    still = coordinates(draws(), OFF, (32, 64), LARGE)
    rows, columns = (where - still).unbind(1)
    torch.testing.assert_close(rows, torch.full((4, 32, 64), 3.2))
    assert not columns.any()


def test_mirrored_slices_swap_neighbours():
    images = torch.arange(3.0).view(1, 3, 1, 1).expand(2, 3, 4, 4)
    drawn = draws(2)
    drawn.uniform[1, 16] = 0.0
    mirrored = mirror_slices(images, drawn, changed(flips=(0.4, 0.0, 0.0)))
    assert mirrored[0, :, 0, 0].tolist() == [0, 1, 2] and mirrored[1, :, 0, 0].tolist() == [2, 1, 0]


def test_nearly_cubic_voxels_give_all_three_planes_and_thick_slices_one():
    assert bank(1).plane == ["sagittal"]
    cubes = bank(1, spacing=(2.0, 2.0, 2.0))
    assert sorted(cubes.plane) == ["axial", "coronal", "sagittal"] and cubes.of_case == [[0, 1, 2]]


def test_foreground_and_cases_are_drawn_as_asked():
    stored = bank(3)
    bony = DatasetSource("knee", stored, OFF, (64, 64), 1.0, 0).batch(0, 60)
    assert (bony.labels.flatten(1).amax(1) > 0).all()
    assert {bony.cases.count(f"exam{number}") > 8 for number in range(3)} == {True}


# -------------------------------------------------------------------------------------------------- the intensities


def images(count=4, size=32) -> torch.Tensor:
    return torch.rand(count, 1, size, size, generator=torch.Generator().manual_seed(1)) * 3 - 1


def test_gamma_keeps_mean_and_deviation_and_the_order_of_intensities():
    before = images()
    after = change_intensities(before, draws(u17=0.0, u18=1.0), changed(gamma=0.7, gamma_share=0.5))
    torch.testing.assert_close(after.mean((1, 2, 3)), before.mean((1, 2, 3)))
    torch.testing.assert_close(after.std((1, 2, 3)), before.std((1, 2, 3)))
    assert after.flatten(1).gather(1, before.flatten(1).argsort(1)).diff(dim=1).min() > -1e-6
    low, span = before.amin((1, 2, 3), True), before.amax((1, 2, 3), True) - before.amin((1, 2, 3), True)
    powered = ((before - low) / span) ** math.exp(0.7)
    torch.testing.assert_close(
        (after - after.mean()) / after.std(), (powered - powered.mean()) / powered.std(), atol=0.05, rtol=0
    )


def test_bias_is_a_gain_above_the_darkest():
    drawn, before = draws(u19=0.0, u20=1.0), images()
    drawn.fields[:, 2] = 1.0
    after = change_intensities(before, drawn, changed(bias=0.3, bias_share=0.5))
    low = before.amin((1, 2, 3), True)
    torch.testing.assert_close(after, low + (before - low) * math.exp(0.3))


def test_noise_has_the_deviation_that_was_drawn():
    before = torch.zeros(3, 1, 200, 200)
    after = change_intensities(before, draws(3, u24=0.0, u25=0.5), changed(noise=0.4, noise_share=0.5))
    assert after.std((1, 2, 3)).tolist() == pytest.approx([0.2] * 3, rel=0.02)
    assert not torch.equal(after[0], after[1])


def test_coarsening_by_two_averages_pairs_and_by_one_changes_nothing():
    pair, same = coarsening(torch.tensor([2.0, 1.0]), 8)
    torch.testing.assert_close(same, torch.eye(8))
    line = torch.tensor([0.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 14.0])  # pairs average to 1, 5, 9, 13
    torch.testing.assert_close((pair @ line)[1:-1], torch.tensor([2.0, 4.0, 6.0, 8.0, 10.0, 12.0]))
    torch.testing.assert_close(coarsening(torch.tensor([2.7]), 31).sum(2), torch.ones(1, 31))


def test_low_resolution_along_rows_leaves_columns_sharp():
    stripes = (torch.arange(16) % 2).float()
    image = stripes[None, None, :, None].expand(1, 1, 16, 16)
    settings = changed(low_resolution=2.0, low_resolution_share=0.3)
    along_rows = change_intensities(image, draws(1, u21=0.0, u22=1.0, u23=0.1), settings)
    along_columns = change_intensities(image, draws(1, u21=0.0, u22=1.0, u23=0.9), settings)
    torch.testing.assert_close(along_rows, torch.full_like(image, 0.5))
    torch.testing.assert_close(along_columns, image)


def test_everything_off_is_nothing_changed():
    before = images()
    assert torch.equal(change_intensities(before, draws(), OFF), before)


def test_a_mixture_gives_each_source_its_share_over_the_steps():
    parts = [source(OFF), source(OFF, seed=1)]
    for part, name in zip(parts, ("first", "second"), strict=True):
        part.bank.cases = [name] * 3
    mixed = MixedSource([(0.3, parts[0]), (0.7, parts[1])])
    batches = [mixed.batch(step, 2) for step in range(100)]
    assert all(len(batch) == 2 and batch.images.shape == (2, 1, 64, 64) for batch in batches)
    assert sum(batch.cases.count("first") for batch in batches) == pytest.approx(60, abs=3)
