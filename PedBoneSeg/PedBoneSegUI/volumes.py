"""Volume nodes: their grid, writing them to files in small steps, and what they say about the side."""

import re
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _
from vtk.util import numpy_support

from PedBoneSegLib.errors import BadInput
from PedBoneSegLib.files import whole_file
from PedBoneSegLib.formats.kinds import nifti, nrrd
from PedBoneSegLib.formats.reading import read_volume
from PedBoneSegLib.volume import Grid, Volume

CHUNK = 2 * 2**20  # bytes written per step
COMPRESSED_CHUNK = 2**19  # bytes compressed per step: zlib takes about 20 ms
DOUBT = "PedBoneSeg.Doubt"  # attribute of the volumes that hold a doubt map
_NRRD_TYPES = {"uint8": "unsigned char", "float32": "float", "float64": "double"}  # the others are called as in numpy
_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # between Slicer's world (RAS) and that of the files (LPS)


def gridOf(volume) -> Grid:
    """The volume's own grid, without the transforms of the scene."""
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    return Grid.from_affine(volume.GetImageData().GetDimensions(), _LPS @ slicer.util.arrayFromVTKMatrix(matrix))


def ijkToRas(grid: Grid) -> vtk.vtkMatrix4x4:
    return slicer.util.vtkMatrixFromArray(_LPS @ grid.affine)


def isSame(one: Grid, other: Grid) -> bool:
    return one.size == other.size and np.allclose(one.affine, other.affine, atol=1e-3)


def slowestAxis(grid: Grid) -> int:
    """The axis across which the slices were taken: the one with the coarsest spacing, the last of equal ones."""
    return int(max(range(3), key=lambda axis: (round(grid.spacing[axis], 3), axis)))


def check(volume) -> None:
    """Raises BadInput, with a sentence for the user, for a volume that cannot be segmented."""
    image = volume.GetImageData()
    if image is None or min(image.GetDimensions()) < 1 or image.GetPointData().GetScalars() is None:
        raise BadInput(_("The volume is empty"), _("choose another one"))
    if image.GetNumberOfScalarComponents() != 1:
        raise BadInput(_("The volume has several components (color?)"), _("choose one with a single value per voxel"))
    gridOf(volume).check(_("The volume"))


def isImage(node) -> bool:
    """Whether the node can be chosen as the image: a scalar volume, but no label map, color image or doubt map."""
    return node is not None and node.GetClassName() == "vtkMRMLScalarVolumeNode" and not node.GetHideFromEditors()


def shownOrFirst():
    """The image that the views show, else the first one of the scene; None if there is none."""
    for composite in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
        background = slicer.mrmlScene.GetNodeByID(composite.GetBackgroundVolumeID() or "")
        if isImage(background):
            return background
    return next(filter(isImage, slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")), None)


# ---- to files, for the worker and for training sets


def writingVolume(volume, path: Path) -> Iterator[None]:
    """Steps that write a volume's voxels as NRRD; BadInput if they change meanwhile."""
    voxels = slicer.util.arrayFromVolume(volume)
    before = _changes(volume)
    for _step in writing(voxels, gridOf(volume), path):
        yield
        if _changes(volume) != before:
            raise BadInput(_("The volume was changed while it was being copied"), _("do it again"))


def _changes(volume) -> tuple:
    image = volume.GetImageData()
    return (image, image.GetMTime(), image.GetPointData().GetScalars().GetMTime()) if image is not None else ()


def writing(array: np.ndarray, grid: Grid, path: Path) -> Iterator[None]:
    """Steps that write an array [k, j, i] as NRRD, CHUNK bytes each."""
    array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    kind, data = _NRRD_TYPES.get(array.dtype.name, array.dtype.name), memoryview(array).cast("B")
    with open(path, "wb") as stream:
        stream.write(nrrd.encode(grid, 1, {}, kind, "raw"))
        for position in range(0, len(data), CHUNK):
            stream.write(data[position : position + CHUNK])
            yield


def writingNifti(array: np.ndarray, grid: Grid, path: Path) -> Iterator[None]:
    """Steps that write an array [k, j, i] as .nii.gz: voxels and geometry, nothing else."""
    array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    data, packer = memoryview(array).cast("B"), zlib.compressobj(4, wbits=31)
    with whole_file(path) as temporary, open(temporary, "wb") as stream:
        stream.write(packer.compress(nifti.encode(grid, 1, "", array.dtype)))
        for position in range(0, len(data), COMPRESSED_CHUNK):
            stream.write(packer.compress(data[position : position + COMPRESSED_CHUNK]))
            yield
        stream.write(packer.flush())


# ---- into the scene


def addVolume(path: Path, name: str):
    """A volume of the scene with the voxels and the grid of a file or of a DICOM series' folder.

    Slicer's own reader is not used: it turns a left-handed grid into a right-handed one, and a result would no longer
    lie on the same voxels.
    """
    read = read_volume(path)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    slicer.util.updateVolumeFromArray(node, read.array.T)
    node.SetIJKToRASMatrix(ijkToRas(read.grid))
    return node


def newDoubtMap(read: Volume, name: str, volume):
    """An empty doubt map on the grid of `read`, under the volume's transform; it is not offered as an image.

    Returns the node and its voxels [k, j, i], which are to be filled.
    """
    image = vtk.vtkImageData()
    image.SetDimensions(read.grid.size)
    image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
    node = slicer.vtkMRMLScalarVolumeNode()
    node.SetName(name)
    node.SetHideFromEditors(True)
    node.SetAttribute(DOUBT, "1")
    node.SetIJKToRASMatrix(ijkToRas(read.grid))
    node.SetAndObserveImageData(image)
    node = slicer.mrmlScene.AddNode(node)
    node.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
    return node, numpy_support.vtk_to_numpy(image.GetPointData().GetScalars()).reshape(read.grid.size[::-1])


# ---- what else a volume says


def sideOf(volume) -> str | None:
    """ "left" or "right" where DICOM or the name says so, else None; never guessed from the voxels."""
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


def worldPoint(volume, ijk: tuple[float, float, float]) -> tuple[float, float, float]:
    """A voxel position of the volume in world RAS millimeters, parent transforms applied."""
    world = [0.0, 0.0, 0.0]
    volume.TransformPointToWorld((_LPS @ gridOf(volume).affine @ (*ijk, 1.0))[:3], world)
    return tuple(world)
