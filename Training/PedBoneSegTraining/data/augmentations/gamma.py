"""A power of the intensities: another contrast between the same extremes."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...configuration.extensions import AUGMENTATIONS, Augmentation
from ...randomness import Draws


@AUGMENTATIONS.register("gamma")
@dataclass(frozen=True)
class Gamma(Augmentation):
    """The image is raised to the power between its extremes, then brought back to its mean and standard deviation."""

    strength: float = 0.5  # log of the exponent, either way
    share: float = 0.5  # of the samples

    place = "contrast"

    def change(self, images: Tensor, draws: Draws) -> Tensor:
        exponent = torch.exp(draws.either_way("exponent") * self.strength * draws.happens(self.share))
        exponent = exponent.to(images)[:, None, None, None]
        low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
        powered = ((images - low) / (high - low).clamp(min=1e-6)).clamp(0, 1) ** exponent
        mean, deviation = images.mean((1, 2, 3), keepdim=True), images.std((1, 2, 3), keepdim=True)
        spread = powered.std((1, 2, 3), keepdim=True).clamp(min=1e-6)
        changed = (powered - powered.mean((1, 2, 3), keepdim=True)) / spread * deviation + mean
        return torch.where(exponent == 1, images, changed)
