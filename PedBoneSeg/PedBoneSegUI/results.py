"""A result of the worker becomes a segmentation of the scene, whole or not at all."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import slicer
from slicer.i18n import tr as _

from PedBoneSegLib.anatomy import JointTable

from . import images, segmentations


@dataclass
class Choice:
    """What the user chose. `segmentation` None: a new one. `keepEdited`: slices touched by hand stay as they are."""

    volume: object
    joint: str = "auto"
    side: str | None = None
    segmentation: object = None
    keepEdited: bool = True
    model: str = ""
    device: str = "auto"


def putIntoScene(
    choice: Choice, answer: dict, table: JointTable, labelFile: Path, doubtFile: Path | None, name: str,
    beforeWrite: Callable,
):  # fmt: skip
    """Returns the segmentation. `beforeWrite(segmentation)` is called once if it has segments: the place to save the
    state for undo. On any error the scene is as it was.
    """
    volume, target, side = choice.volume, choice.segmentation, answer.get("side")
    geometry = images.Geometry.ofVolume(volume)
    labelNode = images.readFile(labelFile)
    if not images.Geometry.ofVolume(labelNode).isLike(geometry):
        raise RuntimeError(_("the labels are not on the volume's grid"))
    labels = slicer.util.arrayFromVolume(labelNode)
    listed = answer.get("review") or {}
    axis = listed.get("axis", geometry.slowestAxis)
    created, backup, edited = [], None, []
    try:
        if target is None:
            target = segmentations.createSegmentation(volume, name)
            created.append(target)
        if target.GetSegmentation().GetNumberOfSegments() == 0:
            segmentations.placeOnVolume(target, volume)
            segmentations.fillNew(target, volume, labels, table, side)
        else:
            if choice.keepEdited:
                edited = segmentations.editedSlices(target, table, volume, axis)
            beforeWrite(target)
            backup = slicer.vtkSegmentation()
            backup.DeepCopy(target.GetSegmentation())
            segmentations.fillExisting(target, volume, labels, table, side, edited, axis)
        segmentations.recordWritten(
            target, volume, table, axis, edited,
            side=side, domain=answer.get("domain"), model=choice.model,
            slices=listed.get("slices", []), seen=[], right=[], position=-1, reviewed=False,
            answer={key: answer.get(key) for key in ("device", "precision", "seconds", "verdict")},
        )  # fmt: skip
        segmentations.linkVolume(target, volume)
        _readDoubt(target, volume, doubtFile, created)
    except Exception:
        if backup is not None:
            target.GetSegmentation().DeepCopy(backup)
        for node in created:
            slicer.mrmlScene.RemoveNode(node)
        raise
    return target


def _readDoubt(target, volume, path: Path | None, created: list) -> None:
    """The doubt becomes a volume of the scene, in the place of an earlier one; it is shown when the user wants it."""
    old = target.GetNodeReference(segmentations.DOUBT_ROLE)
    if old is not None:
        slicer.mrmlScene.RemoveNode(old)
    if path is None or not path.exists():
        return
    node = slicer.mrmlScene.AddNode(images.readFile(path, "vtkMRMLScalarVolumeNode"))
    created.append(node)
    node.SetName(_("{name} doubt").format(name=target.GetName()))
    node.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
    target.SetNodeReferenceID(segmentations.DOUBT_ROLE, node.GetID())
