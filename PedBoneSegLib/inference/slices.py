"""A volume as the stack of normalized 2-D slices that a network expects, and the way back to the volume's own voxels.

Inference and training both load their images through `SliceStack`. Nothing here is random and nothing depends on the
order in which slices are asked for.

Axes. A volume's array is [i, j, k] in the file's own order. Permutation and flips alone (views, never copies) turn it
into [slice, row, column]; nothing is rotated, an oblique volume keeps its slices. The slice, row and column axes run:

    sagittal    right → left           superior → inferior     anterior → posterior
    coronal     anterior → posterior   superior → inferior     right → left
    axial       inferior → superior    anterior → posterior    right → left
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Protocol

import numpy as np
from scipy import ndimage

from ..models.slice_settings import SliceSettings
from ..volume import Grid
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
    """Intensities are clipped to [low, high], then become (value − mean) / deviation. All four are intensities of the
    volume."""

    low: float
    high: float
    mean: float
    deviation: float  # 1 if the body has a single intensity


class ImageOnGrid(Protocol):
    """What a stack needs of a volume."""

    @property
    def array(self) -> np.ndarray: ...

    @property
    def grid(self) -> Grid: ...


def canonical_axes(direction: Sequence[Sequence[float]]) -> tuple[tuple[int, int], ...]:
    """For each of left, posterior, superior: the array axis that is nearest to it and the sense (+1 or −1)."""
    cosines = np.asarray(direction, float)
    best = max(permutations(range(3)), key=lambda order: sum(abs(cosines[w, a]) for w, a in enumerate(order)))
    return tuple((axis, 1 if cosines[world, axis] >= 0 else -1) for world, axis in enumerate(best))


def choose_plane(grid: Grid, settings: SliceSettings) -> str:
    """The plane across the coarsest axis, or the settings' plane if the voxels are nearly isotropic.

    An axis with a single voxel is always sliced across: in any other plane an image would be a line.
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

    def __init__(self, volume: ImageOnGrid, settings: SliceSettings, *, force_plane: str | None = None) -> None:
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
        body, edges = self._find_body()
        self.normalization = self._normalization_of(body, edges)
        self.occupied = np.flatnonzero(np.any(body, axis=(1, 2))[_block_of(edges[0], self.count)])
        axes, self.field_cut = list[SliceAxis](), False
        for axis, spacing in enumerate(self.in_plane, start=1):
            size = self._view.shape[axis]
            hit = np.flatnonzero(np.any(body, axis=tuple({0, 1, 2} - {axis}))[_block_of(edges[axis], size)])
            margin = int(np.ceil(settings.margin_mm / spacing))
            start, stop = (max(0, hit[0] - margin), min(size, hit[-1] + 1 + margin)) if len(hit) else (0, size)
            longest = max(1, int(settings.field_mm / spacing))
            if stop - start > longest:
                self.field_cut = True
                start += (stop - start - longest) // 2
                stop = start + longest
            axes.append(SliceAxis(size, spacing, int(start), int(stop), settings.pixel_mm))
        self._rows, self._columns = rows, columns = axes
        self.shape = (rows.count, columns.count)
        self.crop = (slice(rows.start, rows.stop), slice(columns.start, columns.stop))
        self.window = (slice(rows.pad, rows.pad + rows.used), slice(columns.pad, columns.pad + columns.used))
        self.scale = (rows.ratio, columns.ratio)
        self._resampled: dict[int, np.ndarray] = {}  # the latest slices, which neighbors and other domains need again

    def oriented(self, array: np.ndarray) -> np.ndarray:
        """An [i, j, k] array on the volume's grid as a view [slice, row, column]. Writing to it writes to the array."""
        return array.transpose(self._order)[self._flip]

    def own_index(self, index: int) -> int:
        """The voxel index along `axis` of slice `index`."""
        return int(index) if self.sense > 0 else self.count - 1 - int(index)

    def images(self, indices: Iterable[int]) -> np.ndarray:
        """Normalized float32 [n, 2·context + 1, rows, columns]. A slice's channels start with its lowest neighbor.

        Beyond the ends, the first or last slice is its own neighbor. Outside the field of view is the lowest intensity.
        """
        chosen = np.asarray(list(indices), int)
        wanted = np.clip(chosen[:, None] + self.settings.neighbours(self.spacing), 0, self.count - 1)
        images = np.empty((*wanted.shape, *self.shape), np.float32)
        for start in range(0, len(wanted), CHUNK):
            part = wanted[start : start + CHUNK]
            missing = [int(index) for index in np.unique(part) if index not in self._resampled]
            self._resampled |= dict(zip(missing, self._resample(missing), strict=True))
            for place in np.ndindex(part.shape):
                images[start:][place] = self._resampled[int(part[place])]
            for index in list(self._resampled)[: -max(CHUNK, KEPT_PIXELS // (self.shape[0] * self.shape[1]))]:
                del self._resampled[index]
        return images

    def labels(self, array: np.ndarray, indices: Iterable[int]) -> np.ndarray:
        """The targets of training: a label map `array` [i, j, k] at the network's pixels, [n, rows, columns] of the
        array's type. Each pixel gets the label that fills most of it; outside the field of view it is 0."""
        chosen = self.oriented(array)[np.asarray(list(indices), int)]
        targets = np.empty((len(chosen), *self.shape), array.dtype)
        for target, label_map in zip(targets, chosen, strict=True):
            target[...] = largest_share(label_map, self._rows, self._columns)
        return targets

    def place(self, slices: np.ndarray, indices: Iterable[int], into: np.ndarray) -> None:
        """Writes [n, crop rows, crop columns] at `indices` into the [i, j, k] array `into`, and nothing else."""
        target = self.oriented(into)
        for pixels, index in zip(slices, indices, strict=True):
            target[index][self.crop] = pixels

    def _inspect(self) -> "tuple[type[np.float32] | type[np.float64], float, int]":
        """The type to calculate in, the value that non-finite voxels are read as, and the number of these voxels."""
        dtype = self._view.dtype
        exact = dtype.itemsize <= 2 or dtype == np.float32  # float32 holds these values exactly
        read_as = np.float32 if exact else np.float64
        bad, lowest = 0, np.inf
        for start in range(0, self.count if dtype.kind == "f" else 0, CHUNK):
            part = self._view[start : start + CHUNK]
            finite = np.isfinite(part)
            bad += part.size - int(np.count_nonzero(finite))
            lowest = min(lowest, float(part.min() if finite.all() else np.min(part, where=finite, initial=np.inf)))
        return read_as, (lowest if np.isfinite(lowest) else 0.0), bad

    def _read(self, indices: list[int] | slice, rows: slice = slice(None), columns: slice = slice(None)) -> np.ndarray:
        """Slices as a contiguous array of the type to calculate in, without non-finite values."""
        values: np.ndarray = np.array(self._view[indices, rows, columns], self._read_as, order="C")
        if self.non_finite:
            values[~np.isfinite(values)] = self._fill
        return values

    def _find_body(self) -> tuple[np.ndarray, list[np.ndarray]]:
        """The body on blocks of about BLOCK_MM as a bool array, and along each axis the first voxel of every block.

        A block belongs to the body if its mean is above a quarter of the typical signal over the darkest blocks. Parts
        smaller than a tenth of the largest are dropped. Holes within a slice are filled, since cortical bone has no
        signal. The result does not depend on the gain or offset of the intensities.
        """
        sizes, spacing = self._view.shape, (self.spacing, *self.in_plane)
        blocks = [max(1, min(round(BLOCK_MM / mm), size // 16)) for mm, size in zip(spacing, sizes, strict=True)]
        edges = [np.arange(0, size, block) for size, block in zip(sizes, blocks, strict=True)]
        coarse = np.empty([len(starts) for starts in edges])
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
        body: np.ndarray = np.asarray(coarse > typical / 4)
        parts, number = ndimage.label(body)
        volumes = np.bincount(parts.ravel())[1:]
        kept = np.concatenate([[False], volumes * 10 >= volumes.max(initial=0)])
        body = kept[parts] if number else body
        for slice_ in body:
            slice_ |= ndimage.binary_fill_holes(slice_)
        return body, edges

    def _normalization_of(self, body: np.ndarray, edges: list[np.ndarray]) -> Normalization:
        """Robust percentiles (0.5 and 99.5), mean and deviation inside the body, on evenly spaced voxels of it."""
        steps = [max(1, int(starts[1] - starts[0]) // 2) if len(starts) > 1 else 1 for starts in edges]
        picks = [np.arange(0, size, step) for size, step in zip(self._view.shape, steps, strict=True)]
        where = [np.searchsorted(edge, pick, side="right") - 1 for edge, pick in zip(edges, picks, strict=True)]
        parts: list[np.ndarray] = [np.empty(0, self._read_as)]
        for pick, block in zip(picks[0], where[0], strict=True):
            if body[block].any():
                values = self._read(slice(pick, pick + 1), slice(None, None, steps[1]), slice(None, None, steps[2]))[0]
                parts.append(values[body[block][where[1]][:, where[2]]])
        values = np.sort(np.concatenate(parts))  # much faster than numpy.percentile
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
        norm, rows, columns = self.normalization, self._rows, self._columns
        values = self._read(indices, rows.seen, columns.seen)
        np.clip(values, norm.low, norm.high, out=values)
        values -= self._read_as(norm.low)  # so that the zero weights beyond the field of view mean the lowest intensity
        values *= self._read_as(1 / norm.deviation)
        values = values.astype(np.float32, copy=False)
        pixels: np.ndarray = np.matmul(np.matmul(rows.forward, values), columns.forward.T)
        pixels += np.float32((norm.low - norm.mean) / norm.deviation)
        return pixels


def _block_sums(rows: np.ndarray, block: int) -> np.ndarray:
    """Sums of `block` rows each, of the rest in the last; numpy.add.reduceat takes twice as long."""
    sums = rows[::block].copy()
    for offset in range(1, block):
        more = rows[offset::block]
        sums[: len(more)] += more
    return sums


def _block_of(edges: np.ndarray, size: int) -> np.ndarray:
    """For every voxel along an axis, the block that holds it."""
    return np.searchsorted(edges, np.arange(size), side="right") - 1
