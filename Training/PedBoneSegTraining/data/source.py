"""What a training step eats, and the one question asked of whatever provides it."""

from dataclasses import dataclass
from typing import Protocol

import torch


@dataclass
class Batch:
    """Samples of one domain.

    images: float [n, C, H, W], normalized by the runtime's own function
    labels: int64 [n, H, W], 0 background, else the *position* of the bone in the domain's table, from 1
    known:  bool [n, 1 + bones]; False: nobody drew this bone in this case, so its pixels hide in the background and must
            not be learnt as such. Channel 0 is always True
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
        """`count` samples for `step`, on the training device: a pure function of (the source's seed, step, sample), so
        that the first n samples of a step do not depend on `count`, on the rank that asks or on what was asked before."""
        ...
