"""Where the samples of a training step come from."""

from collections.abc import Sequence
from typing import Protocol, TypeVar

import torch

from ..batch import Batch
from ..randomness import Draws, uniform
from .augmentations import Effects, change_intensities, coordinates
from .bank import Bank

T = TypeVar("T")


class Source(Protocol):
    """Something that a domain's samples come from."""

    domain: str

    def batch(self, step: int, count: int) -> Batch:
        """`count` samples for `step`, on the training device: a pure function of (the source's seed, step, sample) that
        does not depend on the rank that asks or on what was asked before. `step` counts micro-batches."""
        ...


class DatasetSource:
    """Samples of a bank, augmented. A case is drawn first, so that long exams do not outweigh short ones; then its
    stack, a slice (with bone, in a share of the samples) and the patch, anywhere in a slice that is larger."""

    def __init__(
        self, domain: str, bank: Bank, augmentation: Effects, patch: tuple[int, int], foreground: float, seed: int
    ) -> None:
        self.domain = domain
        self.bank = bank
        self.augmentation = augmentation
        self.patch = patch
        self.foreground = foreground
        self.seed = seed

    def batch(self, step: int, count: int) -> Batch:
        bank, device = self.bank, self.bank.images.device
        keys = [(self.seed, self.domain, step, sample) for sample in range(count)]
        cases, stacks, slices, centers = [], [], [], []
        for key in keys:
            case = _pick(range(len(bank.cases)), *key, "case")
            stack = _pick(bank.of_case[case], *key, "stack")
            bony = uniform(*key, "foreground") < self.foreground and len(bank.with_bone[stack])
            slices.append(int(_pick(bank.with_bone[stack] if bony else bank.occupied[stack], *key, "slice")))
            cases.append(case)
            stacks.append(stack)
            center = []
            for axis, size, patch in zip(("row", "column"), bank.shape(stack), self.patch, strict=True):
                center.append((size - 1) / 2 + (uniform(*key, axis) - 0.5) * max(0, size - patch))
            centers.append(center)
        draws = Draws(keys, device)
        body = torch.tensor([bank.shape(stack) for stack in stacks])
        where = coordinates(self.augmentation, draws, self.patch, body)
        where = where + torch.tensor(centers, device=device)[:, :, None, None]
        images, labels = bank.read(torch.tensor(stacks, device=device), torch.tensor(slices, device=device), where)
        images = change_intensities(self.augmentation, draws, images)
        return Batch(self.domain, images, labels, bank.known[cases], [bank.cases[case] for case in cases])


class MixedSource:
    """Several sources of a domain, each with its share of every sub-batch; what a share leaves over goes in turn, so
    that over the steps each gets its due."""

    def __init__(self, parts: list[tuple[float, Source]]) -> None:
        self.domain = parts[0][1].domain
        total = sum(share for share, _ in parts)
        self.parts = [(share / total, source) for share, source in parts]

    def batch(self, step: int, count: int) -> Batch:
        bounds, edge = [], 0.0
        for share, _ in self.parts:
            bounds.append((edge, edge + share))
            edge += share
        golden = (step * 0.6180339887498949) % 1  # spreads the remainders evenly over the steps
        batches = []
        for (low, high), (_, source) in zip(bounds, self.parts, strict=True):
            own = sum(low <= ((sample + golden) / count) % 1 < high for sample in range(count))
            if own:
                batches.append(source.batch(step, own))
        return Batch(
            self.domain,
            *(torch.cat([getattr(batch, name) for batch in batches]) for name in ("images", "labels", "known")),
            [case for batch in batches for case in batch.cases],
        )


def _pick(choices: Sequence[T], *key: object) -> T:
    return choices[int(uniform(*key) * len(choices))]
