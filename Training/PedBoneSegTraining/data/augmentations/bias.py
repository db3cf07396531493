"""The uneven sensitivity of a coil: a smooth gain above the darkest intensity."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...configuration.extensions import AUGMENTATIONS, Augmentation
from ...randomness import Draws


@AUGMENTATIONS.register("bias")
@dataclass(frozen=True)
class Bias(Augmentation):
    strength: float = 0.3  # typical log gain
    share: float = 0.5  # of the samples

    place = "gain"

    def change(self, images: Tensor, draws: Draws) -> Tensor:
        strength = draws.happens(self.share) * draws.uniform("strength") * self.strength
        if not strength.any():
            return images
        rows, columns = images.shape[-2:]
        field = draws.field("gain", (rows, columns)).to(images)[:, None]
        gain = torch.exp(strength.to(images)[:, None, None, None] * field)
        low = images.amin((1, 2, 3), keepdim=True)
        return torch.where(gain == 1, images, (images - low) * gain + low)
