"""Coarser pixels, along rows, columns or both."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...configuration.extensions import AUGMENTATIONS, Augmentation
from ...randomness import Draws


@AUGMENTATIONS.register("low_resolution")
@dataclass(frozen=True)
class LowResolution(Augmentation):
    """Pixels are averaged to coarser ones and brought back by linear interpolation."""

    coarsest: float = 3.0  # pixels that become one, at most; 1: off
    share: float = 0.25  # of the samples

    place = "resolution"

    def change(self, images: Tensor, draws: Draws) -> Tensor:
        chosen = torch.nonzero(draws.happens(self.share))[:, 0]
        if self.coarsest <= 1 or not len(chosen):
            return images
        factor = self.coarsest ** draws.uniform("factor")[chosen]
        axes = draws.uniform("axes")[chosen] * 3  # 0 to 1: rows; 1 to 2: both; 2 to 3: columns
        along_rows, along_columns = torch.where(axes < 2, factor, 1.0), torch.where(axes >= 1, factor, 1.0)
        down = coarsening(along_rows.to(images), images.shape[2])[:, None]
        across = coarsening(along_columns.to(images), images.shape[3])[:, None]
        chosen = chosen.to(images.device)
        return images.index_copy(0, chosen, down @ images[chosen] @ across.transpose(-1, -2))


def coarsening(factor: Tensor, size: int) -> Tensor:
    """Matrices [n, size, size] that average over `factor` ≥ 1 [n] pixels and interpolate between the averages."""
    pixel = torch.arange(size, device=factor.device, dtype=factor.dtype)
    factor = factor[:, None, None]
    place = (pixel[:, None] + 0.5) / factor - 0.5  # of each pixel, among the coarse ones
    first = torch.floor(place)
    matrix = torch.zeros(len(factor), size, size, device=factor.device, dtype=factor.dtype)
    for coarse, weight in ((first, 1 - (place - first)), (first + 1, place - first)):
        start = coarse.clamp(min=0) * factor
        start = torch.minimum(start, torch.floor((size - 0.5) / factor) * factor)
        covered = torch.minimum(pixel + 1, start + factor) - torch.maximum(pixel, start)
        matrix = matrix + weight * covered.clamp(min=0)
    return matrix / matrix.sum(2, keepdim=True)
