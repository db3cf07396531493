"""Training slices made while training, without files: a small ring of stacks that is renewed as the steps go by.

An anatomy costs more than an acquisition of it, and that more than a slice; so an anatomy gives several stacks, a stack
stays in the ring for many steps, and every sample is a newly turned, scaled and cut piece of one of its slices. Which
stacks are in the ring at a step, and what is cut from them, is a function of (seed, step) alone.
"""

from collections import OrderedDict
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from PedBoneSegLib.anatomy import joint_table
from PedBoneSegLib.inference.slices import SliceSettings, SliceStack

from ..batch import Batch
from ..data.augmentations import Effects, change_intensities, coordinates
from ..randomness import Draws
from .anatomy.draw import Draw
from .anatomy.sources import AnatomySource, Parametric
from .cohort import Recipe
from .rendering import RenderSettings
from .workers import pool

STACK_VOXELS = 2_000_000  # a stack's most: 30 slices of 256 × 256


@dataclass(frozen=True)
class Ring:
    """How much is made, and how long it is used.

    live          stacks that a step may draw from
    renewed       stacks that are replaced a step. A stack costs 0.7 (ankle) to 1.6 s (shoulder) of one core, a sample
                  drawn from it 2 to 4 ms, and training a b0 network on 4 of them 0.6 to 0.9 s: 0.05 keeps the cost of
                  each domain below a fifth of that of a step
    acquisitions  stacks of one anatomy; they enter the ring far from each other
    """

    live: int = 12
    renewed: float = 0.05
    acquisitions: int = 3

    def members(self, step: int) -> range:
        first = int(step * self.renewed)
        return range(first, first + self.live)

    def exam(self, number: int) -> tuple[int, int]:
        """The anatomy and its acquisition that stack `number` is: a group of anatomies is acquired in turn, again and
        again, so that stacks of one anatomy are rarely in the ring together."""
        group, place = divmod(number, self.acquisitions * self.spread)
        return group * self.spread + place % self.spread, place // self.spread

    @property
    def spread(self) -> int:
        return 4


@dataclass
class Stack:
    """A rendered exam as the runtime sees it."""

    slices: SliceStack
    labels: np.ndarray  # uint8 [slice, row, column] at the network's pixels
    shows: np.ndarray  # bool [bone, slice]: which slices show some of a bone
    name: str


class SyntheticSource:
    """Samples of one joint, `size` (rows, columns) pixels of `settings.pixel_mm`, in all three planes.

    With `workers`, other processes make the next stacks while the network trains. With `augmentation` None a sample is
    a plain slice, cut or padded around its middle.
    """

    def __init__(
        self,
        domain: str,
        joint: str,
        settings: SliceSettings,
        seed: int,
        device: torch.device | str = "cpu",
        *,
        size: tuple[int, int] = (256, 256),
        sources: tuple[AnatomySource, ...] = (Parametric(),),
        rendering: RenderSettings | None = None,
        ring: Ring | None = None,
        augmentation: Effects | None = None,
        workers: int = 0,
    ):
        self.domain, self.settings, self.seed = domain, settings, seed
        self.device, self.size, self.augmentation = torch.device(device), tuple(size), augmentation
        self.ring = ring or Ring()
        finest = max(0.3, 0.6 * settings.pixel_mm)  # finer pixels than these would be averaged away
        self.recipe = Recipe(
            joint, seed, sources, rendering or RenderSettings(), pixel_mm=(finest, 1.0), most_voxels=STACK_VOXELS
        )
        self.bones = len(joint_table(joint).bones)
        self._stacks: dict[int, Stack | Future] = {}
        self._bodies: OrderedDict = OrderedDict()
        self._workers = pool(workers) if workers else None
        self._ahead = 2 * workers

    def batch(self, step: int, count: int) -> Batch:
        """See `data.source.Source`."""
        members = self.ring.members(step)
        self._renew(members)
        chosen = [self._choose(step, position, members) for position in range(count)]
        keys = [(self.seed, self.domain, "synthetic", step, sample) for sample in range(count)]
        effects = self.augmentation or {}
        extents = torch.tensor([stack.slices.shape for stack, _, _ in chosen])
        where = coordinates(effects, Draws(keys, torch.device("cpu")), self.size, extents)
        images, labels = zip(
            *(self._read(stack, index, w + center) for (stack, index, center), w in zip(chosen, where, strict=True)),
            strict=True,
        )
        images, labels = torch.stack(images).to(self.device), torch.stack(labels).to(self.device)
        images = change_intensities(effects, Draws(keys, self.device), images)
        known = torch.ones(count, 1 + self.bones, dtype=torch.bool, device=self.device)
        return Batch(self.domain, images, labels, known, [f"{stack.name} slice {index}" for stack, index, _ in chosen])

    def close(self) -> None:
        """Ends the workers; the source can still make its stacks itself."""
        if self._workers:
            self._workers.shutdown(cancel_futures=True)
            self._workers = None

    def _renew(self, members: range) -> None:
        for number in [number for number in self._stacks if number < members.start]:
            del self._stacks[number]
        if self._workers:
            for number in range(members.start, members.stop + self._ahead):
                if number not in self._stacks:
                    exam, variant = self.ring.exam(number)
                    self._stacks[number] = self._workers.submit(_make, self.recipe, self.settings, exam, variant)

    def _stack(self, number: int) -> Stack:
        stack = self._stacks.get(number)
        if isinstance(stack, Future):
            stack = stack.result()
        if stack is None:
            exam, variant = self.ring.exam(number)
            if exam not in self._bodies:
                self._bodies[exam] = self.recipe.body(exam, self.device)
                while len(self._bodies) > self.ring.spread:
                    self._bodies.popitem(last=False)
            stack = _finish(self.recipe, self.settings, exam, variant, self._bodies[exam])
        self._stacks[number] = stack
        return stack

    def _choose(self, step: int, position: int, members: range) -> tuple[Stack, int, torch.Tensor]:
        """A stack, one of its slices, and the pixel [2, 1, 1] of the slice that the patch's middle looks at.

        Half of the samples show a bone that was chosen first, so that small bones are seen about as often as large
        ones; the other half are slices with any bone, or now and then any slice of the body.
        """
        random = Draw("sample", self.seed, self.domain, step, position)
        stack = self._stack(random.choice(members))
        kind, number = random.uniform(0, 1), random.uniform(0, 1)
        bones, bone = np.flatnonzero(stack.shows.any(axis=1)), None
        slices = np.flatnonzero(stack.shows.any(axis=0))
        if kind < 0.15 or not len(bones):
            slices = stack.slices.occupied if len(stack.slices.occupied) else range(stack.slices.count)
        elif kind < 0.65:
            bone = bones[int(number * len(bones))]
            slices = np.flatnonzero(stack.shows[bone])
        index = random.choice(slices)
        center = []
        for axis, (have, want) in enumerate(zip(stack.slices.shape, self.size, strict=True)):
            place = 0.85 * random.uniform(-0.5, 0.5) if self.augmentation else 0.0
            middle = (have - 1) / 2 + place * max(0, have - want)
            if bone is not None and self.augmentation:  # the patch holds the bone's middle
                there = np.nonzero(stack.labels[index] == bone + 1)[axis].mean()
                middle = min(max(middle, there - 0.35 * want), there + 0.35 * want)
            center.append(middle)
        return stack, int(index), torch.tensor(center).view(2, 1, 1).float()

    def _read(self, stack: Stack, index: int, where: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The slice's image [channels, rows, columns] and labels [rows, columns] at the pixels `where` [2, …]."""
        image = torch.from_numpy(stack.slices.images([index]))
        label = torch.from_numpy(stack.labels[index].astype(np.float32))
        size = torch.tensor(image.shape[-2:]).view(2, 1, 1)
        grid = ((2 * where + 1) / size - 1).flip(0).permute(1, 2, 0)[None]
        norm = stack.slices.normalization
        lowest = (norm.low - norm.mean) / norm.deviation  # what the runtime shows outside of the field
        image = F.grid_sample(image - lowest, grid, align_corners=False)[0] + lowest
        return image, F.grid_sample(label[None, None], grid, mode="nearest", align_corners=False)[0, 0].long()


def _finish(recipe: Recipe, settings: SliceSettings, exam: int, variant: int, body) -> Stack:
    rendering = recipe.acquire(exam, variant, body)
    slices = SliceStack(rendering.volume, settings)
    labels = slices.labels(rendering.labels, range(slices.count))
    shows = [(labels == label).any(axis=(1, 2)) for label in joint_table(recipe.joint).labels.values()]
    return Stack(slices, labels, np.array(shows), rendering.volume.name)


def _make(recipe: Recipe, settings: SliceSettings, exam: int, variant: int) -> Stack:
    """In a worker; keeps the last bodies, since the acquisitions of one follow each other."""
    key = (recipe.seed, recipe.joint, exam)
    if key not in _kept:
        _kept[key] = recipe.body(exam)
        while len(_kept) > 4:
            _kept.popitem(last=False)
    return _finish(recipe, settings, exam, variant, _kept[key])


_kept: OrderedDict = OrderedDict()
