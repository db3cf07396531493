"""Smooth local displacements."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...configuration.extensions import AUGMENTATIONS, Augmentation
from ...randomness import Draws


@AUGMENTATIONS.register("elastic")
@dataclass(frozen=True)
class Elastic(Augmentation):
    strength: float = 0.01  # typical displacement, as a share of the patch's rows
    share: float = 0.3  # of the samples

    def move(self, where: Tensor, draws: Draws, body: Tensor) -> Tensor:
        rows, columns = where.shape[-2:]
        amount = draws.happens(self.share) * self.strength * rows
        if not amount.any():
            return where
        field = torch.stack([draws.field(axis, (rows, columns)) for axis in ("rows", "columns")], 1)
        return where + amount.to(where)[:, None, None, None] * field
