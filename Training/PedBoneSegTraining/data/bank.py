"""A domain's exams as slices on the training device: compact (float16 and uint8), read at any coordinates by a batch.

The runtime's SliceStack makes the slices, as it will at work. A volume gives the stack of its own plane; one of nearly
cubic voxels gives all three.
"""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from PedBoneSegLib.inference.slices import PLANES, SliceSettings, SliceStack, canonical_axes

from .dataset import LoadedCase


def stacks_of(volume, settings: SliceSettings) -> list[SliceStack]:
    """One stack, or one for each plane where the voxels leave the choice open."""
    spacing = sorted(volume.grid.spacing[axis] for axis, _ in canonical_axes(volume.grid.direction))
    if min(volume.grid.size) > 1 and spacing[2] < settings.isotropy * spacing[1]:
        return [SliceStack(volume, settings, force_plane=plane) for plane in PLANES]
    return [SliceStack(volume, settings)]


class Bank:
    """Slices of many stacks in one flat tensor for the images and one for the labels.

    cases         name of each case; `known` bool [cases, 1 + bones]
    of_case       for each case its stacks' numbers
    with_bone, occupied   for each stack the slices that hold bone, or any of the body
    rows, columns         of each stack's slices
    """

    def __init__(self, cases: Iterable[LoadedCase], settings: SliceSettings, device: torch.device) -> None:
        self.cases: list[str] = []
        self.of_case: list[list[int]] = []
        self.with_bone: list[np.ndarray] = []
        self.occupied: list[np.ndarray] = []
        self.plane: list[str] = []
        known, images, labels, table, offsets, fill = [], [], [], [], [], []
        start = 0
        for case in cases:
            stacks = []
            for stack in stacks_of(case.volume, replace(settings, context=0)):  # neighbors are looked up
                if not len(stack.occupied):
                    continue
                stacks.append(len(table))
                everything = range(stack.count)
                truth = stack.labels(case.labels, everything)
                pixels = np.concatenate(
                    [stack.images(everything[at : at + 32])[:, 0].astype(np.float16) for at in everything[::32]]
                )
                images.append(torch.from_numpy(pixels.reshape(-1)).to(device))
                labels.append(torch.from_numpy(truth.astype(np.uint8).reshape(-1)).to(device))
                table.append((start, stack.count, *stack.shape))
                start += pixels.size
                offsets.append(settings.neighbours(stack.spacing))
                fill.append((stack.normalization.low - stack.normalization.mean) / stack.normalization.deviation)
                self.occupied.append(stack.occupied)
                self.with_bone.append(np.flatnonzero(truth.reshape(len(truth), -1).any(1)))
                self.plane.append(stack.plane)
            if stacks:
                self.cases.append(case.name)
                self.of_case.append(stacks)
                known.append(case.known)
        self.images = torch.cat(images) if images else torch.empty(0, dtype=torch.float16, device=device)
        self.labels = torch.cat(labels) if labels else torch.empty(0, dtype=torch.uint8, device=device)
        self.known = torch.from_numpy(np.array(known, bool)).to(device)
        self.rows, self.columns = ([row[number] for row in table] for number in (2, 3))
        self._table = torch.tensor(table, dtype=torch.int64, device=device).view(-1, 4)
        self._offsets = torch.tensor(np.array(offsets), dtype=torch.int64, device=device)
        self._fill = torch.tensor(fill, dtype=torch.float32, device=device)

    def shape(self, stack: int) -> tuple[int, int]:
        """Rows and columns of a stack's slices."""
        return self.rows[stack], self.columns[stack]

    def read(self, stacks: Tensor, slices: Tensor, where: Tensor) -> tuple[Tensor, Tensor]:
        """Images float32 [n, C, rows, columns] (linear) and labels int64 [n, rows, columns] (nearest).

        `where` [n, 2, rows, columns]: rows and columns in the slice's pixels. Outside a slice images have their
        volume's lowest intensity and labels are background.
        """
        start, count, rows, columns = self._table[stacks].unbind(1)
        channel = torch.minimum((slices[:, None] + self._offsets[stacks]).clamp(min=0), count[:, None] - 1)
        base = start[:, None] + channel * (rows * columns)[:, None]  # [n, C]
        fill = self._fill[stacks][:, None, None, None]
        rows, columns = rows[:, None, None], columns[:, None, None]

        def look(flat: Tensor, base: Tensor, y: Tensor, x: Tensor, outside) -> Tensor:
            inside = (y >= 0) & (y < rows) & (x >= 0) & (x < columns)
            place = torch.where(inside, y * columns + x, 0)
            found = flat[base[:, :, None, None] + place[:, None]]
            return torch.where(inside[:, None], found, outside)

        floor = where.floor()
        part = (where - floor)[:, :, None]
        y, x = floor.long().unbind(1)
        upper, left = 1 - part[:, 0], 1 - part[:, 1]
        images = (
            upper * left * look(self.images, base, y, x, fill)
            + upper * part[:, 1] * look(self.images, base, y, x + 1, fill)
            + part[:, 0] * left * look(self.images, base, y + 1, x, fill)
            + part[:, 0] * part[:, 1] * look(self.images, base, y + 1, x + 1, fill)
        )
        y, x = (where + 0.5).floor().long().unbind(1)
        middle = base[:, base.shape[1] // 2, None]
        labels = look(self.labels, middle, y, x, torch.zeros((), dtype=torch.uint8, device=where.device))
        return images, labels[:, 0].long()
