"""What the worker is asked of the scene, from click to result: scene → temporary file → worker → labels → scene.

Nothing in the scene changes before the answer is whole; whatever fails afterwards is taken back.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _

from PedBoneSegLib.anatomy import known_joints
from PedBoneSegLib.errors import BadInput, PedBoneSegError
from PedBoneSegLib.formats.reading import read_volume
from PedBoneSegLib.volume import Grid

from . import images, models, segmentations
from .paths import PSEUDONYM, WorkFolder
from .workerclient import nothing


@dataclass
class Choice:
    """What the user chose. `segmentation` None: a new one; in one that is there, slices touched by hand stay."""

    volume: object
    joint: str = "auto"
    side: str | None = None
    segmentation: object = None
    model: str = ""
    device: str = "auto"


class Errand:
    """Runs a generator, a step a turn of the event loop, so that the application never stands still.

    A step that yields an op and its fields waits for the worker's answer, with which the next one begins. At the end
    `onDone(*value)` or `onError(kind, message, answer)` is called, exactly once and never in the constructor; a
    generator that does not come to its end is closed.
    """

    def __init__(self, client, steps: Generator, onDone=nothing, onError=nothing, onProgress=nothing) -> None:
        self._client, self._steps, self._request, self._ended = client, steps, None, False
        self._onDone, self._onError, self._onProgress = onDone, onError, onProgress
        self._goOn()

    def cancel(self) -> None:
        """The work ends within a second; `onError` is called with the kind "cancelled"."""
        if self._request is not None and self._request.state != "ended":
            self._client.cancel(self._request)
        else:
            self._fail("cancelled", _("Cancelled."), {})

    def abandon(self) -> None:
        """As `cancel`, for a scene that is being closed: nobody is called any more."""
        self._onDone = self._onError = nothing
        self.cancel()

    def _goOn(self, answer: dict | None = None) -> None:
        qt.QTimer.singleShot(0, lambda: self._step(answer))

    def _step(self, answer: dict | None) -> None:
        if self._ended:
            return
        try:
            request = self._steps.send(answer)
        except StopIteration as end:
            self._end(partial(self._onDone, *end.value))
        except (PedBoneSegError, OSError) as error:
            self._fail("bad-input", f"{getattr(error, 'strerror', None) or error}", {})
        except Exception as error:
            self._fail("bug", str(error), {})
            raise
        else:
            if request is None:
                self._goOn()
            else:
                calls = {"onDone": self._goOn, "onError": self._fail, "onProgress": self._onProgress}
                self._request = self._client.send(*request, **calls)

    def _fail(self, kind: str, message: str, answer: dict) -> None:
        # A file's pseudonym tells the user nothing.
        self._end(partial(self._onError, kind, PSEUDONYM.sub(_("the volume"), message), answer))

    def _end(self, tell: Callable[[], None]) -> None:
        if not self._ended:
            self._ended = True
            self._steps.close()
            tell()


def segmenting(choice: Choice, folder: WorkFolder, beforeWrite: Callable = nothing) -> Generator:
    """The steps of a segmentation, to (segmentation, answer); `beforeWrite` as for `landing`."""
    volume = choice.volume
    images.check(volume)
    grid, name = images.gridOf(volume), segmentations.resultName(volume)
    with folder.files(".nrrd", ".nii", ".nii") as (image, labels, doubt):
        # A copy, for the user may change the volume meanwhile.
        yield from images.writing(slicer.util.arrayFromVolume(volume).copy(), grid, image)
        answer = yield "segment", {
            "input": str(image), "output": str(labels), "uncertainty": str(doubt), "joint": choice.joint,
            "side": choice.side, "model": choice.model or None, "device": choice.device,
        }  # fmt: skip
        segmentation = yield from landing(choice, answer, grid, labels, doubt, name, beforeWrite)
    return segmentation, answer


def measuring(segmentation, folder: WorkFolder) -> Generator:
    """The steps by which the worker measures a result's bones, to (answer,)."""
    volume, table = segmentations.volumeOf(segmentation), segmentations.tableOf(segmentation)
    model = None if table.joint in known_joints() else segmentations.memoryOf(segmentation).get("model")
    with folder.files(".nrrd") as (labels,):
        merged = segmentations.mergedLabels(segmentation, table, volume)
        yield from images.writing(merged, images.gridOf(volume), labels)
        answer = yield "measure", {"input": str(labels), "joint": table.joint, "model": model}
    return (answer,)


def landing(
    choice: Choice, answer: dict, grid: Grid, labelFile: Path, doubtFile: Path | None, name: str,
    beforeWrite: Callable = nothing,
) -> Generator:  # fmt: skip
    """The steps by which a result becomes a segmentation of the scene, which is the generator's value.

    On any error, and where it is closed before its end, the scene is as it was. `grid` is the volume's when it was
    handed over. `beforeWrite(segmentation)` is called before one that has segments changes: the place to save the state
    for undo.
    """
    volume, target, created, edited = choice.volume, choice.segmentation, [], []
    backup, memory = slicer.vtkSegmentation(), None
    table = models.tableOf(answer, choice.model)
    review = answer.get("review") or {}
    axis = review.get("axis", images.slowestAxis(grid))

    def pause() -> Generator:
        yield
        if not slicer.mrmlScene.IsNodePresent(volume):
            raise BadInput(_("The volume was removed while it was being segmented; nothing was changed."))
        if target is not None and not slicer.mrmlScene.IsNodePresent(target):
            raise BadInput(_("The segmentation was removed meanwhile; nothing was changed."))
        if volume.GetImageData() is None or not images.isSame(grid, images.gridOf(volume)):
            raise BadInput(_("The volume was changed while it was being segmented; nothing was written. Do it again."))

    yield from pause()
    read = read_volume(labelFile)
    if not images.isSame(read.grid, grid):
        raise RuntimeError(_("the labels are not on the volume's grid"))
    yield from pause()
    try:
        if target is None:
            target = segmentations.createSegmentation(volume, name)
            created.append(target)
        else:
            backup.DeepCopy(target.GetSegmentation())
            memory = target.GetAttribute(segmentations.MEMORY)
        if target.GetSegmentation().GetNumberOfSegments() == 0:
            segmentations.placeOnVolume(target, volume)
            segmentations.fillNew(target, volume, read.array.T, table, answer.get("side"))
        else:
            edited = segmentations.editedSlices(target, table, volume, axis)
            beforeWrite(target)
            segmentations.fillExisting(target, volume, read.array.T, table, answer.get("side"), edited, axis)
        target.SetNodeReferenceID(target.GetReferenceImageGeometryReferenceRole(), volume.GetID())
        yield from pause()
        segmentations.recordWritten(
            target, volume, table, axis, edited,
            side=answer.get("side"), domain=answer.get("domain"), model=choice.model, slices=review.get("slices", []),
            seen=[], right=[], position=-1, reviewed=False,
            answer={key: answer.get(key) for key in ("device", "precision", "seconds", "verdict")},
        )  # fmt: skip
        yield from pause()
        old = target.GetNodeReference(segmentations.DOUBT_ROLE)
        if doubtFile is not None and doubtFile.exists():
            doubt = images.addVolume(doubtFile, _("{name} doubt").format(name=target.GetName()))
            created.append(doubt)
            doubt.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
            target.SetNodeReferenceID(segmentations.DOUBT_ROLE, doubt.GetID())
        if old is not None:
            slicer.mrmlScene.RemoveNode(old)  # and Slicer what displayed it
    except BaseException:
        if target is choice.segmentation and target is not None:
            target.GetSegmentation().DeepCopy(backup)
            target.SetAttribute(segmentations.MEMORY, memory)
        for node in filter(slicer.mrmlScene.IsNodePresent, created):
            slicer.mrmlScene.RemoveNode(node)
        raise
    return target
