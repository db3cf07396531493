"""Exams as a hurried or faulty scan would give them: for choices and measurements that must hold for those too."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from scipy import ndimage

from PedBoneSegLib.volume import Volume

from .dataset import LoadedCase

Change = Callable[[LoadedCase, np.random.Generator], np.ndarray]


def white_level(array: np.ndarray) -> float:
    """The intensity of the brightest tissue."""
    return float(np.percentile(array, 99.5)) or 1.0


def noisy(case: LoadedCase, random: np.random.Generator) -> np.ndarray:
    """As a hurried scan: a third of what `heavy_noise` adds."""
    white = white_level(case.volume.array)
    return np.hypot(
        case.volume.array + random.normal(0, 0.15 * white, case.volume.array.shape),
        random.normal(0, 0.15 * white, case.volume.array.shape),
    )


def blurred(case: LoadedCase, random: np.random.Generator) -> np.ndarray:
    sigma = [1.5 / mm if mm < 2 else 0 for mm in case.volume.grid.spacing]
    return ndimage.gaussian_filter(case.volume.array.astype(np.float32), sigma)


def shaded(case: LoadedCase, random: np.random.Generator) -> np.ndarray:
    """The signal falls to a fifth along a random in-plane direction."""
    lines = [np.linspace(-1, 1, count) for count in case.volume.array.shape]
    slope = random.normal(size=3)
    ramp = sum(
        s * line.reshape([-1 if axis == one else 1 for one in range(3)])
        for axis, (s, line) in enumerate(zip(slope / np.abs(slope).sum(), lines, strict=True))
    )
    return case.volume.array * np.exp(0.8 * ramp)


def lost_slices(case: LoadedCase, random: np.random.Generator) -> np.ndarray:
    """A tenth of the slices across the coarsest axis lose nine tenths of their signal."""
    array, axis = case.volume.array.astype(np.float32), int(np.argmax(case.volume.grid.spacing))
    count, gain = array.shape[axis], np.ones(array.shape[axis])
    gain[random.choice(count, max(1, count // 10), replace=False)] = 0.1
    return array * gain.reshape([-1 if axis == one else 1 for one in range(3)])


DEGRADED: dict[str, Change] = {"noise": noisy, "blur": blurred, "shading": shaded, "lost slices": lost_slices}


def apply(change: Change, what: str, case: LoadedCase, number: int) -> LoadedCase:
    """`case` changed; the random numbers are those of (what, number) alone."""
    random = np.random.default_rng([number, *what.encode()])
    return changed(case, change(case, random), what)


def changed(case: LoadedCase, array: np.ndarray, what: str) -> LoadedCase:
    volume = Volume(np.ascontiguousarray(array, np.float32), case.volume.grid, f"{case.name}, {what}")
    return replace(case, name=volume.name, volume=volume)
