"""Augmentation and the bank: draws, geometry and intensities against hand-worked values."""

import math

import numpy as np
import pytest
import torch
from exam_phantoms import SPACING, phantom
from PedBoneSegTraining.configuration.extensions import AUGMENTATIONS
from PedBoneSegTraining.data.augmentations import change_intensities, coordinates, in_order
from PedBoneSegTraining.data.augmentations.affine import Affine
from PedBoneSegTraining.data.augmentations.bias import Bias
from PedBoneSegTraining.data.augmentations.elastic import Elastic
from PedBoneSegTraining.data.augmentations.flip import Flip
from PedBoneSegTraining.data.augmentations.gamma import Gamma
from PedBoneSegTraining.data.augmentations.low_resolution import LowResolution, coarsening
from PedBoneSegTraining.data.augmentations.noise import Noise
from PedBoneSegTraining.data.bank import Bank
from PedBoneSegTraining.data.dataset import LoadedCase
from PedBoneSegTraining.data.source import DatasetSource, MixedSource
from PedBoneSegTraining.randomness import Draws, generator, uniform

from PedBoneSegLib.inference.slices import SliceSettings, SliceStack
from PedBoneSegLib.volume import Grid, Volume

CPU = torch.device("cpu")
LARGE = torch.tensor([[500, 500]])  # rows and columns of a slice that is larger than any patch
STILL = Affine(rotation=0, scale=0, aspect=0, shift=0)
DIRECTION = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


def exam(number: int, spacing=SPACING) -> LoadedCase:
    image, labels = phantom("knee", number)
    grid = Grid(image.shape, spacing, (0.0, 0.0, 0.0), DIRECTION)
    return LoadedCase(f"exam{number}", Volume(image, grid), labels, np.ones(5, bool))


def bank(exams=3, spacing=SPACING, **settings) -> Bank:
    return Bank((exam(number, spacing) for number in range(exams)), SliceSettings(pixel_mm=2.0, **settings), CPU)


def source(augmentation=None, patch=(64, 64), seed=0, **settings) -> DatasetSource:
    effects = AUGMENTATIONS.defaults() if augmentation is None else augmentation
    return DatasetSource("knee", bank(**settings), effects, patch, 0.7, seed)


class Drawn(Draws):
    """Draws whose uniforms are given by name; 0.5 where none is, which is no change and no effect of a share below.
    Fields are 1 everywhere where their name is given, else 0."""

    def __init__(self, count=4, **uniforms) -> None:
        super().__init__([(number,) for number in range(count)], CPU)
        self.uniforms = uniforms

    def uniform(self, name: str) -> torch.Tensor:
        return torch.as_tensor(self.uniforms.get(name, 0.5)).expand(len(self.keys))

    def field(self, name: str, size: tuple[int, int]) -> torch.Tensor:
        return torch.full((len(self.keys), *size), float(name in self.uniforms))


def moved(effect, patch, body=(5, 5), **uniforms) -> torch.Tensor:
    """Where the pixels of the patch look after one effect."""
    drawn = Drawn(**uniforms)
    return effect.move(still(patch), drawn, torch.tensor([body] * 4))


def still(patch) -> torch.Tensor:
    return coordinates({}, Drawn(), patch, LARGE)


# ------------------------------------------------------------------------------------------------------- the draws


def test_a_sample_is_the_same_in_any_batch_and_never_the_same_as_another():
    samples = source(context=1)
    five, two, again = samples.batch(7, 5), samples.batch(7, 2), samples.batch(7, 5)
    assert torch.equal(five.images, again.images) and torch.equal(five.labels, again.labels)
    assert torch.equal(five.images[:2], two.images) and torch.equal(five.labels[:2], two.labels)
    assert five.cases[:2] == two.cases
    for other in (samples.batch(8, 5), source(seed=1, context=1).batch(7, 5)):
        assert not any(torch.equal(a, b) for a in five.images for b in other.images)


def test_random_numbers_are_functions_of_every_part_of_their_key():
    keys = [(0, "a", 1), (0, "a", 2), (0, "b", 1), (1, "a", 1)]
    assert (
        len({float(torch.rand(1, generator=generator(*key))) for key in keys}) == len({uniform(*k) for k in keys}) == 4
    )
    assert uniform(0, "a", 1) == uniform(0, "a", 1)
    drawn = Draws([(0, number) for number in range(2000)], CPU)
    assert drawn.uniform("x").mean() == pytest.approx(0.5, abs=0.02) and drawn.uniform("x").std() == pytest.approx(
        12**-0.5, abs=0.01
    )
    assert drawn.happens(0.25).float().mean() == pytest.approx(0.25, abs=0.04)
    assert (
        abs(
            torch.corrcoef(torch.stack([drawn.uniform("x"), drawn.uniform("y"), drawn.of("e").uniform("x")]))[0, 1:]
        ).max()
        < 0.1
    )


def test_switching_one_effect_off_leaves_the_others_as_they_were():
    turn, gamma = Affine(rotation=20, scale=0, aspect=0, shift=0), Gamma(share=1.0)
    both = source({"affine": turn, "gamma": gamma}).batch(0, 3)
    turned = source({"affine": turn}).batch(0, 3)
    assert torch.equal(both.labels, turned.labels)
    assert not torch.equal(both.images, turned.images)


def test_effects_act_in_the_order_of_an_acquisition():
    names = [name for name, _ in in_order(AUGMENTATIONS.defaults())]
    assert names == ["affine", "elastic", "flip", "gamma", "bias", "low_resolution", "noise"]


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
    rows, columns = moved(Affine(rotation=90, scale=0, aspect=0, shift=0), (5, 5), rotation=1.0)[0]
    assert rows[0, 0] == pytest.approx(2) and columns[0, 0] == pytest.approx(-2)  # upper left looks lower left
    mirrored = moved(Flip(slices=0, rows=0, columns=0.5), (5, 5), columns=0.0)[0]
    assert mirrored[1, 0].tolist() == [2, 1, 0, -1, -2] and mirrored[0, :, 0].tolist() == [-2, -1, 0, 1, 2]
    zoomed = moved(Affine(rotation=0, scale=0.25, aspect=0, shift=0), (5, 5), scale=1.0)[0]
    assert zoomed[0, :, 0].tolist() == [-2.5, -1.25, 0, 1.25, 2.5]
    stretched = moved(Affine(rotation=0, scale=0, aspect=0.25, shift=0), (5, 5), aspect=1.0)[0]
    assert stretched[0, 4, 4] == 2.5 and stretched[1, 4, 4] == pytest.approx(1.6)
    shifted = moved(Affine(rotation=0, scale=0, aspect=0, shift=0.2), (5, 5), row=1.0)[0]
    assert shifted[0, :, 0].tolist() == [-1, 0, 1, 2, 3]
    small = moved(Affine(rotation=0, scale=0, aspect=0, shift=0.5), (5, 5), body=(2, 5), row=1.0)[0]
    assert small[0, :, 0].tolist() == [-1, 0, 1, 2, 3]  # half of the body's two rows, not of the patch's five
    assert torch.equal(moved(STILL, (5, 5)), still((5, 5)))


def test_a_body_that_is_larger_than_the_patch_is_shifted_by_a_share_of_the_patch():
    shift = {"affine": Affine(rotation=0, scale=0, aspect=0, shift=0.2)}
    for body, rows in ((LARGE, 1.0), (torch.tensor([[2, 500]]), 0.4)):
        drawn = Drawn(1)
        drawn.of = lambda effect: Drawn(1, row=1.0)
        assert coordinates(shift, drawn, (5, 5), body)[0, 0, 0, 0] == pytest.approx(-2 + rows)


def test_an_elastic_field_moves_by_its_share_of_the_patch():
    where = moved(Elastic(strength=0.1, share=0.3), (32, 64), happens=0.0, rows=0.0)
    rows, columns = (where - still((32, 64))).unbind(1)
    torch.testing.assert_close(rows, torch.full((4, 32, 64), 3.2))
    assert not columns.any()


def test_mirrored_slices_swap_neighbors():
    images = torch.arange(3.0).view(1, 3, 1, 1).expand(2, 3, 4, 4)
    mirrored = Flip(slices=0.4, rows=0, columns=0).change(images, Drawn(2, slices=torch.tensor([0.5, 0.0])))
    assert mirrored[0, :, 0, 0].tolist() == [0, 1, 2] and mirrored[1, :, 0, 0].tolist() == [2, 1, 0]


def test_nearly_cubic_voxels_give_all_three_planes_and_thick_slices_one():
    assert bank(1).plane == ["sagittal"]
    cubes = bank(1, spacing=(2.0, 2.0, 2.0))
    assert sorted(cubes.plane) == ["axial", "coronal", "sagittal"] and cubes.of_case == [[0, 1, 2]]


def test_foreground_and_cases_are_drawn_as_asked():
    stored = bank(3)
    bony = DatasetSource("knee", stored, {}, (64, 64), 1.0, 0).batch(0, 60)
    assert (bony.labels.flatten(1).amax(1) > 0).all()
    assert {bony.cases.count(f"exam{number}") > 8 for number in range(3)} == {True}


# -------------------------------------------------------------------------------------------------- the intensities


def images(count=4, size=32) -> torch.Tensor:
    return torch.rand(count, 1, size, size, generator=torch.Generator().manual_seed(1)) * 3 - 1


def test_gamma_keeps_mean_and_deviation_and_the_order_of_intensities():
    before = images()
    after = Gamma(strength=0.7, share=0.5).change(before, Drawn(happens=0.0, exponent=1.0))
    torch.testing.assert_close(after.mean((1, 2, 3)), before.mean((1, 2, 3)))
    torch.testing.assert_close(after.std((1, 2, 3)), before.std((1, 2, 3)))
    assert after.flatten(1).gather(1, before.flatten(1).argsort(1)).diff(dim=1).min() > -1e-6
    low, span = before.amin((1, 2, 3), True), before.amax((1, 2, 3), True) - before.amin((1, 2, 3), True)
    powered = ((before - low) / span) ** math.exp(0.7)
    torch.testing.assert_close(
        (after - after.mean()) / after.std(), (powered - powered.mean()) / powered.std(), atol=0.05, rtol=0
    )


def test_bias_is_a_gain_above_the_darkest():
    before = images()
    after = Bias(strength=0.3, share=0.5).change(before, Drawn(happens=0.0, strength=1.0, gain=0.0))
    low = before.amin((1, 2, 3), True)
    torch.testing.assert_close(after, low + (before - low) * math.exp(0.3))


class Noisy(Drawn):
    """Given uniforms, real noise."""

    def noise(self, name: str, like: torch.Tensor) -> torch.Tensor:
        return Draws(self.keys, CPU).noise(name, like)


def test_noise_has_the_deviation_that_was_drawn():
    before = torch.zeros(3, 1, 200, 200)
    after = Noise(strength=0.4, share=0.5).change(before, Noisy(3, happens=0.0, strength=0.5))
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
    effect = LowResolution(coarsest=2.0, share=0.3)
    along_rows = effect.change(image, Drawn(1, happens=0.0, factor=1.0, axes=0.1))
    along_columns = effect.change(image, Drawn(1, happens=0.0, factor=1.0, axes=0.9))
    torch.testing.assert_close(along_rows, torch.full_like(image, 0.5))
    torch.testing.assert_close(along_columns, image)


def test_everything_off_is_nothing_changed():
    before = images()
    assert torch.equal(change_intensities({}, Drawn(), before), before)
    off = [Flip(slices=0), Gamma(share=0), Bias(share=0), LowResolution(share=0), Noise(share=0)]
    effects = {type(effect).__name__: effect for effect in off}
    assert torch.equal(change_intensities(effects, Draws([(0,)] * 4, CPU), before), before)


def test_a_mixture_gives_each_source_its_share_over_the_steps():
    parts = [source({}), source({}, seed=1)]
    for part, name in zip(parts, ("first", "second"), strict=True):
        part.bank.cases = [name] * 3
    mixed = MixedSource([(0.3, parts[0]), (0.7, parts[1])])
    batches = [mixed.batch(step, 2) for step in range(100)]
    assert all(len(batch) == 2 and batch.images.shape == (2, 1, 64, 64) for batch in batches)
    assert sum(batch.cases.count("first") for batch in batches) == pytest.approx(60, abs=3)
