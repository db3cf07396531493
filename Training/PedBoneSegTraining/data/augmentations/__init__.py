"""Augmentation, batched on the training device, one file for each effect. `configuration.extensions.Augmentation` is
their contract, with an example.

The geometry is a field of coordinates at which the exams are read once (no image is resampled twice); the intensities
are changed afterwards. A sample is the same alone, in any batch, on any rank.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from ...configuration.extensions import PLACES, Augmentation
from ...randomness import Draws

Effects = Mapping[str, Augmentation]  # by the names under which they are registered


def coordinates(effects: Effects, draws: Draws, patch: tuple[int, int], body: Tensor) -> Tensor:
    """[n, 2, rows, columns]: where each pixel of the patch looks, in pixels from the patch's center in the source.

    `body` [n, 2]: rows and columns of the slices that are cut, which are cropped to the body.
    """
    body = torch.minimum(body, torch.tensor(patch))
    axes = [torch.arange(size, device=draws.device) - (size - 1) / 2 for size in patch]
    where = torch.stack(torch.meshgrid(*axes, indexing="ij")).expand(len(draws.keys), -1, -1, -1)
    for name, effect in in_order(effects):
        where = effect.move(where, draws.of(name), body)
    return where


def change_intensities(effects: Effects, draws: Draws, images: Tensor) -> Tensor:
    """Normalized images [n, C, rows, columns], changed by all effects."""
    for name, effect in in_order(effects):
        images = effect.change(images, draws.of(name))
    return images


def in_order(effects: Effects) -> list[tuple[str, Augmentation]]:
    """By their place in an acquisition, then by name."""
    return sorted(effects.items(), key=lambda item: (PLACES.index(item[1].place), item[0]))
