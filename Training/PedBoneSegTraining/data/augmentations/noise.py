"""White noise, in each channel its own."""

from dataclasses import dataclass

from torch import Tensor

from ...configuration.extensions import AUGMENTATIONS, Augmentation
from ...randomness import Draws


@AUGMENTATIONS.register("noise")
@dataclass(frozen=True)
class Noise(Augmentation):
    strength: float = 0.2  # largest standard deviation, in those of the body
    share: float = 0.5  # of the samples

    place = "noise"

    def change(self, images: Tensor, draws: Draws) -> Tensor:
        strength = draws.happens(self.share) * draws.uniform("strength") * self.strength
        if not strength.any():
            return images
        return images + strength.to(images)[:, None, None, None] * draws.noise("noise", images)
