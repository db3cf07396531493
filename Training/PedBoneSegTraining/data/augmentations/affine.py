"""Rotation, scaling, stretching and shifting in the plane of the slice."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ...configuration.extensions import AUGMENTATIONS, Augmentation
from ...randomness import Draws


@AUGMENTATIONS.register("affine")
@dataclass(frozen=True)
class Affine(Augmentation):
    rotation: float = 25.0  # degrees, either way
    scale: float = 0.25  # either way, as a share
    aspect: float = 0.1  # rows against columns, either way
    shift: float = 0.15  # of the body's length in the slice, or of the patch if that is shorter; either way

    def move(self, where: Tensor, draws: Draws, body: Tensor) -> Tensor:
        angle = draws.either_way("rotation") * math.radians(self.rotation)
        zoom = (1 + self.scale) ** draws.either_way("scale")
        stretch = (1 + self.aspect) ** draws.either_way("aspect")
        scale = torch.stack([zoom * stretch, zoom / stretch], 1)
        turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1).view(-1, 2, 2)
        matrix = (turn * scale[:, None, :]).to(where)
        shift = torch.stack([draws.either_way("row"), draws.either_way("column")], 1) * body * self.shift
        return torch.einsum("nij,njrc->nirc", matrix, where) + shift.to(where)[:, :, None, None]
