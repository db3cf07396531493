"""The grid of one exam and smooth random fields on it.

Four levels share one field of view: 0 is the final grid, 1 has half its resolution (bones, muscles), 2 a quarter
(outline of the limb), 3 an eighth (bones as they shape the outline). A point is (lateral, anterior, superior) in
millimeters from the joint's center; array axes run lateral, *posterior*, superior, so that the finished array has the
axes L, P, S of a left limb.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from .draw import lattice

Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Space:
    size: tuple[int, int, int]  # voxels, each a multiple of 8
    spacing: float  # mm, isotropic
    center: tuple[float, float, float]  # the point in the middle of the field: lateral, anterior, superior
    device: torch.device

    def shape(self, level: int) -> tuple[int, int, int]:
        return tuple(n >> level for n in self.size)

    def axis(self, index: int, level: int) -> torch.Tensor:
        n, step = self.size[index] >> level, self.spacing * 2**level
        positions = (torch.arange(n, device=self.device, dtype=torch.float32) - (n - 1) / 2) * step
        return self.center[index] + (-positions if index == 1 else positions)

    def points(self, level: int) -> torch.Tensor:
        """[3, x, y, z] coordinates of the voxel centers."""
        return torch.stack(torch.meshgrid(*(self.axis(i, level) for i in range(3)), indexing="ij"))

    def box(self, low, high, level: int) -> Box:
        """Smallest box of voxels that holds the points between two corners; empty (0, 0) where it misses the field."""
        slices = []
        for i in range(3):
            n, step = self.size[i] >> level, self.spacing * 2**level
            ends = sorted(
                ((c - self.center[i]) * (-1 if i == 1 else 1)) / step + (n - 1) / 2 for c in (low[i], high[i])
            )
            start = min(max(int(np.floor(ends[0])), 0), n)
            slices.append(slice(start, max(min(int(np.ceil(ends[1])) + 1, n), start)))
        return tuple(slices)

    def noise(self, seed: int, cell: float | tuple[float, float, float], level: int, channels: int = 1) -> torch.Tensor:
        """[channels, x, y, z] smooth noise, about ±1, whose bumps are some `cell` millimeters wide (cubic B-splines).

        The lattice hangs in the field of view, not in the body.
        """
        cells = (cell,) * 3 if isinstance(cell, int | float) else cell
        extents = [n * self.spacing for n in self.size]
        counts = [max(int(np.ceil(e / c)), 1) + 3 for e, c in zip(extents, cells, strict=True)]
        field = torch.from_numpy(lattice(seed, (channels, *counts))).to(self.device)
        for i in (2, 1, 0):  # the finest sums last would cost more: contract the small axes first
            n = self.size[i] >> level
            where = (torch.arange(n, device=self.device, dtype=torch.float32) + 0.5) / n * (counts[i] - 3)
            field = torch.movedim(torch.movedim(field, i + 1, -1) @ _bspline(where, counts[i]), -1, i + 1)
        return field * 1.6


def _bspline(where: torch.Tensor, count: int) -> torch.Tensor:
    """[count, len(where)] cubic B-spline weights; knot k's bump is centered at k - 1."""
    t = (where[None] - (torch.arange(count, device=where.device, dtype=torch.float32)[:, None] - 1)).abs()
    near = 2 / 3 - t**2 + t**3 / 2
    far = (2 - t).clamp(min=0) ** 3 / 6
    return torch.where(t < 1, near, far)


def finer(field: torch.Tensor, factor: int = 2) -> torch.Tensor:
    """Trilinear refinement of [..., x, y, z] by a whole factor, cells aligned."""
    shaped = field.reshape(-1, 1, *field.shape[-3:]) if field.dim() > 3 else field[None, None]
    fine = F.interpolate(shaped, scale_factor=factor, mode="trilinear", align_corners=False)
    return fine.reshape(*field.shape[:-3], *fine.shape[-3:])


def fine_box(box: Box) -> Box:
    return tuple(slice(2 * s.start, 2 * s.stop) for s in box)
