"""The voxels of a segmentation's bones on the volume's grid, read a few slices at a time.

A clinical volume has up to fifty million voxels. Functions whose names end in -ing are generators: each step between
two yields touches at most STEP_VOXELS of them, so that the application stays alive in between, and the result is the
generator's value. Arrays are indexed [k, j, i]; an axis 0, 1 or 2 is i, j or k.
"""

import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _
from vtk.util import numpy_support

from PedBoneSegLib.anatomy import JointTable
from PedBoneSegLib.errors import BadInput
from PedBoneSegLib.volume import Grid

from .segmentations import LABELMAP, memoryOf, segmentIds, segmentOfBone
from .tasks import runToEnd
from .volumes import gridOf, ijkToRas

STEP_VOXELS = 2**20


def slabs(shape: tuple[int, ...], axis: int) -> Iterator[tuple[slice, slice, slice]]:
    """Index expressions that together cover an array: as many whole slices across `axis` as a step may touch."""
    along = 2 - axis
    thickness = max(1, STEP_VOXELS * shape[along] // max(1, int(np.prod(shape))))
    for start in range(0, shape[along], thickness):
        index = [slice(0, size) for size in shape]
        index[along] = slice(start, min(start + thickness, shape[along]))
        yield tuple(index)


def copying(source: np.ndarray, target: np.ndarray) -> Iterator[None]:
    """Copies an array into another one of the same shape."""
    for slab in slabs(target.shape, 2):
        target[slab] = source[slab]
        yield


def newImage(grid: Grid, box: tuple[slice, slice, slice]):
    """A vtkOrientedImageData of uint8 for a box [k, j, i] of the grid; its voxels are not set yet."""
    image = slicer.vtkOrientedImageData()
    k, j, i = box
    image.SetExtent(i.start, i.stop - 1, j.start, j.stop - 1, k.start, k.stop - 1)
    image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
    image.SetGeometryFromImageToWorldMatrix(ijkToRas(grid))
    return image


def findingBox(labels: np.ndarray) -> Generator[None, None, tuple[slice, slice, slice]]:
    """The smallest box that holds all voxels above 0; one voxel where there is none."""
    filled = [np.zeros(size, bool) for size in labels.shape]
    for slab in slabs(labels.shape, 2):
        inPlane = labels[slab].any(axis=0)
        filled[0][slab[0]] = labels[slab].any(axis=(1, 2))
        filled[1] |= inPlane.any(axis=1)
        filled[2] |= inPlane.any(axis=0)
        yield
    ends = [np.flatnonzero(along) for along in filled]
    return tuple(slice(int(end[0]), int(end[-1]) + 1) if len(end) else slice(0, 1) for end in ends)


# ---- reading the bones


@dataclass(frozen=True)
class BoneVoxels:
    """Where a bone is: the voxels of `image` with this value; `start` is the grid index [k, j, i] of its first one."""

    image: object  # vtkImageData
    value: int
    start: tuple[int, int, int]

    def mask(self, slab: tuple[slice, slice, slice]) -> np.ndarray:
        """The bone in a slab of the grid."""
        voxels = voxelsOf(self.image)
        mask = np.zeros([part.stop - part.start for part in slab], bool)
        inGrid = [
            slice(max(part.start, first), min(part.stop, first + size))
            for part, first, size in zip(slab, self.start, voxels.shape, strict=True)
        ]
        if all(part.start < part.stop for part in inGrid):
            here = tuple(slice(p.start - s.start, p.stop - s.start) for p, s in zip(inGrid, slab, strict=True))
            there = tuple(slice(p.start - s, p.stop - s) for p, s in zip(inGrid, self.start, strict=True))
            mask[here] = voxels[there] == self.value
        return mask


def voxelsOf(image) -> np.ndarray:
    """The voxels of a vtkImageData; writing to them writes to the image."""
    i0, i1, j0, j1, k0, k1 = image.GetExtent()
    scalars = numpy_support.vtk_to_numpy(image.GetPointData().GetScalars())
    return scalars.reshape(k1 - k0 + 1, j1 - j0 + 1, i1 - i0 + 1)


def findingBones(segmentation, table: JointTable, volume) -> Generator[None, None, dict[str, BoneVoxels]]:
    """The table's bones by name; those without a segment are left out.

    A segment on another grid, or under another transform, is resampled by Slicer: one bone per step, undivided.
    """
    bones, grid = {}, gridOf(volume)
    sameTransform = segmentation.GetTransformNodeID() == volume.GetTransformNodeID()
    for bone in table.bones:
        segmentId = segmentOfBone(segmentation, bone)
        if not segmentId:
            continue
        segment = segmentation.GetSegmentation().GetSegment(segmentId)
        image = segment.GetRepresentation(LABELMAP)
        if image is not None and sameTransform and _liesOn(image, grid):
            i0, _i1, j0, _j1, k0, _k1 = image.GetExtent()
            bones[bone.name] = BoneVoxels(image, segment.GetLabelValue(), (k0, j0, i0))
        else:
            array = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segmentId, volume)
            bones[bone.name] = BoneVoxels(_imageOf(array, grid), 1, (0, 0, 0))
            yield
    return bones


def _imageOf(array: np.ndarray, grid: Grid):
    image = newImage(grid, tuple(slice(0, size) for size in array.shape))
    voxelsOf(image)[:] = array > 0
    return image


def _liesOn(image, grid: Grid) -> bool:
    """Whether the voxels of a segment's image are voxels of the grid."""
    matrix, extent = vtk.vtkMatrix4x4(), image.GetExtent()
    image.GetImageToWorldMatrix(matrix)
    return np.allclose(*map(slicer.util.arrayFromVTKMatrix, (matrix, ijkToRas(grid))), atol=1e-5) and all(
        0 <= first <= last < size for first, last, size in zip(extent[::2], extent[1::2], grid.size, strict=True)
    )


def merging(segmentation, table: JointTable, volume) -> Generator[None, None, np.ndarray]:
    """Label values of the table on the volume's grid, uint8; where bones overlap, the later label wins."""
    labels = np.zeros(gridOf(volume).size[::-1], np.uint8)
    with unchanged(segmentation):
        bones = yield from findingBones(segmentation, table, volume)
        for slab in slabs(labels.shape, 2):
            for name, bone in bones.items():
                labels[slab][bone.mask(slab)] = table.labels[name]
            yield
    return labels


def mergedLabels(segmentation, table: JointTable, volume) -> np.ndarray:
    """`merging`, all at once."""
    return runToEnd(merging(segmentation, table, volume))


@contextmanager
def unchanged(segmentation) -> Iterator[None]:
    """Raises BadInput if the segmentation was edited while the block read it step by step."""
    before = _states(segmentation)
    yield
    if _states(segmentation) != before:
        raise BadInput(_("The segmentation was changed meanwhile"), _("do it again"))


def _states(segmentation) -> list[tuple]:
    core = segmentation.GetSegmentation()
    images = [core.GetSegment(segmentId).GetRepresentation(LABELMAP) for segmentId in segmentIds(segmentation)]
    return [(image, image.GetMTime()) for image in images if image is not None]


# ---- which slices were edited by hand


def fingerprinting(segmentation, table: JointTable, volume, axis: int) -> Generator[None, None, list[int]]:
    """One number per slice across `axis`, over all bones by name; 0 for a slice without any bone.

    Two results have the same fingerprint of a slice if and (but for a chance of 1 in 4 billion) only if all bones have
    the same voxels there.
    """
    shape = gridOf(volume).size[::-1]
    fingerprints = [0] * shape[2 - axis]
    with unchanged(segmentation):
        bones = yield from findingBones(segmentation, table, volume)
        for slab in slabs(shape, axis):
            for name in sorted(bones):
                slices = np.moveaxis(bones[name].mask(slab), 2 - axis, 0)
                for number in np.flatnonzero(slices.any(axis=(1, 2))):
                    index = slab[2 - axis].start + int(number)
                    packed = np.packbits(slices[number]).tobytes()
                    fingerprints[index] = zlib.crc32(packed, zlib.crc32(name.encode(), fingerprints[index]))
            yield
    return fingerprints


def findingEdits(segmentation, table: JointTable, volume, axis: int) -> Generator[None, None, list[int]]:
    """Slices across `axis` that were edited by hand; without a record for that axis, all that hold a bone."""
    memory = memoryOf(segmentation)
    before = memory.get("fingerprints", []) if memory.get("axis") == axis else []
    now = yield from fingerprinting(segmentation, table, volume, axis)
    return touchedSlices(before, now)


def touchedSlices(before: list[int], now: list[int]) -> list[int]:
    """Slices that were changed by hand. Without a record (another grid, or never written by us): all with a bone."""
    if len(before) != len(now):
        return [index for index, fingerprint in enumerate(now) if fingerprint]
    return [index for index, (old, new) in enumerate(zip(before, now, strict=True)) if old != new]
