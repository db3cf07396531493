"""A volume of the scene as a file for the worker, and back: its grid, transforms, sequences, the side that it tells."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _

from PedBoneSegLib.errors import BadInput
from PedBoneSegLib.formats.kinds import nrrd
from PedBoneSegLib.formats.reading import read_volume
from PedBoneSegLib.volume import Grid

CHUNK = 2 * 2**20  # bytes written at once, so that the application never stutters
_NRRD_TYPES = {"uint8": "unsigned char", "float32": "float", "float64": "double"}  # the others are called as in numpy
_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # from Slicer's world to the files', and back


def gridOf(volume) -> Grid:
    """The volume's own grid, transforms of the scene left out."""
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    return Grid.from_affine(volume.GetImageData().GetDimensions(), _LPS @ slicer.util.arrayFromVTKMatrix(matrix))


def ijkToRas(grid: Grid) -> vtk.vtkMatrix4x4:
    return slicer.util.vtkMatrixFromArray(_LPS @ grid.affine)


def isSame(one: Grid, other: Grid) -> bool:
    return one.size == other.size and np.allclose(one.affine, other.affine, atol=1e-3)


def slowestAxis(grid: Grid) -> int:
    """The axis across which the slices were taken: the one with the coarsest spacing, the last among equals."""
    return int(max(range(3), key=lambda axis: (round(grid.spacing[axis], 3), axis)))


def check(volume) -> None:
    """Raises BadInput, with a sentence for the user, for a volume that cannot be segmented."""
    image = volume.GetImageData()
    if image is None or min(image.GetDimensions()) < 1 or image.GetPointData().GetScalars() is None:
        raise BadInput(_("The volume is empty"), _("choose another one"))
    if image.GetNumberOfScalarComponents() != 1:
        raise BadInput(_("The volume has several components (color?)"), _("choose one with a single value per voxel"))
    gridOf(volume).check(_("The volume"))


def writing(array: np.ndarray, grid: Grid, path: Path) -> Iterator[None]:
    """Writes an array [k, j, i] as NRRD, a chunk a step."""
    array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    kind, data = _NRRD_TYPES.get(array.dtype.name, array.dtype.name), memoryview(array).cast("B")
    with open(path, "wb") as stream:
        stream.write(nrrd.encode(grid, 1, {}, kind, "raw"))
        for position in range(0, len(data), CHUNK):
            stream.write(data[position : position + CHUNK])
            yield


def addVolume(path: Path, name: str):
    """A volume of the scene with the voxels and the grid of a file or of a DICOM series' folder.

    Not by Slicer's own reader: it turns a left-handed grid into a right-handed one, and a result would no longer lie
    voxel on voxel.
    """
    read = read_volume(path)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    slicer.util.updateVolumeFromArray(node, read.array.T)
    node.SetIJKToRASMatrix(ijkToRas(read.grid))
    return node


def sideOf(volume) -> str | None:
    """ "left" or "right" where DICOM or the name says so, None where neither does; never guessed from voxels."""
    uids = (volume.GetAttribute("DICOM.instanceUIDs") or "").split()
    if uids and getattr(slicer, "dicomDatabase", None):
        for tag in ("0020,0060", "0020,0062"):  # Laterality, Image Laterality
            value = slicer.dicomDatabase.instanceValue(uids[0], tag).strip().upper()
            if value in ("L", "R"):
                return {"L": "left", "R": "right"}[value]
    words = set(re.split(r"[^a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", volume.GetName() or "").lower()))
    sides = words & {"left", "right"}
    return sides.pop() if len(sides) == 1 else None


def sequenceItem(volume) -> str:
    """ "item 3" where the volume shows an item of a sequence, else an empty text."""
    module = getattr(slicer.modules, "sequences", None)
    browser = module.logic().GetFirstBrowserNodeForProxyNode(volume) if module else None
    return _("item {n}").format(n=browser.GetSelectedItemNumber() + 1) if browser else ""


def sliceCenter(volume, axis: int, index: int) -> tuple[float, float, float]:
    """The middle of a slice of the volume's own grid in world RAS millimeters, parent transforms applied."""
    grid = gridOf(volume)
    middle = [(size - 1) / 2 for size in grid.size] + [1.0]
    middle[axis] = index
    world = [0.0, 0.0, 0.0]
    volume.TransformPointToWorld((_LPS @ grid.affine @ middle)[:3], world)
    return tuple(world)
