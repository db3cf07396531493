"""One segmentation from click to result: scene → temporary file → worker → labels → scene.

Nothing in the scene changes before the answer is whole; whatever fails afterwards is taken back.
"""

from collections.abc import Callable

import slicer
from slicer.i18n import tr as _

from PedBoneSegLib.anatomy import JointTable

from . import images, segmentations
from .results import Choice, putIntoScene
from .workerclient import nothing


class Run:
    """`onDone(segmentation, answer)` or `onError(kind, message, answer)` is called once, after `start`, never in it."""

    def __init__(
        self, choice: Choice, client, folder, tableOf: Callable[[dict, str], JointTable],
        beforeWrite: Callable = nothing, onProgress: Callable = nothing, onDone: Callable = nothing,
        onError: Callable = nothing,
    ) -> None:  # fmt: skip
        self.choice, self._client, self._tableOf, self._beforeWrite = choice, client, tableOf, beforeWrite
        self._onProgress, self._onDone, self._onError = onProgress, onDone, onError
        self._input, self._output, self._doubt = (folder.newFile(".nrrd") for _number in range(3))
        self._request = self._writing = self._geometry = None
        self._item, self._ended = "", False

    def start(self) -> None:
        """Raises ValueError, with a sentence, for a volume that cannot be segmented."""
        volume = self.choice.volume
        if sentence := images.refusal(volume):
            raise ValueError(sentence)
        self._geometry = images.Geometry.ofVolume(volume)
        self._item = images.sequenceItem(volume)
        self._onProgress(0.0, _("Handing over"))
        array = slicer.util.arrayFromVolume(volume)
        self._writing = images.FileWriting(array, self._geometry, self._input, self._onWritten)

    def cancel(self) -> None:
        """The work ends within a second; `onError` is called with the kind "cancelled"."""
        if self._request is not None:
            self._client.cancel(self._request)
        else:
            self._fail("cancelled", _("Cancelled."), {})

    def abandon(self) -> None:
        """As `cancel`, for a scene that is being closed: nobody is called any more."""
        self._onDone = self._onError = self._onProgress = nothing
        self.cancel()

    def _onWritten(self, sentence: str) -> None:
        if self._ended:
            return
        if sentence:
            self._fail("bad-input", sentence, {})
            return
        choice = self.choice
        fields = {
            "input": str(self._input), "output": str(self._output), "uncertainty": str(self._doubt),
            "joint": choice.joint, "device": choice.device,
        }  # fmt: skip
        fields |= {name: value for name, value in (("side", choice.side), ("model", choice.model)) if value}
        self._request = self._client.send(
            "segment", fields, onDone=self._onAnswer, onError=self._fail, onProgress=self._onProgress
        )

    def _onAnswer(self, answer: dict) -> None:
        if self._ended:
            return
        if sentence := self._goneSince():
            self._fail("bad-input", sentence, {})
            return
        try:
            target = putIntoScene(
                self.choice, answer, self._tableOf(answer, self.choice.model), self._output, self._doubt,
                segmentations.resultName(self.choice.volume, self._item), self._beforeWrite,
            )  # fmt: skip
        except Exception as error:
            self._fail("bug", _("The result could not be put into the scene: {reason}").format(reason=error), {})
            raise
        self._end()
        self._onDone(target, answer)

    def _goneSince(self) -> str:
        """Whether the user removed or changed meanwhile what the result belongs to."""
        choice, scene = self.choice, slicer.mrmlScene
        if not scene.IsNodePresent(choice.volume):
            return _("The volume was removed while it was being segmented; nothing was changed.")
        if choice.segmentation is not None and not scene.IsNodePresent(choice.segmentation):
            return _("The segmentation was removed meanwhile; nothing was changed.")
        if choice.volume.GetImageData() is None or not self._geometry.isLike(images.Geometry.ofVolume(choice.volume)):
            return _("The volume was changed while it was being segmented; nothing was written. Segment it again.")
        return ""

    def _fail(self, kind: str, message: str, answer: dict) -> None:
        if not self._ended:
            self._end()
            self._onError(kind, message, answer)

    def _end(self) -> None:
        self._ended = True
        if self._writing is not None:
            self._writing.cancel()
        for path in (self._input, self._output, self._doubt):
            try:
                path.unlink(missing_ok=True)
            except OSError:  # Windows keeps a file that a dying worker still holds; the folder goes later
                pass
