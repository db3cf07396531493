"""What coils, gradients, the patient and the reconstruction do to an image. Intensities alone: no label moves.

An image is [slices, rows, columns], white is about 1. Every function takes the strength that `settings` names, and
its own stream of random numbers.
"""

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F

from ..anatomy.draw import Draw

_MARGIN = 8  # pixels
_BANK = 1 << 21  # random numbers that noise is cut from


def shift_fat(image: torch.Tensor, millimeters: float, pixel_mm: float, along_rows: bool) -> torch.Tensor:
    """Chemical shift: the fat part of an image moved along the readout axis; what leaves the field is lost."""
    pixels = millimeters / pixel_mm
    whole, part = int(np.floor(pixels)), pixels - np.floor(pixels)
    axis = -2 if along_rows else -1
    moved = torch.zeros_like(image)
    for step, share in ((whole, 1 - part), (whole + 1, part)):
        kept = image.shape[axis] - step
        if kept > 0:
            moved.narrow(axis, step, kept).add_(image.narrow(axis, 0, kept), alpha=float(share))
    return moved


def fold(image: torch.Tensor, extra: tuple[int, int], random: Draw) -> torch.Tensor:
    """Wrap: what lies `extra` rows or columns beyond the field appears on its other side, weaker the further it lies
    outside."""
    near, far = random.uniform(0.5, 1.0), random.uniform(0.0, 0.4)
    for axis, count in ((-2, extra[0]), (-1, extra[1])):
        if count:
            size = image.shape[axis] - 2 * count
            inner = image.narrow(axis, count, size).clone()
            gain = torch.linspace(near, far, count, device=image.device)
            gain = gain[:, None] if axis == -2 else gain
            inner.narrow(axis, size - count, count).add_(
                image.narrow(axis, 0, count) * gain.flip(0 if axis == -2 else -1)
            )
            inner.narrow(axis, 0, count).add_(image.narrow(axis, size + count, count) * gain)
            image = inner
    return image


def bias_field(image: torch.Tensor, strength: float, random: Draw) -> None:
    """Smooth gain, the exponential of a coarse random field."""
    shape = [2 + int(random.uniform(0, 3)) for _ in range(3)]
    coarse = torch.from_numpy((random.generator.random(shape) * 2 - 1) * 1.7 * strength).float()
    log_gain = F.interpolate(coarse[None, None].to(image.device), image.shape, mode="trilinear", align_corners=True)
    image *= log_gain[0, 0].exp_()


def coil_falloff(image: torch.Tensor, strength: float, random: Draw) -> None:
    """A surface coil beside the body: the gain falls with the square of the distance over the reach `strength`."""
    angle, height = random.uniform(0, 2 * np.pi), random.uniform(-0.6, 0.6)
    place = (height, 1.1 * np.sin(angle), 1.1 * np.cos(angle))
    lines = [
        (torch.linspace(-1, 1, count, device=image.device) - at) ** 2
        for count, at in zip(image.shape, place, strict=True)
    ]
    gain = 1 / (1 + (lines[0][:, None, None] + lines[1][:, None] + lines[2]) / (2 * strength) ** 2)
    image *= gain / gain.double().mean().float()  # in double: the same with any number of threads


def skin_gain(image: torch.Tensor, strength: float, random: Draw) -> None:
    """A coil around the limb: the gain falls from the skin inward, within about a quarter of the slice."""
    coarse = F.adaptive_avg_pool2d(image, [max(1, count // 8) for count in image.shape[1:]])
    body = (coarse > 0.15 * coarse.amax()).float()[:, None]
    reach = max(1, round(random.uniform(0.1, 0.25) * max(body.shape[-2:])))
    for _ in range(2):
        body = F.avg_pool2d(F.pad(body, (reach,) * 4, mode="replicate"), 2 * reach + 1, 1)
    depth = F.interpolate(body, image.shape[1:], mode="bilinear", align_corners=False)[:, 0]  # about 0.5 at the skin
    gain = torch.exp(2 * strength * (1 - depth))
    image *= gain / gain.double().mean().float()


def edge_loss(image: torch.Tensor, strength: float, random: Draw) -> None:
    """Signal fades towards one or both ends of an axis, as beyond the coil or the straight part of the gradients."""
    axis = int(random.uniform(0, 3))
    both, first, depth = random.chance(0.4), random.chance(0.5), random.uniform(0.4, 0.97)
    along = torch.linspace(0, 1, image.shape[axis], device=image.device)
    gain = torch.ones_like(along)
    for distance in (along, 1 - along) if both else (along if first else 1 - along,):
        gain *= 1 - depth * (1 - distance / strength).clamp(min=0) ** 2
    image *= gain.view([-1 if axis == one else 1 for one in range(3)])


def slice_gain(image: torch.Tensor, strength: float, random: Draw) -> None:
    """Slices excited in turn do not come out equally bright."""
    gain = 1 + strength * (random.generator.random(image.shape[0]) * 2 - 1)
    if random.chance(0.5):
        gain[::2] *= 1 - strength
    image *= torch.from_numpy(gain).float().to(image.device)[:, None, None]


def metal(image: torch.Tensor, radius_mm: float, spacing: tuple[float, float, float], random: Draw) -> None:
    """A void with a bright pile-up on one side of it."""
    place = [random.uniform(0.25, 0.75) * (count - 1) for count in image.shape]
    stretch = [random.uniform(0.7, 1.8) for _ in range(3)]
    lines = [
        (torch.arange(count, device=image.device) - at) * mm / (radius_mm * wide)
        for count, at, mm, wide in zip(image.shape, place, spacing, stretch, strict=True)
    ]
    distance = (lines[0][:, None, None] ** 2 + lines[1][:, None] ** 2 + lines[2] ** 2).sqrt()
    image *= torch.sigmoid((distance - 1) * 8)
    rim = torch.exp(-(((distance - 1.15) * 7) ** 2)) * (lines[1][:, None] > 0.4 * distance)
    image += rim * random.uniform(0.5, 2.0)


def spectrum(
    image: torch.Tensor,
    spacing: tuple[float, float],
    phase_rows: bool,
    effects: dict[str, float | None],
    randoms: dict[str, Draw],
) -> torch.Tensor:
    """All that happens in k-space, then the magnitude: motion, ghosting, noise, and the window of the reconstruction.

    The middle of k-space stays where the patient was for most of the scan, so that the image does not shift.
    """
    shaped = any(effects[name] is not None for name in ("blur", "zero_fill", "gibbs", "motion", "ghosting"))
    if shaped:  # a scanner samples more than it shows: what a window smears over one side must not appear on the other
        image = F.pad(image[None], (_MARGIN,) * 4, mode="replicate")[0]
    out = _through_k_space(image, spacing, phase_rows, effects, randoms)
    return out[:, _MARGIN:-_MARGIN, _MARGIN:-_MARGIN].contiguous() if shaped else out


def _through_k_space(
    image: torch.Tensor,
    spacing: tuple[float, float],
    phase_rows: bool,
    effects: dict[str, float | None],
    randoms: dict[str, Draw],
) -> torch.Tensor:
    device, (rows, columns) = image.device, image.shape[1:]
    y, x = torch.fft.fftfreq(rows, device=device), torch.fft.fftfreq(columns, device=device)  # cycles a pixel
    lines = y if phase_rows else x
    count = len(lines)

    def on_lines(values: torch.Tensor) -> torch.Tensor:
        return values[:, None] if phase_rows else values[None, :]

    window = torch.ones(rows, columns, device=device)
    if (strength := effects["blur"]) is not None:
        window = torch.exp(-2 * (torch.pi * strength) ** 2 * (y[:, None] ** 2 + x**2))
    if (strength := effects["zero_fill"]) is not None:  # smooth edge: a filtered reconstruction
        window = window * on_lines(torch.sigmoid((0.5 * (1 - strength) - lines.abs()) * 60))
    if (strength := effects["gibbs"]) is not None:
        edge = 0.5 * (1 - strength)
        window = window * (
            on_lines((lines.abs() <= edge).float())
            if randoms["gibbs"].chance(0.5)
            else ((y.abs() <= edge)[:, None] & (x.abs() <= edge)).float()
        )

    factor = None
    if (strength := effects["motion"]) is not None:
        factor = _motion(strength, lines, y, x, spacing, randoms["motion"], on_lines)
    if (strength := effects["ghosting"]) is not None:
        random = randoms["ghosting"]
        period, phase = random.uniform(2, 9), random.uniform(0, 2 * np.pi)
        order = torch.fft.ifftshift(torch.arange(count, device=device) - count // 2).float()
        wave = on_lines(1 + 2 * strength * torch.cos(2 * torch.pi * order / period + phase))
        factor = wave if factor is None else factor * wave

    shaped = any(effects[name] is not None for name in ("blur", "zero_fill", "gibbs"))
    if factor is not None:
        image = torch.fft.ifft2(torch.fft.fft2(image) * (factor * window))
    elif shaped:
        image = torch.fft.irfft2(torch.fft.rfft2(image) * window[:, : columns // 2 + 1], s=(rows, columns))
    if (strength := effects["noise"]) is None:
        return image.abs()
    random = randoms["noise"]
    correlated = random.chance(0.5) and shaped  # noise that went through the window
    real, imaginary = (_noise(image.shape, random, device) * strength for _ in range(2))
    if correlated:
        keep = window[:, : columns // 2 + 1] / (window.double() ** 2).mean().sqrt().float()
        real, imaginary = (
            torch.fft.irfft2(torch.fft.rfft2(one) * keep, s=(rows, columns)) for one in (real, imaginary)
        )
    if image.is_complex():
        real, imaginary = real + image.real, imaginary + image.imag
    else:
        real += image
    return torch.hypot(real, imaginary)


def _motion(millimeters: float, lines, y, x, spacing, random: Draw, on_lines) -> torch.Tensor:
    """Phase of every k-space sample for a patient who moved a few times, each time for a stretch of outer lines."""
    order = lines.argsort()
    down, right = torch.zeros_like(lines), torch.zeros_like(lines)
    for _ in range(int(random.uniform(1, 5))):
        start, length = random.uniform(0, 0.95), random.uniform(0.01, 0.12)
        angle = random.uniform(0, 2 * np.pi)
        stretch = order[int(start * len(lines)) : int((start + length) * len(lines)) + 1]
        stretch = stretch[lines[stretch].abs() > 0.04]
        down[stretch] = millimeters * np.sin(angle) / spacing[0]
        right[stretch] = millimeters * np.cos(angle) / spacing[1]
    return torch.exp(-2j * torch.pi * (y[:, None] * on_lines(down) + x * on_lines(right)))


@lru_cache(maxsize=2)
def _bank(device: torch.device) -> torch.Tensor:
    """Nearly normal numbers of deviation 1, twice over so that any stretch of them is one slice."""
    total = sum(Draw("noise", part).generator.random(_BANK, dtype=np.float32) for part in range(6))
    return torch.from_numpy((total - 3) * np.float32(2**0.5)).repeat(2).to(device)


def _noise(shape: torch.Size, random: Draw, device: torch.device) -> torch.Tensor:
    """Noise [slices, rows, columns]: every slice a stretch of the bank from a random start, in random sense."""
    bank, count = _bank(device), shape[1] * shape[2]
    assert count <= _BANK
    out = torch.empty(shape, device=device)
    for one in out:
        start = int(random.uniform(0, 1) * _BANK) + int(random.uniform(0, 1) * 64)
        stretch = bank[start % _BANK : start % _BANK + count].view(shape[1:])
        one.copy_(stretch if random.chance(0.5) else -stretch)
    return out


def tone(image: torch.Tensor, gamma: float | None, saturation: float | None) -> torch.Tensor:
    """Contrast curve of the exported image: a power law, and a shoulder where bright tissue turns flat."""
    if gamma is not None:
        image = image.clamp_(min=0).pow_(float(np.exp(gamma)))
    if saturation is not None:
        over = (image - saturation).clamp(min=0)
        image = image.clamp(max=saturation) + (1 - saturation) * 0.5 * torch.tanh(over / (1 - saturation))
    return image
