"""Segmentation nodes: their bones with names, colors, terminology and side, and what the software knows about them.

That knowledge (joint, side, model, review, fingerprints of the slices) is one JSON text in an attribute of the node: it
stays with the segmentation and is saved with the scene.
"""

import json

import slicer
import vtk
from slicer.i18n import tr as _

from PedBoneSegLib.anatomy import Bone, JointTable, display_name
from PedBoneSegLib.formats.segments import BONE_TAG, terminology

from .volumes import gridOf, sequenceItem, slowestAxis

MEMORY = "PedBoneSeg.Memory"  # attribute of the segmentation node
DOUBT_ROLE = "PedBoneSeg.Doubt"  # node reference to the doubt map
LABELMAP = "Binary labelmap"


# ---- what is known about a segmentation


def memoryOf(segmentation) -> dict:
    try:
        memory = json.loads((segmentation.GetAttribute(MEMORY) or "{}") if segmentation else "{}")
    except ValueError:  # the scene file was edited by hand
        memory = {}
    return memory if isinstance(memory, dict) else {}


def remember(segmentation, **items) -> None:
    segmentation.SetAttribute(MEMORY, json.dumps({**memoryOf(segmentation), **items}, ensure_ascii=False))


def recordWritten(
    segmentation, table: JointTable, axis: int, fingerprints: list[int], edited: list[int], **more
) -> None:
    """Remembers what was written, so that later edits can be found; slices in `edited` stay known as edited."""
    known = [-1 if index in edited else fingerprint for index, fingerprint in enumerate(fingerprints)]
    remember(segmentation, axis=axis, fingerprints=known, joint=table.joint, table=table.to_csv(), **more)
    setStatus(segmentation, table, finished=False)


def tableOf(segmentation) -> JointTable | None:
    """The label table that the segmentation was written with; None if the software did not write it."""
    memory = memoryOf(segmentation)
    return JointTable.from_csv(memory["table"], memory["joint"]) if memory.get("table") else None


def volumeOf(segmentation):
    """The volume that the segmentation was made from; review, measuring and DICOM export refer to it."""
    role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
    return segmentation.GetNodeReference(role) if segmentation else None


def doubtOf(segmentation):
    return segmentation.GetNodeReference(DOUBT_ROLE) if segmentation else None


def axisOf(segmentation, volume) -> int:
    """The axis along which the result's slices are counted; without a result the volume's slowest."""
    axis = memoryOf(segmentation).get("axis")
    return axis if axis in (0, 1, 2) else slowestAxis(gridOf(volume))


def resultName(volume) -> str:
    return " ".join(filter(None, (volume.GetName(), sequenceItem(volume), _("bones"))))


# ---- the node


def createSegmentation(volume, name: str):
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    node.CreateDefaultDisplayNodes()
    placeOnVolume(node, volume)
    return node


def placeOnVolume(segmentation, volume) -> None:
    """Gives it the volume's grid, transform and study: DICOM export needs them."""
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    segmentation.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    study = hierarchy.GetItemParent(hierarchy.GetItemByDataNode(volume))
    hierarchy.SetItemParent(hierarchy.GetItemByDataNode(segmentation), study)


# ---- its segments


def segmentIds(segmentation) -> list[str]:
    core = segmentation.GetSegmentation()
    return [core.GetNthSegmentID(index) for index in range(core.GetNumberOfSegments())]


def segmentOfBone(segmentation, bone: Bone) -> str:
    """The ID of the segment that is this bone: by our tag, else by name with or without a side; empty without one."""
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


def otherSegments(segmentation, table: JointTable) -> list[str]:
    """Names of the segments that are no bones of the table."""
    bones = {segmentOfBone(segmentation, bone) for bone in table.bones}
    core = segmentation.GetSegmentation()
    return [core.GetSegment(name).GetName() for name in segmentIds(segmentation) if name not in bones]


def addBone(segmentation, bone: Bone, side: str | None, image, value: int) -> str:
    """Adds the bone as the voxels of `image` that have that value; returns the segment's ID."""
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
    """Adds our bones to the terminology selector, if that module is there."""
    module = getattr(slicer.modules, "terminologies", None)
    if module is not None:
        module.logic().LoadTerminologyFromFile(path)
