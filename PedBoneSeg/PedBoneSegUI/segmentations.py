"""Labels of the worker as segments of the scene: names, colors, terminology, side, geometry, status, memory.

What the software knows of a segmentation (joint, side, model, review, fingerprints) is one JSON text in an attribute
of its node: it follows the segmentation and is saved with the scene.
"""

import json

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _
from vtk.util import numpy_support

from PedBoneSegLib.anatomy import ANATOMICAL_STRUCTURE, Bone, JointTable, display_name, laterality

from .edits import keepSlices, sliceFingerprints, touchedSlices
from .images import Geometry

MEMORY = "PedBoneSeg.Memory"  # attribute of the segmentation node
BONE = "PedBoneSeg.Bone"  # tag of a segment: the bare name of its bone
DOUBT_ROLE = "PedBoneSeg.Doubt"
TERMINOLOGY = "Segmentation category and type - PedBoneSeg"
LABELMAP = "Binary labelmap"


def memoryOf(segmentation) -> dict:
    try:
        memory = json.loads((segmentation.GetAttribute(MEMORY) or "{}") if segmentation else "{}")
    except ValueError:  # a scene edited by hand
        memory = {}
    return memory if isinstance(memory, dict) else {}


def remember(segmentation, **items) -> None:
    segmentation.SetAttribute(MEMORY, json.dumps({**memoryOf(segmentation), **items}, ensure_ascii=False))


def terminologyOf(bone: Bone, side: str | None) -> str:
    """Slicer's terminology entry; the side is the type's modifier. A bone without a code stays a plain structure."""
    category = bone.category if bone.category.value else ANATOMICAL_STRUCTURE
    kind = bone.type if bone.type.value else category
    modifier = laterality(side)
    triples = [(code.scheme, code.value, code.meaning) if code else ("", "", "") for code in (category, kind, modifier)]
    return "~".join([TERMINOLOGY, *("^".join(triple) for triple in triples), "", "^^", "^^"])


def segmentIds(segmentation) -> list[str]:
    core = segmentation.GetSegmentation()
    return [core.GetNthSegmentID(index) for index in range(core.GetNumberOfSegments())]


def segmentOfBone(segmentation, bone: Bone) -> str:
    """The segment that is this bone: by our tag, else by name, with or without a side; empty if there is none."""
    core = segmentation.GetSegmentation()
    names = {display_name(bone, side).lower() for side in (None, "left", "right")}
    byName = ""
    for segmentId in segmentIds(segmentation):
        segment = core.GetSegment(segmentId)
        tag = vtk.reference("")
        if segment.GetTag(BONE, tag):
            if str(tag) == bone.name:
                return segmentId
        elif segment.GetName().strip().lower() in names:
            byName = byName or segmentId
    return byName


def createSegmentation(volume, name: str):
    """An empty segmentation on the volume's grid, under its transform and its study: what DICOM export needs."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    node.CreateDefaultDisplayNodes()
    placeOnVolume(node, volume)
    return node


def placeOnVolume(segmentation, volume) -> None:
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    segmentation.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    parent = hierarchy.GetItemParent(hierarchy.GetItemByDataNode(volume))
    item = hierarchy.GetItemByDataNode(segmentation)
    if item:
        hierarchy.SetItemParent(item, parent)
    elif parent:  # outside the application nobody makes items by himself
        hierarchy.CreateItem(parent, segmentation)


def orientedImage(array: np.ndarray, geometry: Geometry):
    """The box of `array` [k, j, i] that holds anything, as a vtkOrientedImageData on the whole grid's coordinates."""
    box = []
    for axis in range(3):  # i, j, k
        filled = np.flatnonzero(array.any(axis=tuple(other for other in range(3) if other != 2 - axis)))
        box.append((int(filled[0]), int(filled[-1])) if len(filled) else (0, 0))
    (i0, i1), (j0, j1), (k0, k1) = box
    voxels = np.ascontiguousarray(array[k0 : k1 + 1, j0 : j1 + 1, i0 : i1 + 1], dtype=np.uint8)
    image = slicer.vtkOrientedImageData()
    image.SetExtent(i0, i1, j0, j1, k0, k1)
    scalars = numpy_support.numpy_to_vtk(voxels.ravel(), deep=True, array_type=vtk.VTK_UNSIGNED_CHAR)
    scalars.SetName("ImageScalars")
    image.GetPointData().SetScalars(scalars)
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy([value for row in geometry.matrix for value in row])
    image.SetGeometryFromImageToWorldMatrix(matrix)
    return image


def addBones(segmentation, table: JointTable, side: str | None, image=None, geometry: Geometry | None = None) -> None:
    """Adds the table's bones that the segmentation lacks, on the shared labels `image` or each on an empty one."""
    core = segmentation.GetSegmentation()
    for bone in table.bones:
        if segmentOfBone(segmentation, bone):
            continue
        segment = slicer.vtkSegment()
        segment.SetName(display_name(bone, side))
        segment.SetColor(*(channel / 255 for channel in bone.color))
        segment.SetTerminology(terminologyOf(bone, side))
        segment.SetTag(BONE, bone.name)
        shared = image if image is not None else orientedImage(np.zeros(geometry.size[::-1], np.uint8), geometry)
        segment.SetLabelValue(bone.label if image is not None else 1)
        segment.AddRepresentation(LABELMAP, shared)
        core.AddSegment(segment, core.GenerateUniqueSegmentID(bone.name))


def boneMasks(segmentation, table: JointTable, volume) -> dict[str, np.ndarray]:
    """The table's bones as masks [k, j, i] on the volume's grid, transforms of both applied; absent bones left out."""
    masks = {}
    for bone in table.bones:
        segmentId = segmentOfBone(segmentation, bone)
        if segmentId:
            masks[bone.name] = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segmentId, volume) > 0
    return masks


def mergedLabels(segmentation, table: JointTable, volume) -> np.ndarray:
    """Label values [k, j, i] of the table on the volume's grid; where bones overlap, the later label wins."""
    labels = np.zeros(Geometry.ofVolume(volume).size[::-1], np.uint8)
    for name, mask in boneMasks(segmentation, table, volume).items():
        labels[mask] = table.labels[name]
    return labels


def editedSlices(segmentation, table: JointTable, volume, axis: int) -> list[int]:
    """Slices across `axis` that hold work of a hand; without a record for that axis all that hold a bone."""
    memory = memoryOf(segmentation)
    before = memory.get("fingerprints", []) if memory.get("axis") == axis else []
    return touchedSlices(before, sliceFingerprints(boneMasks(segmentation, table, volume), axis))


def axisOf(segmentation, volume) -> int:
    """The axis that the result's slices are counted on; without a result the volume's slowest."""
    axis = memoryOf(segmentation).get("axis")
    return axis if axis in (0, 1, 2) else Geometry.ofVolume(volume).slowestAxis


def fillNew(segmentation, volume, labels: np.ndarray, table: JointTable, side: str | None) -> None:
    """Writes labels [k, j, i] on the volume's grid into a segmentation without segments: one shared label map."""
    geometry = Geometry.ofVolume(volume)
    segmentation.GetSegmentation().SetSourceRepresentationName(LABELMAP)
    addBones(segmentation, table, side, orientedImage(labels, geometry))


def fillExisting(
    segmentation, volume, labels: np.ndarray, table: JointTable, side: str | None, kept: list[int], axis: int
) -> None:
    """Writes labels into a segmentation that has segments; the slices `kept` across `axis` stay as they are.

    Segments that are no bones of the table are not touched. The caller has saved the state for undo.
    """
    segmentation.CreateBinaryLabelmapRepresentation()
    segmentation.SetSourceRepresentationToBinaryLabelmap()
    before = boneMasks(segmentation, table, volume)
    addBones(segmentation, table, side, geometry=Geometry.ofVolume(volume))
    for bone in table.bones:
        mask = labels == bone.label
        if bone.name in before:
            mask = keepSlices(mask, before[bone.name], axis, kept)
        elif kept:
            mask = keepSlices(mask, np.zeros_like(mask), axis, kept)
        writeMask(segmentation, segmentOfBone(segmentation, bone), mask, volume)


def writeMask(segmentation, segmentId: str, mask: np.ndarray, volume) -> None:
    """Sets a segment from a mask [k, j, i] on the volume's grid, also where the two have different transforms."""
    image = orientedImage(mask, Geometry.ofVolume(volume))
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


def setStatus(segmentation, table: JointTable, finished: bool) -> None:
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    for bone in table.bones:
        segmentId = segmentOfBone(segmentation, bone)
        if segmentId:
            segment = segmentation.GetSegmentation().GetSegment(segmentId)
            logic.SetSegmentStatus(segment, logic.Completed if finished else logic.InProgress)


def loadTerminology(path: str) -> None:
    """Makes our bones choosable in the terminology selector; a damaged installation without that module is no error."""
    module = getattr(slicer.modules, "terminologies", None)
    if module is not None:
        module.logic().LoadTerminologyFromFile(path)


def linkVolume(segmentation, volume) -> None:
    """The volume that the segmentation was made from: what review, measuring and DICOM export refer to."""
    role = segmentation.GetReferenceImageGeometryReferenceRole()
    segmentation.SetNodeReferenceID(role, volume.GetID())


def volumeOf(segmentation):
    role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
    return segmentation.GetNodeReference(role) if segmentation else None


def tableOf(segmentation) -> JointTable | None:
    """The label table that the segmentation was written with; None if the software never wrote it."""
    memory = memoryOf(segmentation)
    return JointTable.from_csv(memory["table"], memory["joint"]) if memory.get("table") else None


def resultName(volume, item: str) -> str:
    return " ".join(filter(None, (volume.GetName(), item, _("bones"))))
