"""Augmentation, batched on the training device. The geometry is a field of coordinates at which the bank is read once
(no image is resampled twice); the intensities are changed afterwards.

Every draw comes from a generator of its own, made from (seed, domain, step, sample): a sample is the same alone, in any
batch, on any rank. All draws are made in the same order whatever is switched on, so switching one effect off leaves the
others as they were. `share` is the probability that a sample meets an effect.
"""

import hashlib
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

UNIFORMS = 32  # numbers in [0, 1) that a sample draws; which one means what stands in the code that uses it
COARSE = 8  # side of the grids that elastic and bias fields are interpolated from


@dataclass(frozen=True)
class Augmentation:
    rotation: float = 25.0  # degrees, either way
    scale: float = 0.25  # either way, as a share
    aspect: float = 0.1  # rows against columns, either way
    shift: float = 0.15  # of the body's length in the slice, or of the patch if that is shorter; either way
    flips: tuple[float, float, float] = (0.5, 0.0, 0.5)  # share mirrored across slices, rows, columns
    elastic: float = 0.01  # typical displacement, as a share of the patch's rows
    elastic_share: float = 0.3
    gamma: float = 0.5  # log of the exponent, either way
    gamma_share: float = 0.5
    bias: float = 0.3  # typical log gain
    bias_share: float = 0.5
    noise: float = 0.2  # largest standard deviation, in those of the body
    noise_share: float = 0.5
    low_resolution: float = 3.0  # coarsest pixel, in pixels, along rows, columns or both
    low_resolution_share: float = 0.25


def sample_generator(*key: object) -> torch.Generator:
    """A generator on the CPU that is a function of `key` alone (seed, domain, step, sample …)."""
    digest = hashlib.blake2b("/".join(map(str, key)).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


@dataclass
class Draws:
    """What the samples of a batch drew: `uniform` [n, UNIFORMS] (on the CPU), `fields` [n, 3, COARSE, COARSE] (elastic
    rows and columns, bias) on the device, and `noise`: a seed each."""

    uniform: Tensor
    fields: Tensor
    noise: list[int]

    @classmethod
    def of(cls, generators: list[torch.Generator], device: torch.device) -> "Draws":
        uniform = torch.stack([torch.rand(UNIFORMS, generator=each) for each in generators])
        fields = torch.stack([torch.randn(3, COARSE, COARSE, generator=each) for each in generators])
        noise = [int(torch.randint(2**62, (1,), generator=each)) for each in generators]
        return cls(uniform, fields.to(device), noise)

    def either_way(self, number: int) -> Tensor:
        return 2 * self.uniform[:, number] - 1

    def happens(self, number: int, share: float) -> Tensor:
        return self.uniform[:, number] < share


# Uniforms 0 to 7 choose the case, its slice and the patch (source.py); the geometry takes 8 to 15, intensities 16 on.
def coordinates(draws: Draws, settings: Augmentation, patch: tuple[int, int], body: Tensor) -> Tensor:
    """[n, 2, rows, columns]: where each pixel of the patch looks, in pixels from the patch's center in the source.

    `body` [n, 2]: rows and columns of the slices that are cut, which are cropped to the body.
    """
    device = draws.fields.device
    angle = draws.either_way(8) * math.radians(settings.rotation)
    zoom = (1 + settings.scale) ** draws.either_way(9)
    stretch = (1 + settings.aspect) ** draws.either_way(10)
    rows_mirrored, columns_mirrored = (1.0 - 2.0 * draws.happens(12 + axis, settings.flips[axis]) for axis in (1, 2))
    scale = torch.stack([zoom * stretch * rows_mirrored, zoom / stretch * columns_mirrored], 1)
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1).view(-1, 2, 2)
    matrix = (turn * scale[:, None, :]).to(device)
    longest = torch.minimum(body.cpu(), torch.tensor(patch))  # a small joint stays in view
    shift = torch.stack([draws.either_way(11), draws.either_way(12)], 1) * longest * settings.shift
    rows, columns = (torch.arange(size, device=device) - (size - 1) / 2 for size in patch)
    where = (
        matrix[:, :, 0, None, None] * rows[:, None]
        + matrix[:, :, 1, None, None] * columns
        + shift.to(device)[:, :, None, None]
    )
    bent = draws.happens(15, settings.elastic_share)
    if settings.elastic and bent.any():
        amplitude = (bent * settings.elastic * patch[0]).to(device)[:, None, None, None]
        where = where + amplitude * _smooth(draws.fields[:, :2], patch)
    return where


def mirror_slices(images: Tensor, draws: Draws, settings: Augmentation) -> Tensor:
    """Channels are neighbouring slices: their order turned round is the body mirrored across the slices."""
    turned = draws.happens(16, settings.flips[0]).to(images.device)
    return torch.where(turned[:, None, None, None], images.flip(1), images)


def change_intensities(images: Tensor, draws: Draws, settings: Augmentation) -> Tensor:
    """Normalized images [n, C, rows, columns]; a sample's channels are treated alike, but for the noise."""
    images = _change_gamma(images, draws, settings)
    images = _add_bias(images, draws, settings)
    images = _lower_resolution(images, draws, settings)
    return _add_noise(images, draws, settings)


def _change_gamma(images: Tensor, draws: Draws, settings: Augmentation) -> Tensor:
    """A power of the intensities between their extremes, then mean and deviation as they were."""
    exponent = torch.exp(draws.either_way(18) * settings.gamma * draws.happens(17, settings.gamma_share))
    low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
    powered = ((images - low) / (high - low).clamp(min=1e-6)).clamp(0, 1) ** exponent.to(images)[:, None, None, None]
    mean, deviation = images.mean((1, 2, 3), keepdim=True), images.std((1, 2, 3), keepdim=True)
    normal = (powered - powered.mean((1, 2, 3), keepdim=True)) / powered.std((1, 2, 3), keepdim=True).clamp(min=1e-6)
    same = (exponent == 1).to(images.device)[:, None, None, None]
    return torch.where(same, images, normal * deviation + mean)


def _add_bias(images: Tensor, draws: Draws, settings: Augmentation) -> Tensor:
    """A smooth gain above the darkest intensity."""
    strength = (draws.happens(19, settings.bias_share) * draws.uniform[:, 20] * settings.bias).to(images)
    gain = torch.exp(strength[:, None, None, None] * _smooth(draws.fields[:, 2:], images.shape[-2:]))
    low = images.amin((1, 2, 3), keepdim=True)
    return torch.where(gain == 1, images, (images - low) * gain + low)


def _lower_resolution(images: Tensor, draws: Draws, settings: Augmentation) -> Tensor:
    """Pixels averaged to coarser ones along rows, columns or both, and brought back by linear interpolation."""
    chosen = torch.nonzero(draws.happens(21, settings.low_resolution_share))[:, 0]
    if settings.low_resolution <= 1 or not len(chosen):
        return images
    factor = settings.low_resolution ** draws.uniform[chosen, 22]
    axes = draws.uniform[chosen, 23] * 3
    along_rows, along_columns = torch.where(axes < 2, factor, 1.0), torch.where(axes >= 1, factor, 1.0)
    part = images[chosen.to(images.device)]
    down = coarsening(along_rows.to(images), images.shape[2])[:, None]
    across = coarsening(along_columns.to(images), images.shape[3])[:, None]
    return images.index_copy(0, chosen.to(images.device), down @ part @ across.transpose(-1, -2))


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


def _add_noise(images: Tensor, draws: Draws, settings: Augmentation) -> Tensor:
    strength = draws.happens(24, settings.noise_share) * draws.uniform[:, 25] * settings.noise
    noisy = torch.nonzero(strength)[:, 0].tolist()
    if not noisy:
        return images
    images = images.clone()
    for number in noisy:
        generator = torch.Generator(images.device).manual_seed(draws.noise[number])
        noise = torch.randn(images.shape[1:], generator=generator, device=images.device, dtype=images.dtype)
        images[number] += float(strength[number]) * noise
    return images


def _smooth(coarse: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(coarse, size=tuple(size), mode="bicubic", align_corners=True)
