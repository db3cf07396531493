"""Training slices made on the fly: a function of (seed, step), whoever makes the stacks; labels lie on their bones."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PedBoneSegTraining.configuration.extensions import AUGMENTATIONS
from PedBoneSegTraining.data.augmentations.noise import Noise
from PedBoneSegTraining.synthesis.rendering import RenderSettings
from PedBoneSegTraining.synthesis.source import Ring, Stack, SyntheticSource
from scipy import ndimage
from synthetic_phantom import Phantom

from PedBoneSegLib.inference.slices import SliceSettings

SETTINGS = SliceSettings(pixel_mm=2.0, context=1)
EFFECTS = AUGMENTATIONS.defaults()
CLEAN = RenderSettings().without(*RenderSettings.names())


def source(seed=1, **options) -> SyntheticSource:
    defaults = dict(size=(64, 96), sources=(Phantom(),), ring=Ring(live=4, renewed=0.5), augmentation=EFFECTS)
    return SyntheticSource("knee-scanner", "knee", SETTINGS, seed, **defaults | options)


def same(one, other) -> bool:
    return torch.equal(one.images, other.images) and torch.equal(one.labels, other.labels) and one.cases == other.cases


def test_a_batch_has_the_shape_that_training_expects():
    batch = source().batch(0, 5)
    assert batch.domain == "knee-scanner" and len(batch.cases) == 5
    assert batch.images.shape == (5, 3, 64, 96) and batch.images.dtype == torch.float32
    assert batch.labels.shape == (5, 64, 96) and batch.labels.dtype == torch.int64
    assert batch.known.shape == (5, 5) and batch.known.all()
    assert torch.isfinite(batch.images).all() and int(batch.labels.max()) <= 2


def test_a_batch_is_a_function_of_seed_and_step_alone():
    first = source()
    batches = [first.batch(step, 3) for step in range(6)]
    resumed = source()
    assert same(resumed.batch(4, 3), batches[4])  # a run that resumes at step 4 never saw 0 to 3
    assert same(resumed.batch(1, 3), batches[1])
    assert not same(batches[0], batches[1]) and not same(source(seed=2).batch(0, 3), batches[0])


def test_workers_make_the_same_batches_and_end():
    alone, shared = source(), source(workers=1)
    try:
        for step in (0, 3, 4):
            assert same(shared.batch(step, 3), alone.batch(step, 3))
        processes = list(shared._workers._processes.values())
    finally:
        shared.close()
    assert processes and not any(process.is_alive() for process in processes)
    assert same(shared.batch(5, 3), alone.batch(5, 3))  # a closed source goes on by itself


@pytest.mark.parametrize("ring", [Ring(), Ring(live=5, renewed=1.3), Ring(live=1, renewed=0.01, acquisitions=1)])
def test_the_ring_renews_one_stack_after_the_other(ring):
    steps = range(0, 200)
    for step in steps:
        now, then = ring.members(step), ring.members(step + 1)
        assert len(now) == ring.live and 0 <= then.start - now.start <= int(ring.renewed) + 1
    made = ring.members(steps[-1]).start
    assert made == int(steps[-1] * ring.renewed)


def test_a_ring_acquires_every_anatomy_as_often_as_it_says_and_no_stack_twice():
    ring = Ring(acquisitions=3)
    stacks = [ring.exam(number) for number in range(24)]
    assert len(set(stacks)) == 24
    assert sorted(stacks) == [(exam, variant) for exam in range(8) for variant in range(3)]
    for first, second in zip(stacks, stacks[1:], strict=False):
        assert first[0] != second[0]


def test_old_stacks_are_dropped():
    made = source()
    for step in range(0, 40, 4):
        made.batch(step, 4)
        assert len(made._stacks) <= 4 and min(made._stacks) >= made.ring.members(step).start
        assert len(made._bodies) <= made.ring.spread


def test_labels_lie_on_their_bones_however_the_sample_is_turned():
    """T1: marrow inside its dark cortex; without faults, what is labelled is a disc with a dark rim."""
    clean = {name: effect for name, effect in EFFECTS.items() if effect.place == "geometry"}
    made = source(rendering=CLEAN, size=(96, 96), augmentation=clean)
    made.recipe = replace(made.recipe, preset="T1")
    seen = 0
    for step in range(4):
        batch = made.batch(step, 6)
        for image, labels in zip(batch.images[:, 1].numpy(), batch.labels.numpy(), strict=True):
            bone = labels > 0
            if bone.sum() < 60:
                continue
            core = ndimage.binary_erosion(bone, iterations=3)
            rim = bone & ~ndimage.binary_erosion(bone, iterations=1)
            if core.sum() < 20:
                continue
            assert np.median(image[core]) > np.median(image[rim])
            seen += 1
    assert seen > 8


def test_without_augmentation_a_sample_is_the_slice_around_its_middle():
    made = source(augmentation=None, size=(32, 32), rendering=CLEAN)
    batch = made.batch(0, 4)
    for image, labels, name in zip(batch.images, batch.labels, batch.cases, strict=True):
        exam, _, index = name.partition(" slice ")
        stack = next(stack for stack in made._stacks.values() if stack.name == exam)
        whole = stack.slices.images([int(index)])[0]
        rows, columns = ((have - 32) // 2 for have in whole.shape[-2:])
        assert min(rows, columns) >= 0
        cut = (slice(rows, rows + 32), slice(columns, columns + 32))
        assert np.allclose(image.numpy(), whole[:, *cut], atol=1e-4)
        assert np.array_equal(labels.numpy(), stack.labels[int(index)][cut])


def test_the_configured_augmentation_acts_on_what_is_drawn():
    plain, flat = source(augmentation=None), source(augmentation=EFFECTS | {"noise": Noise(strength=5.0, share=1.0)})
    assert same(source().batch(1, 2), source().batch(1, 2))
    assert float(flat.batch(1, 4).images.std()) > 1.5 * float(plain.batch(1, 4).images.std())


def test_a_small_bone_is_shown_about_as_often_as_a_large_one():
    """Bone 1 fills every slice, bone 2 one of twenty."""
    made = source(size=(32, 32))
    slices = SimpleNamespace(shape=(64, 64), count=20, occupied=np.arange(20))
    labels = np.zeros((20, 64, 64), np.uint8)
    labels[:, 10:20], labels[7, 50:, 50:] = 1, 2
    shows = np.stack([(labels == label).any(axis=(1, 2)) for label in (1, 2, 3, 4)])
    made._stack = lambda number: Stack(slices, labels, shows, "made up")
    chosen = [made._choose(step, 0, range(1)) for step in range(400)]
    assert 80 < sum(index == 7 for _, index, _ in chosen) < 160  # 20 if every slice were as likely as another
