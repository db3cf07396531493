"""What a training step eats, and the one question asked of whatever provides it."""

from dataclasses import dataclass
from typing import Protocol

import torch

from .augmentation import Augmentation, Draws, change_intensities, coordinates, mirror_slices, sample_generator
from .bank import Bank


@dataclass
class Batch:
    """Samples of one domain.

    images: float [n, C, H, W], normalized by the runtime's own function
    labels: int64 [n, H, W], 0 background, else the *position* of the bone in the domain's table, from 1
    known:  bool [n, 1 + bones]; False: nobody drew this bone in this case, so its pixels hide in the background and
            must not be learnt as such. Channel 0 is always True
    cases:  a name per sample, for messages
    """

    domain: str
    images: torch.Tensor
    labels: torch.Tensor
    known: torch.Tensor
    cases: list[str]

    def __len__(self) -> int:
        return len(self.cases)


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
        self, domain: str, bank: Bank, augmentation: Augmentation, patch: tuple[int, int], foreground: float, seed: int
    ) -> None:
        self.domain = domain
        self.bank = bank
        self.augmentation = augmentation
        self.patch = patch
        self.foreground = foreground
        self.seed = seed

    def batch(self, step: int, count: int) -> Batch:
        bank, device = self.bank, self.bank.images.device
        generators = [sample_generator(self.seed, self.domain, step, sample) for sample in range(count)]
        draws = Draws.of(generators, device)
        cases, stacks, slices, centers = [], [], [], []
        for u in draws.uniform[:, :6].tolist():
            case = _pick(u[0], range(len(bank.cases)))
            stack = _pick(u[1], bank.of_case[case])
            bony = u[2] < self.foreground and len(bank.with_bone[stack])
            slices.append(int(_pick(u[3], bank.with_bone[stack] if bony else bank.occupied[stack])))
            cases.append(case)
            stacks.append(stack)
            sizes = zip((bank.rows[stack], bank.columns[stack]), self.patch, u[4:6], strict=True)
            centers.append([(size - 1) / 2 + (v - 0.5) * max(0, size - patch) for size, patch, v in sizes])
        body = torch.tensor([(bank.rows[stack], bank.columns[stack]) for stack in stacks])
        where = coordinates(draws, self.augmentation, self.patch, body)
        where = where + torch.tensor(centers, device=device)[:, :, None, None]
        images, labels = bank.read(torch.tensor(stacks, device=device), torch.tensor(slices, device=device), where)
        images = change_intensities(mirror_slices(images, draws, self.augmentation), draws, self.augmentation)
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
            *(torch.cat([getattr(each, name) for each in batches]) for name in ("images", "labels", "known")),
            [case for each in batches for case in each.cases],
        )


def _pick(u: float, choices):
    return choices[min(int(u * len(choices)), len(choices) - 1)]
