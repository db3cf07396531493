"""What the studies look at: exams of the frozen cohorts, and what is done to them."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy import ndimage

from PedBoneSegLib.files import whole_file
from PedBoneSegLib.volume import Grid, Volume

from ..data.dataset import LoadedCase
from ..data.degraded import Change, white_level
from ..synthesis.ahead import exam
from ..synthesis.anatomy import JOINTS
from ..synthesis.anatomy.sources import AnatomySource, Parametric
from ..synthesis.cohort import COHORTS


def cohort(
    name: str, joint: str, count: int, cache: Path | None = None, shapes: AnatomySource | None = None
) -> Iterator[LoadedCase]:
    """The first exams of a frozen cohort, in the size that training sees; made once where there is a `cache` folder.
    Their bones are modeled, or those of `shapes`."""
    source = shapes or Parametric()
    recipe = COHORTS[name].recipe(joint, (source,))
    for i in range(min(count, COHORTS[name].exams)):
        path = cache / f"{name}-{joint}-{source.name}-{i}.npz" if cache else None
        if path is None or not path.exists():
            made = exam(recipe, i)
            grid = made.volume.grid
            arrays = {
                "image": made.volume.array,
                "labels": made.labels,
                "spacing": grid.spacing,
                "origin": grid.origin,
                "direction": grid.direction,
                "sequence": made.volume.sequence,
            }
            if path:
                path.parent.mkdir(parents=True, exist_ok=True)
                with whole_file(path) as temporary:
                    np.savez_compressed(temporary, **arrays)
        else:
            with np.load(path) as stored:
                arrays = dict(stored)
        spacing, origin = (tuple(float(number) for number in arrays[key]) for key in ("spacing", "origin"))
        direction = tuple(tuple(float(number) for number in row) for row in arrays["direction"])
        grid = Grid(arrays["image"].shape, spacing, origin, direction)
        volume = Volume(arrays["image"], grid, f"{name} {joint} {i}", sequence=str(arrays["sequence"]))
        yield LoadedCase(volume.name, volume, arrays["labels"], np.ones(1 + len(JOINTS[joint].BONES), bool))


def inverted(case: LoadedCase, random: np.random.Generator) -> np.ndarray:
    image = case.volume.array.astype(np.float32)
    return np.maximum(white_level(image) - image, 0)


def ct_like(case: LoadedCase, random: np.random.Generator) -> np.ndarray:
    """Dense shells, spongy bone a little above soft tissue, soft tissue nearly uniform, air dark."""
    image = ndimage.gaussian_filter(case.volume.array.astype(np.float32), 0.7) / white_level(case.volume.array)
    body = ndimage.binary_fill_holes(ndimage.binary_opening(image > 0.08))
    bone = case.labels > 0
    inner = ndimage.binary_erosion(bone, iterations=2)
    result = np.where(body, 0.42 + 0.05 * image, 0.02)
    result = np.where(bone, np.where(inner, 0.55 + 0.05 * image, 1.0), result)
    return 1000 * (result + random.normal(0, 0.015, result.shape))


def heavy_noise(case: LoadedCase, random: np.random.Generator) -> np.ndarray:
    white = white_level(case.volume.array)
    parts = (random.normal(0, 0.5 * white, case.volume.array.shape) for _ in range(2))
    return np.hypot(case.volume.array + next(parts), next(parts))


def heavy_blur(case: LoadedCase, random: np.random.Generator) -> np.ndarray:
    sigma = [5.0 / mm if mm < 2 else 0 for mm in case.volume.grid.spacing]
    return ndimage.gaussian_filter(case.volume.array.astype(np.float32), sigma)


def upside_down(case: LoadedCase, random: np.random.Generator) -> np.ndarray:
    axis = int(np.abs(np.asarray(case.volume.grid.direction)[2]).argmax())
    return np.flip(case.volume.array, axis)


def empty(case: LoadedCase, random: np.random.Generator) -> np.ndarray:
    return np.zeros(case.volume.array.shape)


def constant(case: LoadedCase, random: np.random.Generator) -> np.ndarray:
    return np.full(case.volume.array.shape, 100.0)


def noise_only(case: LoadedCase, random: np.random.Generator) -> np.ndarray:
    return random.normal(100, 20, case.volume.array.shape)


FOREIGN: dict[str, Change] = {
    "inverted": inverted,
    "CT-like": ct_like,
    "heavy noise": heavy_noise,
    "heavy blur": heavy_blur,
    "empty": empty,
    "constant": constant,
    "noise only": noise_only,
}
