"""How far made images are from real ones: distances of what can be counted, and a classifier that tries to tell them.

    python -m PedBoneSegTraining.synthesis.realism REAL_FOLDER --match "*_MR_*" --joints knee,shoulder --preset T1
        --plane axial --exams 8 --picture docs/images/realism.jpg

Every volume goes through the runtime's own slicing first. A distance is told in units of the real volumes' own spread:
1 means that a made volume is as far from the real ones as these are from each other. The classifier is a small network
on patches, tested on volumes that it was not trained on: 0.5 could not tell at all, 1 always can.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from scipy import ndimage

from PedBoneSegLib.errors import BadInput
from PedBoneSegLib.files import whole_file
from PedBoneSegLib.formats.reading import find_inputs, read_volume
from PedBoneSegLib.inference.slices import SliceSettings, SliceStack
from PedBoneSegLib.volume import Volume

from .anatomy.draw import Draw
from .cohort import Recipe, check_seed

PIXEL_MM = 1.0
SLICES = 12  # looked at in each volume, evenly spaced
PATCH = 40  # pixels
PATCHES = 60  # per volume, for the classifier


@dataclass
class Looked:
    """A volume at one pixel size: `images` [n, rows, columns] with 0 the darkest and 1 the body's bright tissue."""

    name: str
    images: np.ndarray
    body: np.ndarray  # bool, of the images' shape

    @classmethod
    def at(cls, volume: Volume, plane: str | None = None) -> "Looked":
        """In slices of `plane`, or the volume's own."""
        stack = SliceStack(volume, SliceSettings(pixel_mm=PIXEL_MM), force_plane=plane)
        chosen = stack.occupied[np.linspace(0, len(stack.occupied) - 1, SLICES + 2).round().astype(int)[1:-1]]
        images = stack.images(np.unique(chosen))[:, 0]
        images = images - images.min()
        smooth = ndimage.gaussian_filter(images, (0, 2, 2))
        body = smooth > 0.25 * smooth[smooth > smooth.mean() / 4].mean()
        body = np.stack([ndimage.binary_fill_holes(one) for one in body])
        return cls(volume.name, images / max(np.percentile(images[body], 98), 1e-6), body)


# ---- what is counted: each function gives one row of numbers per volume ----


def intensities(looked: Looked, inside: bool) -> np.ndarray:
    """Share of pixels below each of a row of intensities: the histogram's sum, so that distances are earth mover's."""
    values = looked.images[looked.body == inside]
    edges = np.linspace(0, 1.2 if inside else 0.3, 61)[1:]
    return np.searchsorted(np.sort(values), edges) / max(values.size, 1)


def edges(looked: Looked) -> np.ndarray:
    """The same of the gradient's size in the body (log), and of the width of its sharpest edges in pixels."""
    rows, columns = np.gradient(looked.images, axis=(1, 2))
    slope = np.hypot(rows, columns)
    inner = slope[looked.body]
    reach = ndimage.maximum_filter(looked.images, (0, 5, 5)) - ndimage.minimum_filter(looked.images, (0, 5, 5))
    sharp = looked.body & (slope > np.percentile(inner, 95))
    width = reach[sharp] / slope[sharp]
    sizes = _below(np.log10(inner + 1e-4), np.linspace(-3, 0, 41))
    return np.concatenate([sizes, _below(width, np.linspace(1, 6, 26))])


def spectrum(looked: Looked) -> np.ndarray:
    """Log power of 64 × 64 pieces of the body in rings of spatial frequency, its mean removed."""
    window = np.hanning(64)[:, None] * np.hanning(64)
    power = []
    for place in _places(looked, 64, 40):
        piece = looked.images[place]
        power.append(np.abs(np.fft.fft2((piece - piece.mean()) * window)) ** 2)
    if not power:
        return np.zeros(28)
    frequency = np.hypot(np.fft.fftfreq(64)[:, None], np.fft.fftfreq(64))
    ring = np.round(frequency * 64).astype(int)
    log = np.log10(np.bincount(ring.ravel(), np.mean(power, axis=0).ravel())[2:30] / np.bincount(ring.ravel())[2:30])
    return log - log.mean()


def texture(looked: Looked) -> np.ndarray:
    """In the flat half of the body: spread within 5 × 5 pixels (log), and how alike neighbors are there."""
    mean, square = (ndimage.uniform_filter(one, (0, 5, 5)) for one in (looked.images, looked.images**2))
    spread = np.sqrt(np.maximum(square - mean**2, 0))
    inner = ndimage.binary_erosion(looked.body, np.ones((1, 5, 5)))
    if not inner.any():
        return np.zeros(61)
    flat = inner & (spread <= np.median(spread[inner]))
    rest = looked.images - ndimage.uniform_filter(looked.images, (0, 3, 3))
    alike = ndimage.uniform_filter(rest * np.roll(rest, 1, 2), (0, 7, 7)) / (
        ndimage.uniform_filter(rest**2, (0, 7, 7)) + 1e-9
    )
    return np.concatenate(
        [_below(np.log10(spread[flat] + 1e-4), np.linspace(-3, -0.5, 41)), _below(alike[flat], np.linspace(-1, 1, 20))]
    )


MEASURES: dict[str, Callable[[Looked], np.ndarray]] = {
    "intensities in the body": partial(intensities, inside=True),
    "intensities around it": partial(intensities, inside=False),
    "edges": edges,
    "power spectrum": spectrum,
    "texture": texture,
}


def distances(real: list[Looked], made: list[Looked]) -> dict[str, float]:
    """Per measure the mean distance of a made volume to a real one, over that of a real one to another; and `all`, the
    geometric mean of these."""
    result = {}
    for name, measure in MEASURES.items():
        ours, theirs = (np.stack([measure(one) for one in group]) for group in (made, real))
        apart = np.abs(ours[:, None] - theirs[None]).mean(axis=2)
        among = np.abs(theirs[:, None] - theirs[None]).mean(axis=2)
        result[name] = float(apart.mean() / (among.sum() / (len(real) * (len(real) - 1))))
    return result | {"all": float(np.exp(np.mean(np.log(list(result.values())))))}


def telling_apart(real: list[Looked], made: list[Looked], folds: int = 3, steps: int = 400) -> list[float]:
    """Area under the ROC curve of a small network that tells real patches from made ones, per fold of volumes."""
    cut = ([one.images[place] for place in _places(one, PATCH, PATCHES)] for one in real + made)
    patches = [torch.from_numpy(np.stack(pieces))[:, None].float() for pieces in cut]
    truth = [0] * len(real) + [1] * len(made)
    areas = []
    for fold in range(folds):
        held = [(i if i < len(real) else i - len(real)) % folds == fold for i in range(len(truth))]
        x, y = (_gather(patches, truth, [not one for one in held]), _gather(patches, truth, held))
        network = _train(*x, steps, Draw("telling apart", fold))
        with torch.no_grad():
            scores = network(y[0]).ravel()
        areas.append(_area(scores[y[1] == 1], scores[y[1] == 0]))
    return areas


def _train(images: torch.Tensor, truth: torch.Tensor, steps: int, random: Draw) -> torch.nn.Module:
    torch.manual_seed(random.seed())
    layers: list[torch.nn.Module] = []
    for before, after in ((1, 16), (16, 32), (32, 48)):
        layers += [torch.nn.Conv2d(before, after, 3, 2, 1), torch.nn.BatchNorm2d(after), torch.nn.ReLU()]
    network = torch.nn.Sequential(*layers, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(48, 1))
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3, weight_decay=1e-2)
    groups = [torch.nonzero(truth == label).ravel() for label in (0, 1)]
    for _ in range(steps):
        pick = torch.cat(
            [group[torch.from_numpy((random.generator.random(32) * len(group)).astype(int))] for group in groups]
        )
        batch = images[pick]
        batch = batch.flip(3) if random.chance(0.5) else batch
        batch = batch.transpose(2, 3) if random.chance(0.5) else batch  # not the way that the patient lies
        batch = batch * random.uniform(0.85, 1.15)  # nor the scale of the intensities
        loss = F.binary_cross_entropy_with_logits(network(batch).ravel(), truth[pick].float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval()


def _gather(patches: list[torch.Tensor], truth: list[int], wanted: list[bool]) -> tuple[torch.Tensor, torch.Tensor]:
    chosen = [i for i, one in enumerate(wanted) if one]
    return (
        torch.cat([patches[i] for i in chosen]),
        torch.cat([torch.full((len(patches[i]),), truth[i]) for i in chosen]),
    )


def _area(positive: torch.Tensor, negative: torch.Tensor) -> float:
    wins = (positive[:, None] > negative).float() + 0.5 * (positive[:, None] == negative).float()
    return float(wins.mean())


def _below(values: np.ndarray, marks: np.ndarray) -> np.ndarray:
    return np.searchsorted(np.sort(values), marks) / max(values.size, 1)


def _places(looked: Looked, size: int, count: int) -> list[tuple]:
    """At most `count` squares that are mostly body, the same for the same volume."""
    random = Draw("patches", size).generator
    filled = ndimage.uniform_filter(looked.body.astype(np.float32), (0, size, size)) > 0.85
    half = size // 2
    inner = np.zeros_like(filled)
    inner[:, half:-half, half:-half] = filled[:, half:-half, half:-half]
    centers = np.argwhere(inner)
    if not len(centers):
        return []
    return [
        (k, slice(row - half, row + half), slice(column - half, column + half))
        for k, row, column in centers[(random.random(count) * len(centers)).astype(int)]
    ]


def make(recipe: Recipe, exams: int) -> list[Volume]:
    """The first exams of a recipe."""
    return [recipe.acquire(i, 0, recipe.body(i)).volume for i in range(exams)]


def side_by_side(path: Path, rows: list[list[Looked]], tile: int = 200) -> None:
    """A JPEG with one row of volumes above the other, each by its middle slice."""
    sheet = np.zeros((tile * len(rows), tile * max(map(len, rows))), np.uint8)
    for top, row in enumerate(rows):
        for left, looked in enumerate(row):
            gray = np.clip(looked.images[len(looked.images) // 2] / 1.1, 0, 1) * 255
            picture = Image.fromarray(gray.astype(np.uint8))
            picture.thumbnail((tile, tile))
            sheet[top * tile : top * tile + picture.height, left * tile : left * tile + picture.width] = np.asarray(
                picture
            )
    with whole_file(path) as temporary:
        Image.fromarray(sheet).save(temporary, "JPEG", quality=85)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("real", type=Path, metavar="REAL_FOLDER")
    parser.add_argument("--match", default="*", help="which of the folder's files are images; %(default)s")
    parser.add_argument("--cases", help="comma-separated parts of names: only these")
    parser.add_argument("--joints", default="knee,shoulder")
    parser.add_argument("--preset", default="T1")
    parser.add_argument("--plane", default="axial")
    parser.add_argument("--exams", type=int, default=8, help="made, of each joint; %(default)s")
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--steps", type=int, default=400, help="of the classifier's training; %(default)s")
    parser.add_argument("--picture", type=Path, help="a JPEG: real above, made below")
    args = parser.parse_args()
    paths = [
        path
        for path in find_inputs(args.real)
        if path.match(args.match) and (not args.cases or any(part in path.name for part in args.cases.split(",")))
    ]
    if len(paths) < 3:
        raise BadInput(f"{args.real} holds {len(paths)} images that match {args.match}", "three are the fewest")
    real = [Looked.at(read_volume(path)) for path in sorted(paths)]
    made = []
    for joint in args.joints.split(","):
        recipe = Recipe(
            joint, check_seed(args.seed), preset=args.preset or None, planes=(args.plane,), pixel_mm=(0.8, 1.0)
        )
        made.append([Looked.at(volume, args.plane) for volume in make(recipe, args.exams)])
    everything = [one for group in made for one in group]
    areas = telling_apart(real, everything, steps=args.steps)
    print(
        json.dumps(
            {
                "real": [one.name for one in real],
                "made": len(everything),
                "seed": args.seed,
                "distances": distances(real, everything),
                "told apart (AUC per fold)": areas,
            },
            indent=1,
        )
    )
    if args.picture:
        width = min(6, len(real))
        side_by_side(args.picture, [real[:width], *(group[:width] for group in made)])


if __name__ == "__main__":
    main()
