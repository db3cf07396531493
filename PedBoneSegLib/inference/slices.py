"""A volume as the stack of normalized 2-D slices that a network expects, and the way back to the volume's own voxels.

Inference and training both load their images through `SliceStack`. Nothing here is random and nothing depends on the
order in which slices are asked for.

Axes. A volume's array is [i, j, k] in the file's own order. Permutation and flips alone (views, never copies) turn it
into [slice, row, column]; nothing is rotated, an oblique volume keeps its slices. The slice, row and column axes run:

    sagittal    right → left           superior → inferior     anterior → posterior
    coronal     anterior → posterior   superior → inferior     right → left
    axial       inferior → superior    anterior → posterior    right → left
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from scipy import ndimage

from ..models.slice_settings import SliceSettings
from ..volume import Grid, Volume
from .resampling import SliceAxis, largest_share

# plane → for (slice, row, column): the world axis (0 left, 1 posterior, 2 superior) and the sense in which it is read
PLANES = {
    "sagittal": ((0, 1), (2, -1), (1, 1)),
    "coronal": ((1, 1), (2, -1), (0, 1)),
    "axial": ((2, 1), (1, 1), (0, 1)),
}
BLOCK_MM = 3.0  # the body is found on blocks of this size: fine enough for a crop, coarse enough to average noise away
CHUNK = 16  # slices read at once: whole cache lines are used also where slices lie across the fastest axis
KEPT_PIXELS = 1 << 24  # of resampled slices, 64 MiB


@dataclass(frozen=True)
class Normalization:
    """Clip to [low, high], then (value − mean) / deviation; the four in the volume's own intensities."""

    low: float
    high: float
    mean: float
    deviation: float  # 1 where the body is of one intensity


def canonical_axes(direction: Sequence[Sequence[float]]) -> tuple[tuple[int, int], ...]:
    """For each of left, posterior, superior: the array axis that lies nearest to it and the sense (+1 or −1)."""
    cosines = np.asarray(direction, float)
    best = max(permutations(range(3)), key=lambda order: sum(abs(cosines[w, a]) for w, a in enumerate(order)))
    return tuple((axis, 1 if cosines[world, axis] >= 0 else -1) for world, axis in enumerate(best))


def choose_plane(grid: Grid, settings: SliceSettings) -> str:
    """The plane across the coarsest axis; the settings' plane when the voxels are nearly isotropic.

    An axis of one voxel is always sliced across: any other plane would leave a line for an image.
    """
    axes = [axis for axis, _ in canonical_axes(grid.direction)]
    across = {plane: axes[layout[0][0]] for plane, layout in PLANES.items()}
    fine, coarse = sorted(grid.spacing)[1:]
    if min(grid.size) > 1 and coarse < settings.isotropy * fine:
        return settings.plane
    return max(
        across, key=lambda plane: (grid.size[across[plane]] == 1, grid.spacing[across[plane]], plane == settings.plane)
    )


class SliceStack:
    """The slices of `volume` (its `array` [i, j, k] and `grid`) under `settings`.

    plane        "sagittal", "coronal" or "axial"; `force_plane` overrides the choice (training uses all three)
    axis, sense  the array axis across which the slices lie, and whether slice 0 is its first (+1) or last (−1) voxel
    count        number of slices; `spacing` their distance in mm, `in_plane` the input's pixel size (row, column) in mm
    occupied     indices of the slices that hold some of the body (an int array; empty when nothing has signal)
    shape        (rows, columns) in network pixels: the body's box over all slices, a margin, padded to multiples of 32
    crop         the same box in the input's pixels, as (row slice, column slice)
    window       the network pixels (row slice, column slice) that the crop covers; the first edges of the two meet
    scale        a network pixel's length in the input's pixels, along rows and columns
    field_cut    True where the body is longer than the settings' field
    non_finite   number of NaN and infinite voxels; they are read as the smallest finite value
    """

    def __init__(self, volume: Volume, settings: SliceSettings, *, force_plane: str | None = None) -> None:
        grid = volume.grid
        self.settings = settings
        self.plane = force_plane or choose_plane(grid, settings)
        world = canonical_axes(grid.direction)
        layout = [(world[axis][0], world[axis][1] * sense) for axis, sense in PLANES[self.plane]]
        self._order = tuple(axis for axis, _ in layout)
        self._flip = tuple(slice(None, None, sense) for _, sense in layout)
        self.axis, self.sense = layout[0]
        self._view = self.oriented(volume.array)
        self.count = self._view.shape[0]
        self.spacing, *self.in_plane = (float(grid.spacing[axis]) for axis in self._order)
        self._read_as, self._fill, self.non_finite = self._inspect()
        body: np.ndarray
        body, edges = self._find_body()
        self.normalization = self._measure(body, edges)
        self.occupied = np.flatnonzero(np.asarray(body.any(axis=(1, 2)))[_block_of(edges[0], self.count)])
        self._lines: list[SliceAxis] = []
        self.field_cut = False
        for axis, spacing in enumerate(self.in_plane, start=1):
            size = self._view.shape[axis]
            seen = np.asarray(body.any(axis=tuple({0, 1, 2} - {axis})))
            hit = np.flatnonzero(seen[_block_of(edges[axis], size)])
            margin = int(np.ceil(settings.margin_mm / spacing))
            start, stop = (max(0, hit[0] - margin), min(size, hit[-1] + 1 + margin)) if len(hit) else (0, size)
            longest = max(1, int(settings.field_mm / spacing))
            if stop - start > longest:
                self.field_cut = True
                start += (stop - start - longest) // 2
                stop = start + longest
            self._lines.append(SliceAxis(size, spacing, int(start), int(stop), settings.pixel_mm))
        self.shape = tuple(line.count for line in self._lines)
        self.crop = tuple(slice(line.start, line.stop) for line in self._lines)
        self.window = tuple(slice(line.pad, line.pad + line.used) for line in self._lines)
        self.scale = tuple(line.ratio for line in self._lines)
        self._made: dict[int, np.ndarray] = {}  # the latest resampled slices: neighbours and other domains want them

    def oriented(self, array: np.ndarray) -> np.ndarray:
        """An [i, j, k] array of the volume's grid as a view [slice, row, column]; writing to it writes to the array."""
        return array.transpose(self._order)[self._flip]

    def own_index(self, index: int) -> int:
        """The voxel index along `axis` of slice `index`."""
        return int(index) if self.sense > 0 else self.count - 1 - int(index)

    def images(self, indices: Iterable[int]) -> np.ndarray:
        """Normalized float32 [n, 2·context + 1, rows, columns]; a slice's channels run from its lowest neighbour up.

        A neighbour beyond the ends is the first or last slice; outside the field of view lies the lowest intensity.
        """
        indices = np.asarray(list(indices), int)
        wanted = np.clip(indices[:, None] + self.settings.neighbours(self.spacing), 0, self.count - 1)
        images = np.empty((*wanted.shape, *self.shape), np.float32)
        for start in range(0, len(wanted), CHUNK):
            part = wanted[start : start + CHUNK]
            missing = [int(index) for index in np.unique(part) if index not in self._made]
            self._made |= dict(zip(missing, self._resample(missing), strict=True))
            for place in np.ndindex(part.shape):
                images[start:][place] = self._made[int(part[place])]
            for index in list(self._made)[: -max(CHUNK, KEPT_PIXELS // math.prod(self.shape))]:
                del self._made[index]
        return images

    def labels(self, array: np.ndarray, indices: Iterable[int]) -> np.ndarray:
        """The label map `array` [i, j, k], on the volume's grid, at the network's pixels: the label that fills most of
        a pixel, 0 outside the field of view; [n, rows, columns] of the array's type. Training's targets."""
        chosen = self.oriented(array)[np.asarray(list(indices), int)]
        found = np.empty((len(chosen), *self.shape), array.dtype)
        for target, label_map in zip(found, chosen, strict=True):
            target[...] = largest_share(label_map, *self._lines)
        return found

    def place(self, slices: np.ndarray, indices: Iterable[int], into: np.ndarray) -> None:
        """Writes [n, crop rows, crop columns] at `indices` into the [i, j, k] array `into`; the rest stays as it is."""
        target = self.oriented(into)
        for one, index in zip(slices, indices, strict=True):
            target[index][self.crop] = one

    def _inspect(self) -> tuple[type, float, int]:
        """The type to calculate in, what non-finite voxels are read as, and how many there are."""
        kind = self._view.dtype
        read_as = np.float32 if kind.itemsize <= 2 or kind == np.float32 else np.float64  # holds these values exactly
        bad, lowest = 0, np.inf
        for start in range(0, self.count if kind.kind == "f" else 0, CHUNK):
            part = self._view[start : start + CHUNK]
            finite = np.isfinite(part)
            bad += part.size - int(np.count_nonzero(finite))
            lowest = min(lowest, float(part.min() if finite.all() else np.min(part, where=finite, initial=np.inf)))
        return read_as, (lowest if np.isfinite(lowest) else 0.0), bad

    def _read(
        self, indices: Sequence[int] | slice, rows: slice = slice(None), columns: slice = slice(None)
    ) -> np.ndarray:
        """Slices as a contiguous array of the calculating type, without non-finite values."""
        values: np.ndarray = np.array(self._view[indices, rows, columns], self._read_as, order="C")
        if self.non_finite:
            values[~np.isfinite(values)] = self._fill
        return values

    def _find_body(self) -> tuple[np.ndarray, list[np.ndarray]]:
        """The body on blocks of about BLOCK_MM as a bool array, and along each axis the first voxel of every block.

        A block belongs to it when its mean is above a quarter of the typical signal over the darkest blocks; parts
        smaller than a tenth of the largest are dropped, holes within a slice are filled (cortical bone has no signal).
        The answer does not change with the intensities' gain or offset.
        """
        sizes, spacing = self._view.shape, (self.spacing, *self.in_plane)
        blocks = [max(1, min(round(BLOCK_MM / mm), size // 16)) for mm, size in zip(spacing, sizes, strict=True)]
        edges = [np.arange(0, size, block) for size, block in zip(sizes, blocks, strict=True)]
        coarse = np.empty([len(each) for each in edges])
        for position, start in enumerate(edges[0]):
            slab = self._read(slice(start, start + blocks[0])).astype(np.float64).mean(axis=0)
            coarse[position] = _block_sums(_block_sums(slab, blocks[1]).T, blocks[2]).T
        for axis in (1, 2):
            widths = np.diff(np.append(edges[axis], sizes[axis]))
            coarse /= widths[:, None] if axis == 1 else widths
        coarse -= np.percentile(coarse, 1)
        scale = coarse.max()
        if not scale > 0:
            return np.zeros(coarse.shape, bool), edges
        coarse = np.clip(coarse / scale, 0, None)
        typical = coarse[coarse > coarse.mean() / 8].mean()
        body = coarse > typical / 4
        parts, number = ndimage.label(body)
        volumes = np.bincount(parts.ravel())[1:]
        kept = np.concatenate([[False], volumes * 10 >= volumes.max(initial=0)])
        body = kept[parts] if number else body
        for one in body:
            one |= ndimage.binary_fill_holes(one)
        return body, edges

    def _measure(self, body: np.ndarray, edges: list[np.ndarray]) -> Normalization:
        """Robust percentiles (0.5 and 99.5), mean and deviation inside the body, on evenly spaced voxels of it."""
        steps = [max(1, int(each[1] - each[0]) // 2) if len(each) > 1 else 1 for each in edges]
        picks = [np.arange(0, size, step) for size, step in zip(self._view.shape, steps, strict=True)]
        where = [np.searchsorted(edge, pick, side="right") - 1 for edge, pick in zip(edges, picks, strict=True)]
        parts: list[np.ndarray] = [np.empty(0, self._read_as)]
        for pick, block in zip(picks[0], where[0], strict=True):
            if body[block].any():
                values = self._read(slice(pick, pick + 1), slice(None, None, steps[1]), slice(None, None, steps[2]))[0]
                parts.append(values[body[block][where[1]][:, where[2]]])
        values = np.sort(np.concatenate(parts))  # far faster than numpy's way to a percentile
        if not len(values):
            return Normalization(self._fill, self._fill, self._fill, 1.0)
        place = np.array([0.005, 0.995]) * (len(values) - 1)
        before = place.astype(int)
        ends = values[[before, np.minimum(before + 1, len(values) - 1)]].astype(np.float64)
        low, high = ends[0] + (place - before) * (ends[1] - ends[0])
        values = values.clip(low, high).astype(np.float64)
        mean = values.mean()
        values -= mean
        deviation = float(np.sqrt(values @ values / len(values)))
        return Normalization(float(low), float(high), float(mean), deviation if deviation > 1e-30 else 1.0)

    def _resample(self, indices: list[int]) -> np.ndarray:
        norm, (rows, columns) = self.normalization, self._lines
        values = self._read(indices, rows.seen, columns.seen)
        np.clip(values, norm.low, norm.high, out=values)
        values -= self._read_as(norm.low)  # so that the zero weights beyond the field of view mean the lowest intensity
        values *= self._read_as(1 / norm.deviation)
        found = np.matmul(np.matmul(rows.forward, values.astype(np.float32, copy=False)), columns.forward.T)
        found += np.float32((norm.low - norm.mean) / norm.deviation)
        return found


def _block_sums(rows: np.ndarray, block: int) -> np.ndarray:
    """Sums of `block` rows each, of the rest in the last; numpy's own reduceat takes twice as long."""
    sums = rows[::block].copy()
    for offset in range(1, block):
        more = rows[offset::block]
        sums[: len(more)] += more
    return sums


def _block_of(edges: np.ndarray, size: int) -> np.ndarray:
    """For every voxel along an axis, the block that holds it."""
    return np.searchsorted(edges, np.arange(size), side="right") - 1
