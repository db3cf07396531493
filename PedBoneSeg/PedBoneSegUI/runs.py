"""One segmentation from click to result: scene → temporary file → worker → labels → scene.

Nothing in the scene changes before the answer is whole; whatever fails afterwards is taken back.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import qt
import slicer
from slicer.i18n import tr as _

from PedBoneSegLib.anatomy import JointTable
from PedBoneSegLib.errors import BadInput, PedBoneSegError
from PedBoneSegLib.formats import read_volume
from PedBoneSegLib.volume import Grid

from . import images, segmentations
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


class Turns:
    """Runs a generator, a step a turn of the event loop, so that the application never stands still.

    At the end `onDone(value)` or `onFault(error)` is called; after `cancel`, which closes the generator, neither.
    """

    def __init__(self, steps: Generator, onDone: Callable, onFault: Callable) -> None:
        self._steps, self._onDone, self._onFault, self._cancelled = steps, onDone, onFault, False
        qt.QTimer.singleShot(0, self._turn)

    def cancel(self) -> None:
        self._cancelled = True
        self._steps.close()

    def _turn(self) -> None:
        if self._cancelled:
            return
        try:
            next(self._steps)
        except StopIteration as end:
            self._onDone(end.value)
        except Exception as error:
            self._onFault(error)
        else:
            qt.QTimer.singleShot(0, self._turn)


class Errand:
    """Labels or an image of the scene go to the worker as a file, with a request; the files go at the end.

    `onDone(answer)` or `onError(kind, message, answer)` is called exactly once, after `start`, never in it.
    """

    def __init__(self, client, folder, onDone: Callable = nothing, onError: Callable = nothing, makes=()) -> None:
        self._client, self._onDone, self._onError, self._ended = client, onDone, onError, False
        self._files = {"input": folder.newFile(".nrrd"), **{name: folder.newFile(".nii") for name in makes}}
        self._onProgress, self._request, self._turns = nothing, None, None

    def start(self, op: str, array: np.ndarray, grid, fields: dict) -> None:
        fields = {**fields, **{name: str(path) for name, path in self._files.items()}}

        def send(_value) -> None:
            calls = {"onDone": self._onAnswer, "onError": self._fail}
            self._request = self._client.send(op, fields, **calls, onProgress=lambda answer: self._onProgress(answer))

        # A copy, for the user may change the volume meanwhile.
        self._turns = Turns(images.writing(array.copy(), grid, self._files["input"]), send, self._onFault)

    def cancel(self) -> None:
        """The work ends within a second; `onError` is called with the kind "cancelled"."""
        if self._request is not None and self._request.state != "ended":
            self._client.cancel(self._request)
        else:
            self._fail("cancelled", _("Cancelled."), {})

    def abandon(self) -> None:
        """As `cancel`, for a scene that is being closed: nobody is called any more."""
        self._onDone = self._onError = self._onProgress = nothing
        self.cancel()

    def _onAnswer(self, answer: dict) -> None:
        self._end(partial(self._onDone, answer))

    def _onFault(self, error: Exception) -> None:
        """Of one of our own steps: what could be foreseen is told, a bug is told and raised."""
        foreseen = isinstance(error, PedBoneSegError | OSError)
        self._fail("bad-input" if foreseen else "bug", f"{getattr(error, 'strerror', None) or error}", {})
        if not foreseen:
            raise error

    def _fail(self, kind: str, message: str, answer: dict) -> None:
        for name in (self._files["input"].name, self._files["input"].stem):  # a pseudonym, which tells the user nothing
            message = message.replace(name, _("the volume"))
        self._end(partial(self._onError, kind, message, answer))

    def _end(self, tell: Callable[[], None]) -> None:
        if self._ended:
            return
        self._ended = True
        if self._turns is not None:
            self._turns.cancel()
        for path in self._files.values():
            try:
                path.unlink(missing_ok=True)
            except OSError:  # Windows keeps a file that a dying worker still holds; the folder goes later
                pass
        tell()


class Run(Errand):
    """`onDone(segmentation, answer)`; `tableOf(answer, model)` gives the labels' table, `beforeWrite(segmentation)` is
    called once before a segmentation that has segments changes: the place to save the state for undo."""

    def __init__(
        self, choice: Choice, client, folder, tableOf: Callable[[dict, str], JointTable],
        beforeWrite: Callable = nothing, onProgress: Callable = nothing, **callbacks: Callable,
    ) -> None:  # fmt: skip
        super().__init__(client, folder, makes=("output", "uncertainty"), **callbacks)
        self.choice, self._tableOf, self._beforeWrite, self._onProgress = choice, tableOf, beforeWrite, onProgress

    def begin(self) -> None:
        choice = self.choice
        try:
            images.check(choice.volume)
        except PedBoneSegError as error:
            kind, sentence = error.kind, str(error)
            qt.QTimer.singleShot(0, lambda: self._fail(kind, sentence, {}))
            return
        self._grid, self._item = images.gridOf(choice.volume), images.sequenceItem(choice.volume)
        fields = {"joint": choice.joint, "device": choice.device, "side": choice.side, "model": choice.model or None}
        self.start("segment", slicer.util.arrayFromVolume(choice.volume), self._grid, fields)

    def _onAnswer(self, answer: dict) -> None:
        def done(target) -> None:
            self._end(partial(self._onDone, target, answer))

        self._turns = Turns(self._land(answer), done, self._onFault)

    def _land(self, answer: dict) -> Generator:
        table, name = self._tableOf(answer, self.choice.model), segmentations.resultName(self.choice.volume, self._item)
        labels, doubt = self._files["output"], self._files["uncertainty"]
        return (yield from landing(self.choice, answer, table, self._grid, labels, doubt, name, self._beforeWrite))


def landing(
    choice: Choice, answer: dict, table: JointTable, grid: Grid, labelFile: Path, doubtFile: Path | None, name: str,
    beforeWrite: Callable = nothing,
) -> Generator:  # fmt: skip
    """The steps by which a result becomes a segmentation of the scene, which is the generator's value.

    On any error, and where it is closed before its end, the scene is as it was. `grid` is the volume's when it was
    handed over, `beforeWrite` as for `Run`.
    """
    volume, target, created, edited = choice.volume, choice.segmentation, [], []
    backup, memory = slicer.vtkSegmentation(), None
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
