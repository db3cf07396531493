"""The steps of a segmentation: volume of the scene, temporary file, worker, labels, segmentation of the scene.

Nothing in the scene changes before the whole answer is there; if something fails after that, the change is undone.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path

import slicer
from slicer.i18n import tr as _

from PedBoneSegLib.anatomy import known_joints
from PedBoneSegLib.errors import BadInput
from PedBoneSegLib.formats.reading import read_volume
from PedBoneSegLib.volume import Grid

from . import bonewriting, labelmaps, models, segmentations, volumes
from .workerclient import doNothing
from .workfolder import WorkFolder


@dataclass
class Choice:
    """What the user chose. `segmentation` None: a new one; in one that is there, slices edited by hand stay."""

    volume: object
    joint: str = "auto"
    side: str | None = None
    segmentation: object = None
    model: str = ""
    device: str = "auto"


def findingHandwork(choice: Choice) -> Generator:
    """Generator that looks for slices edited by hand in the chosen segmentation; returns (whether there are any,). A
    segmentation that we did not write counts as edited."""
    segmentation, volume = choice.segmentation, choice.volume
    if segmentation is None or segmentation.GetSegmentation().GetNumberOfSegments() == 0:
        return (False,)
    table = segmentations.tableOf(segmentation)
    if table is None:
        return (True,)
    axis = segmentations.axisOf(segmentation, volume)
    return (bool((yield from labelmaps.findingEdits(segmentation, table, volume, axis))),)


def segmenting(choice: Choice, folder: WorkFolder, beforeWrite: Callable = doNothing) -> Generator:
    """Generator that segments; returns (segmentation, answer). For `beforeWrite` see `inserting`."""
    volume = choice.volume
    volumes.check(volume)
    grid, name = volumes.gridOf(volume), segmentations.resultName(volume)
    with folder.files(".nrrd", ".nii", ".nii") as (image, labels, doubt):
        yield from volumes.writingVolume(volume, image)
        answer = yield "segment", {
            "input": str(image), "output": str(labels), "uncertainty": str(doubt), "joint": choice.joint,
            "side": choice.side, "model": choice.model or None, "device": choice.device,
        }  # fmt: skip
        segmentation = yield from inserting(choice, answer, grid, labels, doubt, name, beforeWrite)
    return segmentation, answer


def measuring(segmentation, folder: WorkFolder) -> Generator:
    """Generator that has the worker measure a result's bones; returns (answer,)."""
    volume, table = segmentations.volumeOf(segmentation), segmentations.tableOf(segmentation)
    model = None if table.joint in known_joints() else segmentations.memoryOf(segmentation).get("model")
    with folder.files(".nrrd") as (labels,):
        merged = yield from labelmaps.merging(segmentation, table, volume)
        yield from volumes.writing(merged, volumes.gridOf(volume), labels)
        answer = yield "measure", {"input": str(labels), "joint": table.joint, "model": model}
    return (answer,)


def inserting(
    choice: Choice, answer: dict, grid: Grid, labelFile: Path, doubtFile: Path | None, name: str,
    beforeWrite: Callable = doNothing,
) -> Generator:  # fmt: skip
    """Generator that writes a result into the scene step by step; returns the segmentation node.

    On any error, and if the generator is closed before its end, the scene is as it was. `grid` is the volume's when it
    was handed to the worker. `beforeWrite(segmentation)` is called before one that has segments changes: the place to
    save the state for undo.
    """
    volume, target, created, edited = choice.volume, choice.segmentation, [], []
    restore, memory = None, None
    table = models.tableOfAnswer(answer, choice.model)
    review = answer.get("review") or {}
    axis = review.get("axis", volumes.slowestAxis(grid))

    def check() -> None:
        if not slicer.mrmlScene.IsNodePresent(volume):
            raise BadInput(_("The volume was removed while it was being segmented; nothing was changed."))
        if target is not None and not slicer.mrmlScene.IsNodePresent(target):
            raise BadInput(_("The segmentation was removed meanwhile; nothing was changed."))
        if volume.GetImageData() is None or not volumes.isSame(grid, volumes.gridOf(volume)):
            raise BadInput(_("The volume was changed while it was being segmented; nothing was written. Do it again."))

    def checked(steps: Generator) -> Generator:
        """The steps, with a look before each whether the nodes are still there."""
        given = None
        while True:
            check()
            try:
                given = yield steps.send(given)
            except StopIteration as end:
                return end.value

    yield from checked(_pause())
    read = read_volume(labelFile)
    if not volumes.isSame(read.grid, grid):
        raise RuntimeError(_("the labels are not on the volume's grid"))
    labels, side = read.array.T, answer.get("side")
    yield from checked(_pause())
    try:
        if target is None:
            target = segmentations.createSegmentation(volume, name)
            created.append(target)
        else:
            restore = bonewriting.backup(target, volume)
            memory = target.GetAttribute(segmentations.MEMORY)
        if target.GetSegmentation().GetNumberOfSegments() == 0:
            segmentations.placeOnVolume(target, volume)
            yield from checked(bonewriting.filling(target, volume, labels, table, side))
        else:
            with labelmaps.unchanged(target):
                edited = yield from checked(labelmaps.findingEdits(target, table, volume, axis))
                yield from checked(_pause())
            beforeWrite(target)
            yield from checked(bonewriting.replacing(target, volume, labels, table, side, edited, axis))
        target.SetNodeReferenceID(target.GetReferenceImageGeometryReferenceRole(), volume.GetID())
        fingerprints = yield from checked(labelmaps.fingerprinting(target, table, volume, axis))
        segmentations.recordWritten(
            target, table, axis, fingerprints, edited,
            side=side, domain=answer.get("domain"), model=choice.model, slices=review.get("slices", []),
            seen=[], accepted=[], position=-1, reviewed=False,
            answer={key: answer.get(key) for key in ("device", "precision", "seconds", "verdict")},
        )  # fmt: skip
        yield from checked(_pause())
        old = segmentations.doubtOf(target)
        if doubtFile is not None and doubtFile.exists():
            read = read_volume(doubtFile)
            doubt, voxels = volumes.newDoubtMap(read, _("{name} doubt").format(name=target.GetName()), volume)
            created.append(doubt)
            yield from checked(labelmaps.copying(read.array.T, voxels))
            doubt.GetImageData().Modified()
            target.SetNodeReferenceID(segmentations.DOUBT_ROLE, doubt.GetID())
        if old is not None:
            slicer.mrmlScene.RemoveNode(old)  # and Slicer removes what displayed it
    except BaseException:
        if restore is not None and slicer.mrmlScene.IsNodePresent(target):
            restore()
            target.SetAttribute(segmentations.MEMORY, memory)
        for node in filter(slicer.mrmlScene.IsNodePresent, created):
            slicer.mrmlScene.RemoveNode(node)
        raise
    return target


def _pause() -> Generator:
    yield
