"""Mirroring along the rows, the columns, and across the slices."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...configuration.extensions import AUGMENTATIONS, Augmentation
from ...randomness import Draws


@AUGMENTATIONS.register("flip")
@dataclass(frozen=True)
class Flip(Augmentation):
    """The share of the samples that is mirrored, for each axis."""

    slices: float = 0.5
    rows: float = 0.0
    columns: float = 0.5

    def move(self, where: Tensor, draws: Draws, body: Tensor) -> Tensor:
        mirrored = torch.stack([draws.happens(self.rows, "rows"), draws.happens(self.columns, "columns")], 1).to(
            where.device
        )
        return torch.where(mirrored[:, :, None, None], -where, where)

    def change(self, images: Tensor, draws: Draws) -> Tensor:
        """The channels are neighboring slices: in reverse order they show the body mirrored across the slices."""
        mirrored = draws.happens(self.slices, "slices").to(images.device)
        return torch.where(mirrored[:, None, None, None], images.flip(1), images)
