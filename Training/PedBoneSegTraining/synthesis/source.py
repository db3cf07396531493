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

from ..data.source import Batch
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
    labels: np.ndarray  # uint8 [i, j, k]
    bony: np.ndarray  # indices of slices with a bone of the joint
    name: str


class SyntheticSource:
    """Samples of one joint, `size` (rows, columns) pixels of `settings.pixel_mm`, in all three planes.

    With `workers`, other processes make the next stacks while the network trains. `augment` off gives plain slices,
    cut or padded around their middle.
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
        augment: bool = True,
        workers: int = 0,
    ):
        self.domain, self.settings, self.seed = domain, settings, seed
        self.device, self.size, self.augment = torch.device(device), size, augment
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
        samples = [self._sample(step, position, members) for position in range(count)]
        images, labels, names = zip(*samples, strict=True)
        known = torch.ones(count, 1 + self.bones, dtype=torch.bool, device=self.device)
        return Batch(
            self.domain, torch.stack(images).to(self.device), torch.stack(labels).to(self.device), known, list(names)
        )

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

    def _sample(self, step: int, position: int, members: range) -> tuple[torch.Tensor, torch.Tensor, str]:
        random = Draw("sample", self.seed, self.domain, step, position)
        stack = self._stack(random.choice(members))
        anywhere = random.chance(0.15) or not len(stack.bony)
        index = random.choice(
            stack.slices.occupied
            if anywhere and len(stack.slices.occupied)
            else stack.bony
            if len(stack.bony)
            else range(stack.slices.count)
        )
        image = torch.from_numpy(stack.slices.images([index]))
        label = torch.from_numpy(stack.slices.labels(stack.labels, [index]).astype(np.float32))
        grid = self._cut(image.shape[-2:], random)
        norm = stack.slices.normalization
        lowest = (norm.low - norm.mean) / norm.deviation  # what the runtime shows outside of the field
        image = F.grid_sample(image - lowest, grid, align_corners=False) + lowest
        label = F.grid_sample(label[None], grid, mode="nearest", align_corners=False)[0, 0].long()
        return image[0], label, f"{stack.name} slice {index}"

    def _cut(self, shape: tuple[int, int], random: Draw) -> torch.Tensor:
        """Where the patch's pixels lie in the slice, for grid_sample: [1, rows, columns, 2]."""
        turn, zoom, wide = random.normal(0, 12), random.uniform(-0.25, 0.25), random.uniform(-0.1, 0.1)
        mirrored, along = random.chance(0.5), [random.uniform(-1, 1), random.uniform(-1, 1)]
        if not self.augment:
            turn, zoom, wide, mirrored, along = 0.0, 0.0, 0.0, False, (0.0, 0.0)
        scale = np.exp(zoom), np.exp(zoom + wide)
        cosine, sine = np.cos(np.radians(turn)), np.sin(np.radians(turn))
        # the patch may lie anywhere in the slice, and move a little where it is the larger of the two
        spare = [abs(have - want * one) / 2 for have, want, one in zip(shape, self.size, scale, strict=True)]
        center = [
            place * (0.85 * room if have > want else 0.5 * room)
            for place, room, have, want in zip(along, spare, shape, self.size, strict=True)
        ]
        rows, columns = (
            (torch.arange(count) - (count - 1) / 2) * one for count, one in zip(self.size, scale, strict=True)
        )
        if mirrored:
            columns = columns.flip(0)
        y = cosine * rows[:, None] - sine * columns + center[0]
        x = sine * rows[:, None] + cosine * columns + center[1]
        return torch.stack([x * 2 / shape[1], y * 2 / shape[0]], -1)[None].float()


def _finish(recipe: Recipe, settings: SliceSettings, exam: int, variant: int, body) -> Stack:
    rendering = recipe.acquire(exam, variant, body)
    slices = SliceStack(rendering.volume, settings)
    view = slices.oriented(rendering.labels)
    return Stack(slices, rendering.labels, np.flatnonzero(view.any(axis=(1, 2))), rendering.volume.name)


def _make(recipe: Recipe, settings: SliceSettings, exam: int, variant: int) -> Stack:
    """In a worker; keeps the last bodies, since the acquisitions of one follow each other."""
    key = (recipe.seed, recipe.joint, exam)
    if key not in _kept:
        _kept[key] = recipe.body(exam)
        while len(_kept) > 4:
            _kept.popitem(last=False)
    return _finish(recipe, settings, exam, variant, _kept[key])


_kept: OrderedDict = OrderedDict()
