"""Where the slices lie in the anatomy, and the sampling of signal and labels through their real thickness.

**A voxel's label is the bone (or the background) that fills the largest share of it**, over the slice's thickness and
with the anatomy's own voxels smoothed trilinearly: what a careful reader would draw on that slice.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
import torch.nn.functional as F

from PedBoneSegLib.volume import Grid

from ..anatomy.draw import Draw
from ..anatomy.model import OTHER_BONE
from .settings import RenderSettings

# plane → the world axis (0 left, 1 posterior, 2 superior) and sense of columns (i), rows (j) and slices (k)
AXES = {
    "sagittal": ((1, 1), (2, -1), (0, 1)),
    "coronal": ((0, 1), (2, -1), (1, 1)),
    "axial": ((0, 1), (1, 1), (2, 1)),
}
PIXEL_MM, SLICE_MM, ISOTROPIC_MM = (0.3, 1.0), (1.5, 5.0), (0.6, 1.2)
CHUNK = 6  # slices sampled at once: what stays in the cache


@dataclass(frozen=True)
class Acquisition:
    """A protocol, JSON-able. Lengths are mm, angles degrees; the trims are shares of the body's extent."""

    plane: str
    isotropic: bool
    pixel_mm: float
    slice_mm: float  # from center to center
    thickness_mm: float
    tilt: tuple[float, float, float]  # about the left, posterior and superior axes
    trims: tuple[tuple[float, float], ...]  # per world axis, low and high end: positive is cut off, negative added
    reversed_slices: bool
    phase_rows: bool  # the phase axis runs down the rows
    blank: tuple[tuple[float, float], ...]  # half planes without data: direction in the slice, share of its extent

    def to_dict(self) -> dict:
        return asdict(self)


def draw_acquisition(
    key: tuple, settings: RenderSettings, planes: Sequence[str] = tuple(AXES), pixel_mm: tuple[float, float] = PIXEL_MM
) -> Acquisition:
    """The protocol of the exam that `key` names, in one of `planes`, with pixels of `pixel_mm` (low, high)."""
    random = Draw(*key, "acquisition")
    plane = random.choice(list(planes))
    isotropic = random.chance(0.12)
    if isotropic:
        pixel = max(pixel_mm[0], random.uniform(*ISOTROPIC_MM))
        slice_mm = thickness = pixel * random.uniform(1.0, 1.4)
    else:
        pixel = random.uniform(*pixel_mm)
        slice_mm = random.uniform(0, 1) ** 1.3 * (SLICE_MM[1] - SLICE_MM[0]) + SLICE_MM[0]
        thickness = slice_mm * random.uniform(0.7, 1.0)
    trims = [[random.uniform(-0.2, 0.04), random.uniform(-0.2, 0.04)] for _ in range(3)]
    across = AXES[plane][2][0]
    trims[across] = [random.uniform(-0.02, 0.12), random.uniform(-0.02, 0.12)]
    tilt, cut, padding = (
        getattr(settings, name).draw(Draw(*key, name)) for name in ("oblique", "field_cut", "padding")
    )
    detail = Draw(*key, "geometry")
    angles = tuple((tilt or 0.0) * detail.uniform(-1, 1) for _ in range(3))
    sides = [(int(detail.uniform(0, 3)), int(detail.uniform(0, 2))) for _ in range(2)]
    for axis, end in sides[: 1 + detail.chance(0.3)]:
        if cut is not None:
            trims[axis][end] = cut
    corners = [(detail.uniform(0, 360), (padding or 0.0) * detail.uniform(0.3, 1)) for _ in range(3)]
    blank = corners[: int(detail.uniform(1, 4))] if padding is not None else []
    return Acquisition(
        plane,
        isotropic,
        round(pixel, 4),
        round(slice_mm, 4),
        round(thickness, 4),
        angles,
        tuple(map(tuple, trims)),
        random.chance(0.5),
        random.chance(0.5),
        tuple(blank),
    )


@dataclass(frozen=True)
class Layout:
    """A protocol put on one anatomy. World: LPS mm, 0 in the middle of the anatomy's array.

    `size` is (slices, rows, columns); the columns of `direction` are the unit vectors of slices, rows and columns.
    """

    size: tuple[int, int, int]
    spacing: tuple[float, float, float]
    center: np.ndarray
    direction: np.ndarray
    thickness_mm: float

    @property
    def grid(self) -> Grid:
        """The grid of the finished volume, [i, j, k] = [column, row, slice]."""
        direction, spacing = self.direction[:, ::-1], self.spacing[::-1]
        size = self.size[::-1]
        first = self.center - direction @ ((np.array(size) - 1) / 2 * np.array(spacing))
        rows = tuple(tuple(float(one) for one in row) for row in direction)
        return Grid(size, spacing, tuple(float(one) for one in first), rows)


def lay_out(acquisition: Acquisition, anatomy, most_voxels: int) -> Layout:
    """Fits the protocol to the body; where a field would hold more than `most_voxels`, pixels grow.

    Where the body leaves the anatomy's array (the shaft of a limb, the trunk) a field ends inside it, as a scanner's
    images never show the end of a leg.
    """
    low, high = _body(anatomy)
    edges = np.empty((3, 2))
    extent = high - low
    half = np.array(anatomy.tissue.shape) / 2 * anatomy.spacing_mm
    for axis, (before, after) in enumerate(acquisition.trims):
        at_border = (end < 1.5 * anatomy.spacing_mm for end in (low[axis] + half[axis], half[axis] - high[axis]))
        before, after = (
            abs(trim) * 0.6 if trim < 0 and border else trim
            for trim, border in zip((before, after), at_border, strict=True)
        )
        edges[axis] = low[axis] + before * extent[axis], high[axis] - after * extent[axis]
    (column, _), (row, row_sense), (across, across_sense) = AXES[acquisition.plane]
    lengths = edges[:, 1] - edges[:, 0]
    pixel, step = acquisition.pixel_mm, acquisition.slice_mm
    slices = max(3, int(lengths[across] / step))
    if acquisition.isotropic:
        factor = max(1.0, (slices * lengths[row] * lengths[column] / pixel**2 / most_voxels) ** (1 / 3))
        pixel, step = pixel * factor, step * factor
        slices = max(3, int(lengths[across] / step))
    else:
        pixel *= max(1.0, (slices * lengths[row] * lengths[column] / pixel**2 / most_voxels) ** 0.5)
    rows, columns = (max(32, 8 * round(lengths[axis] / pixel / 8)) for axis in (row, column))
    across_sense = -across_sense if acquisition.reversed_slices else across_sense
    senses = {across: across_sense, row: row_sense, column: 1}
    axes = np.zeros((3, 3))
    for position, axis in enumerate((across, row, column)):
        axes[axis, position] = senses[axis]
    thickness = acquisition.thickness_mm * step / acquisition.slice_mm
    return Layout(
        (slices, rows, columns), (step, pixel, pixel), edges.mean(axis=1), _rotation(acquisition.tilt) @ axes, thickness
    )


def _body(anatomy) -> tuple[np.ndarray, np.ndarray]:
    """Low and high corner of everything that is not air, mm."""
    step = 2
    solid = anatomy.tissue[::step, ::step, ::step] > 0
    low, high = np.empty(3), np.empty(3)
    for axis in range(3):
        others = [other for other in range(3) if other != axis]
        found = torch.nonzero(solid.any(dim=others[1]).any(dim=others[0])).ravel()
        count = anatomy.tissue.shape[axis]
        ends = (int(found[0]) * step, min((int(found[-1]) + 1) * step, count)) if len(found) else (0, count)
        low[axis], high[axis] = ((end - count / 2) * anatomy.spacing_mm for end in ends)
    return low, high


def _rotation(degrees: Sequence[float]) -> np.ndarray:
    matrix = np.eye(3)
    for axis, angle in enumerate(np.radians(degrees)):
        first, second = (axis + 1) % 3, (axis + 2) % 3
        turn = np.eye(3)
        turn[first, first] = turn[second, second] = np.cos(angle)
        turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    return matrix


def covered(layout: Layout, anatomy, extra_rows: tuple[int, int] = (0, 0)) -> tuple[slice, slice, slice]:
    """The box of the anatomy's voxels that the layout can touch."""
    reach = (np.array(layout.size) / 2 + (1, *extra_rows)) * np.array(layout.spacing)
    around = np.abs(layout.direction) @ reach
    middle = np.array(anatomy.tissue.shape) / 2
    box = []
    for axis, count in enumerate(anatomy.tissue.shape):
        low, high = (
            (layout.center[axis] + side * around[axis]) / anatomy.spacing_mm + middle[axis] for side in (-1, 1)
        )
        start = int(np.clip(np.floor(low) - 2, 0, count - 2))
        box.append(slice(start, int(np.clip(np.ceil(high) + 2, start + 2, count))))
    return tuple(box)


def sample(
    layout: Layout, anatomy, signal: torch.Tensor, box: tuple[slice, ...], extra: tuple[int, int] = (0, 0)
) -> tuple[torch.Tensor, torch.Tensor]:
    """Signal [channels, slices, rows, columns] and labels uint8 [slices, rows, columns] of the layout.

    `signal` is given inside `box`. `extra` rows and columns are sampled on both sides, for what folds over.
    """
    device = signal.device
    bones = anatomy.bones[box]
    known = [label for label in range(1, len(anatomy.names) + 1)]
    assert max(known, default=0) < OTHER_BONE
    channels = torch.cat([signal, torch.stack([bones == label for label in known]).to(signal.dtype)])[None]
    shape = np.array(bones.shape)
    offset = np.array(anatomy.tissue.shape) / 2 - 0.5 - np.array([part.start for part in box])

    def normalized(vector: np.ndarray, place: bool) -> torch.Tensor:
        """World mm → grid_sample's −1 … 1 in its order (z, y, x), which is that of the last array axis first."""
        voxel = vector / anatomy.spacing_mm + (offset if place else 0)
        scaled = voxel * 2 / (shape - 1) - (1 if place else 0)
        return torch.from_numpy(scaled[::-1].copy()).float().to(device)

    def line(count: int, axis: int) -> torch.Tensor:
        along = torch.arange(count, device=device, dtype=torch.float32) - (count - 1) / 2
        return along[:, None] * normalized(layout.direction[:, axis] * layout.spacing[axis], False)

    slices, rows, columns = layout.size
    wide = (rows + 2 * extra[0], columns + 2 * extra[1])
    plane = line(wide[0], 1)[:, None] + line(wide[1], 2) + normalized(layout.center, True)
    starts = line(slices, 0)
    passes = int(np.clip(np.ceil(layout.thickness_mm / 1.1), 1, 5))
    normal = normalized(layout.direction[:, 0] * layout.thickness_mm, False)
    out = torch.empty(signal.shape[0], slices, *wide, device=device)
    labels = torch.empty(slices, rows, columns, dtype=torch.uint8, device=device)
    inner = (slice(extra[0], extra[0] + rows), slice(extra[1], extra[1] + columns))
    for first in range(0, slices, CHUNK):
        part = starts[first : first + CHUNK]
        total = 0
        for one in range(passes):
            points = plane + (part + normal * ((one + 0.5) / passes - 0.5))[:, None, None]
            total = total + F.grid_sample(channels, points[None], align_corners=True)[0]
        total /= passes
        out[:, first : first + CHUNK] = total[: signal.shape[0]]
        shares = total[signal.shape[0] :, :, inner[0], inner[1]]
        best, which = shares.max(dim=0)
        rest = 1 - shares.sum(dim=0)
        labels[first : first + CHUNK] = torch.where(best > rest, which + 1, 0).to(torch.uint8)
    return out, labels


def blank_mask(acquisition: Acquisition, size: tuple[int, int], device: torch.device) -> torch.Tensor:
    """True [rows, columns] where the protocol has no data."""
    rows, columns = (torch.linspace(-1, 1, count, device=device) for count in size)
    mask = torch.zeros(size, dtype=torch.bool, device=device)
    for angle, share in acquisition.blank:
        across = np.cos(np.radians(angle)), np.sin(np.radians(angle))
        reach = abs(across[0]) + abs(across[1])  # to the corner that lies furthest
        mask |= (rows[:, None] * across[0] + columns * across[1]) > reach * (1 - 2 * share)
    return mask
