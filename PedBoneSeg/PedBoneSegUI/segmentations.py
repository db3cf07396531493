"""Labels of the worker as segments of the scene: names, colors, terminology, side, geometry, status, memory.

What the software knows of a segmentation (joint, side, model, review, fingerprints) is one JSON text in an attribute
of its node: it follows the segmentation and is saved with the scene.
"""

import json
import zlib
from collections.abc import Mapping

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _
from vtk.util import numpy_support

from PedBoneSegLib.anatomy import Bone, JointTable, display_name
from PedBoneSegLib.formats.segments import BONE_TAG, terminology
from PedBoneSegLib.volume import Grid

from .images import gridOf, ijkToRas, sequenceItem, slowestAxis

MEMORY = "PedBoneSeg.Memory"  # attribute of the segmentation node
DOUBT_ROLE = "PedBoneSeg.Doubt"
LABELMAP = "Binary labelmap"


# ---- what is known of a segmentation


def memoryOf(segmentation) -> dict:
    try:
        memory = json.loads((segmentation.GetAttribute(MEMORY) or "{}") if segmentation else "{}")
    except ValueError:  # a scene edited by hand
        memory = {}
    return memory if isinstance(memory, dict) else {}


def remember(segmentation, **items) -> None:
    segmentation.SetAttribute(MEMORY, json.dumps({**memoryOf(segmentation), **items}, ensure_ascii=False))


def tableOf(segmentation) -> JointTable | None:
    """The label table that the segmentation was written with; None if the software never wrote it."""
    memory = memoryOf(segmentation)
    return JointTable.from_csv(memory["table"], memory["joint"]) if memory.get("table") else None


def volumeOf(segmentation):
    """The volume that it was made from: what review, measuring and DICOM export refer to."""
    role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
    return segmentation.GetNodeReference(role) if segmentation else None


def axisOf(segmentation, volume) -> int:
    """The axis that the result's slices are counted on; without a result the volume's slowest."""
    axis = memoryOf(segmentation).get("axis")
    return axis if axis in (0, 1, 2) else slowestAxis(gridOf(volume))


def resultName(volume) -> str:
    return " ".join(filter(None, (volume.GetName(), sequenceItem(volume), _("bones"))))


# ---- segments


def segmentIds(segmentation) -> list[str]:
    core = segmentation.GetSegmentation()
    return [core.GetNthSegmentID(index) for index in range(core.GetNumberOfSegments())]


def segmentOfBone(segmentation, bone: Bone) -> str:
    """The segment that is this bone: by our tag, else by name, with or without a side; empty if there is none."""
    names = {display_name(bone, side).lower() for side in (None, "left", "right")}
    byName = ""
    for segmentId in segmentIds(segmentation):
        segment = segmentation.GetSegmentation().GetSegment(segmentId)
        tag = vtk.reference("")
        if segment.GetTag(BONE_TAG, tag):
            if str(tag) == bone.name:
                return segmentId
        elif segment.GetName().strip().lower() in names:
            byName = byName or segmentId
    return byName


def addBone(segmentation, bone: Bone, side: str | None, image, value: int) -> str:
    """Adds the bone as the voxels of `image` that have that value; returns the segment."""
    segment = slicer.vtkSegment()
    segment.SetName(display_name(bone, side))
    segment.SetColor(*(channel / 255 for channel in bone.color))
    segment.SetTerminology(terminology(bone, side))
    segment.SetTag(BONE_TAG, bone.name)
    segment.SetLabelValue(value)
    segment.AddRepresentation(LABELMAP, image)
    segmentId = segmentation.GetSegmentation().GenerateUniqueSegmentID(bone.name)
    segmentation.GetSegmentation().AddSegment(segment, segmentId)
    return segmentId


def setStatus(segmentation, table: JointTable, finished: bool) -> None:
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    for segmentId in filter(None, (segmentOfBone(segmentation, bone) for bone in table.bones)):
        segment = segmentation.GetSegmentation().GetSegment(segmentId)
        logic.SetSegmentStatus(segment, logic.Completed if finished else logic.InProgress)


def loadTerminology(path: str) -> None:
    """Makes our bones choosable in the terminology selector; a damaged installation without that module is no error."""
    module = getattr(slicer.modules, "terminologies", None)
    if module is not None:
        module.logic().LoadTerminologyFromFile(path)


# ---- voxels out


def boneMask(segmentation, segmentId: str, volume) -> np.ndarray:
    """A segment as a mask [k, j, i] on the volume's grid, transforms of both applied."""
    segment, grid = segmentation.GetSegmentation().GetSegment(segmentId), gridOf(volume)
    image = segment.GetRepresentation(LABELMAP)
    if image is None or not _liesOn(image, grid) or segmentation.GetTransformNodeID() != volume.GetTransformNodeID():
        return slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segmentId, volume) > 0  # resamples, slowly
    (i0, i1, j0, j1, k0, k1), mask = image.GetExtent(), np.zeros(grid.size[::-1], bool)
    voxels = numpy_support.vtk_to_numpy(image.GetPointData().GetScalars())
    voxels = voxels.reshape(k1 - k0 + 1, j1 - j0 + 1, i1 - i0 + 1)
    mask[k0 : k1 + 1, j0 : j1 + 1, i0 : i1 + 1] = voxels == segment.GetLabelValue()
    return mask


def _liesOn(image, grid: Grid) -> bool:
    """Whether the voxels of a segment's image are voxels of the grid."""
    matrix, extent = vtk.vtkMatrix4x4(), image.GetExtent()
    image.GetImageToWorldMatrix(matrix)
    return np.allclose(*map(slicer.util.arrayFromVTKMatrix, (matrix, ijkToRas(grid))), atol=1e-5) and all(
        0 <= first <= last < size for first, last, size in zip(extent[::2], extent[1::2], grid.size, strict=True)
    )


def boneMasks(segmentation, table: JointTable, volume) -> dict[str, np.ndarray]:
    """The table's bones as masks; those without a segment are left out."""
    found = {bone.name: segmentOfBone(segmentation, bone) for bone in table.bones}
    return {name: boneMask(segmentation, segmentId, volume) for name, segmentId in found.items() if segmentId}


def mergedLabels(segmentation, table: JointTable, volume) -> np.ndarray:
    """Label values [k, j, i] of the table on the volume's grid; where bones overlap, the later label wins."""
    labels = np.zeros(gridOf(volume).size[::-1], np.uint8)
    for name, mask in boneMasks(segmentation, table, volume).items():
        labels[mask] = table.labels[name]
    return labels


# ---- which slices a hand has touched


def editedSlices(segmentation, table: JointTable, volume, axis: int) -> list[int]:
    """Slices across `axis` that hold work of a hand; without a record for that axis all that hold a bone."""
    memory = memoryOf(segmentation)
    before = memory.get("fingerprints", []) if memory.get("axis") == axis else []
    return touchedSlices(before, sliceFingerprints(boneMasks(segmentation, table, volume), axis))


def sliceFingerprints(masks: Mapping[str, np.ndarray], axis: int) -> list[int]:
    """One number a slice across `axis` (0, 1, 2 for i, j, k) of the masks [k, j, i], over all bones by name.

    A slice without any bone has fingerprint 0, so that bones which are not there do not matter.
    """
    fingerprints: list[int] | None = None
    for bone in sorted(masks):
        slices = np.moveaxis(masks[bone] > 0, 2 - axis, 0)
        if fingerprints is None:
            fingerprints = [0] * len(slices)
        for index in np.flatnonzero(slices.any(axis=(1, 2))):
            packed = np.packbits(slices[index]).tobytes()
            fingerprints[index] = zlib.crc32(packed, zlib.crc32(bone.encode(), fingerprints[index]))
    return fingerprints or []


def touchedSlices(before: list[int], now: list[int]) -> list[int]:
    """Slices that a hand has changed. Without a record (another grid, or never written by us): all that hold a bone."""
    if len(before) != len(now):
        return [index for index, fingerprint in enumerate(now) if fingerprint]
    return [index for index, (old, new) in enumerate(zip(before, now, strict=True)) if old != new]


def keepSlices(new: np.ndarray, old: np.ndarray, axis: int, kept: list[int]) -> np.ndarray:
    """`new` with the slices `kept` across `axis` taken from `old`; arrays [k, j, i]."""
    merged = new.copy()
    np.moveaxis(merged, 2 - axis, 0)[kept] = np.moveaxis(old, 2 - axis, 0)[kept]
    return merged


# ---- voxels in


def createSegmentation(volume, name: str):
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    node.CreateDefaultDisplayNodes()
    placeOnVolume(node, volume)
    return node


def placeOnVolume(segmentation, volume) -> None:
    """On the volume's grid, under its transform and in its study: what DICOM export needs."""
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    segmentation.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    study = hierarchy.GetItemParent(hierarchy.GetItemByDataNode(volume))
    hierarchy.SetItemParent(hierarchy.GetItemByDataNode(segmentation), study)


def orientedImage(array: np.ndarray, grid: Grid):
    """The box of `array` [k, j, i] that holds anything, as a vtkOrientedImageData on the whole grid's coordinates."""
    filled = [np.flatnonzero(array.any(axis=others)) for others in ((0, 1), (0, 2), (1, 2))]  # along i, j and k
    (i0, i1), (j0, j1), (k0, k1) = ((int(one[0]), int(one[-1])) if len(one) else (0, 0) for one in filled)
    voxels = np.ascontiguousarray(array[k0 : k1 + 1, j0 : j1 + 1, i0 : i1 + 1], dtype=np.uint8)
    scalars = numpy_support.numpy_to_vtk(voxels.ravel(), deep=True, array_type=vtk.VTK_UNSIGNED_CHAR)
    scalars.SetName("ImageScalars")
    image = slicer.vtkOrientedImageData()
    image.SetExtent(i0, i1, j0, j1, k0, k1)
    image.GetPointData().SetScalars(scalars)
    image.SetGeometryFromImageToWorldMatrix(ijkToRas(grid))
    return image


def fillNew(segmentation, volume, labels: np.ndarray, table: JointTable, side: str | None) -> None:
    """Writes labels [k, j, i] on the volume's grid into a segmentation without segments: one shared label map."""
    segmentation.GetSegmentation().SetSourceRepresentationName(LABELMAP)
    image = orientedImage(labels, gridOf(volume))
    for bone in table.bones:
        addBone(segmentation, bone, side, image, bone.label)


def fillExisting(
    segmentation, volume, labels: np.ndarray, table: JointTable, side: str | None, kept: list[int], axis: int
) -> None:
    """Writes labels into a segmentation that has segments; the slices `kept` across `axis` stay as they are.

    Segments that are no bones of the table are not touched. The caller has saved the state for undo.
    """
    segmentation.CreateBinaryLabelmapRepresentation()
    segmentation.SetSourceRepresentationToBinaryLabelmap()
    before, empty = boneMasks(segmentation, table, volume), np.zeros(labels.shape, bool)
    for bone in table.bones:
        if bone.name not in before:
            addBone(segmentation, bone, side, orientedImage(empty, gridOf(volume)), 1)
        mask = keepSlices(labels == bone.label, before.get(bone.name, empty), axis, kept)
        writeMask(segmentation, segmentOfBone(segmentation, bone), mask, volume)


def writeMask(segmentation, segmentId: str, mask: np.ndarray, volume) -> None:
    """Sets a segment from a mask [k, j, i] on the volume's grid, also where the two have different transforms."""
    image = orientedImage(mask, gridOf(volume))
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    if segmentation.GetTransformNodeID() != volume.GetTransformNodeID():
        transform = vtk.vtkGeneralTransform()
        logic.GetTransformBetweenRepresentationAndSegmentation(volume, segmentation, transform)
        slicer.vtkOrientedImageDataResample.TransformOrientedImage(image, transform)
    if not logic.SetBinaryLabelmapToSegment(image, segmentation, segmentId, logic.MODE_REPLACE):
        raise RuntimeError(_("the segment {name} could not be written").format(name=segmentId))


def recordWritten(segmentation, volume, table: JointTable, axis: int, edited: list[int], **memory) -> None:
    """Remembers what was written, so that later edits show; a slice `edited` by hand stays known as edited."""
    fingerprints = sliceFingerprints(boneMasks(segmentation, table, volume), axis)
    for index in edited:
        fingerprints[index] = -1
    known = {"joint": table.joint, "table": table.to_csv()}
    remember(segmentation, axis=axis, fingerprints=fingerprints, **known, **memory)
    setStatus(segmentation, table, finished=False)
