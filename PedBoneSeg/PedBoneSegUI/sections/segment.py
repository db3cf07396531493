"""The section in which the user chooses, clicks Segment, and reads what was found."""

import time
from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _

from PedBoneSegLib.errors import BadInput

from .. import messages, segmentations, volumes
from ..segmenting import Choice, findingHandwork
from ..tasks import Task
from .section import Section
from .widgets import enable

SILENT_SECONDS = 30  # without a sign of the worker, before the panel says so


class SegmentSection(Section):
    def __init__(self, panel) -> None:
        super().__init__(panel, panel.ui.stageLabel)
        self._task: Task | None = None
        self._volume = self._parameters = object()  # as last seen: nothing yet
        self._asked = None  # the segmentation with handwork, until the user has said where a result goes
        self._started = self._lastSign = 0.0
        self._progress: dict = {}
        self._joints: list[str] = []
        self._updating = False
        ui = self.ui
        for text, side in ((_("not known"), ""), (_("left"), "left"), (_("right"), "right")):
            ui.sideCombo.addItem(text, side)
        ui.jointCombo.currentIndexChanged.connect(lambda index: self._onCombo("joint", ui.jointCombo))
        ui.sideCombo.currentIndexChanged.connect(lambda index: self._onCombo("side", ui.sideCombo))
        ui.segmentButton.clicked.connect(self._onButton)
        ui.askNewButton.clicked.connect(lambda: self._onAsked(segmentation=None))
        ui.askUntouchedButton.clicked.connect(lambda: self._onAsked())
        ui.askNothingButton.clicked.connect(lambda: self._ask(None))
        ui.warningButton.clicked.connect(self._onOtherJoint)
        self._timer = qt.QTimer()
        self._timer.setInterval(1000)
        self._timer.timeout.connect(self._showProgress)
        self._drop = DropFilter()
        self._drop.onFile = self._onDropped
        panel.topWidget.setAcceptDrops(True)
        panel.topWidget.installEventFilter(self._drop)

    @property
    def running(self) -> bool:
        return self._task is not None

    def update(self) -> None:
        parameters, ui = self.panel.parameters, self.ui
        enable(self.running or (parameters and parameters.volume and not self.panel.busy), ui.segmentButton)
        ui.segmentButton.setText(_("Cancel") if self.running else _("Segment"))
        if parameters is None or self._updating:
            return
        self._updating = True
        self._fillJoints()
        volume = parameters.volume
        if volume is not self._volume:
            restored = parameters is not self._parameters and parameters.side  # a scene was loaded with its choices
            self._volume = volume
            self._clearMessages()
            if volume is None:
                self.say(_("Load an MR image, drop its file here, or take one from the module Sample Data."))
            elif not restored:
                parameters.side = volumes.sideOf(volume) or ""
            if segmentations.volumeOf(parameters.segmentation) not in (volume, None):
                parameters.segmentation = None
        self._parameters = parameters
        if self._asked is not parameters.segmentation:
            self._ask(None)
        if ui.jointCombo.findData(parameters.joint) < 0:  # the chosen model does not know it
            parameters.joint = "auto"
        ui.jointCombo.setCurrentIndex(ui.jointCombo.findData(parameters.joint))
        ui.sideCombo.setCurrentIndex(max(0, ui.sideCombo.findData(parameters.side)))
        self._updating = False

    def abandon(self) -> None:
        """Stops the run without calling back: the scene is being closed, or the application ends."""
        task = self._task
        if task is not None:
            task.abandon()
        self._reset()
        self._clearMessages()
        self.say(_("Cancelled.") if task is not None else "")

    def start(self, choice: Choice) -> None:
        self._ask(None)
        self._clearMessages()
        if not self.panel.setup.ready():
            self.say(_("Something is missing on this computer: see the top of the panel."))
            return
        self._run(
            _("handing over"),
            lambda: self.logic.run(
                choice, beforeWrite=self.panel.correct.saveState, onProgress=self._onProgress, onDone=self._onDone,
                onError=self._onError,
            ),
        )  # fmt: skip

    def showAnswer(self, segmentation, answer: dict) -> None:
        """Shows what was found; its volume and segmentation become the chosen ones, here and in the views."""
        if self.panel.parameters is not None:
            self.panel.parameters.volume = segmentations.volumeOf(segmentation)
            self.panel.parameters.side = answer.get("side") or ""
            self.panel.parameters.segmentation = segmentation
            self.panel.parametersChanged()
        self.ui.answerLabel.setText(messages.summary(answer))
        self._warn(messages.warningOf(answer))
        self.panel.models.showDevice(str(answer.get("device") or ""))

    # ---- what the user does

    def _onButton(self) -> None:
        if self._task is not None:
            self.say(_("Cancelling"))
            self._task.cancel()
            return
        choice = self._choice()
        try:
            volumes.check(choice.volume)  # before handwork is looked for on its grid
        except BadInput as error:
            self._onError("bad-input", str(error), {})
            return
        if choice.segmentation is None:
            self.start(choice)
            return
        self._run(
            _("looking for handwork"),
            lambda: Task(None, findingHandwork(choice), lambda found: self._onLooked(choice, found), self._onError),
        )

    def _onLooked(self, choice: Choice, found: bool) -> None:
        self._reset()
        if found:
            self._ask(choice.segmentation)
        else:
            self.start(choice)

    def _run(self, stage: str, begin) -> None:
        """Runs a task, which `begin` creates, with Cancel and progress."""
        self._started = self._lastSign = time.monotonic()
        self._progress = {"fraction": 0.0, "stage": stage}
        self._task = begin()
        self.ui.progressBar.setValue(0)
        self.ui.progressBar.setVisible(True)
        self._timer.start()
        self.panel.parametersChanged()
        self._showProgress()

    def _choice(self, **changes) -> Choice:
        parameters, models = self.panel.parameters, self.panel.models
        chosen = {name: getattr(parameters, name) for name in ("volume", "joint", "segmentation")} | changes
        return Choice(**chosen, side=parameters.side or None, model=models.model, device=models.device)

    def _ask(self, segmentation) -> None:
        """Shows the question where to put the result if the segmentation was edited by hand; None hides it."""
        self._asked = segmentation
        self.ui.askFrame.setVisible(segmentation is not None)
        if segmentation is not None:
            text = _('"{name}" was made or corrected by hand. Where shall the new result go?')
            self.ui.askLabel.setText(text.format(name=segmentation.GetName()))
            self.ui.askNewButton.setFocus()

    def _onAsked(self, **changes) -> None:
        if self._asked is not None:
            self.start(self._choice(**changes))

    def _onOtherJoint(self) -> None:
        if self.panel.parameters is not None and self.panel.parameters.volume is not None and not self.panel.busy:
            self.panel.parameters.joint = self.ui.warningButton.property("joint")
            self.start(self._choice(segmentation=None))

    def _onCombo(self, name: str, combo) -> None:
        if self.panel.parameters is not None and not self._updating:
            setattr(self.panel.parameters, name, str(combo.currentData or ""))

    def _onDropped(self, path: str) -> None:
        try:
            self.panel.parameters.volume = slicer.util.loadVolume(path)
        except RuntimeError:
            text = _("Slicer cannot read {name} as a volume. DICOM files come in by the module DICOM.")
            self.say(text.format(name=Path(path).name))

    # ---- what the worker says

    def _onProgress(self, answer: dict) -> None:
        self._progress, self._lastSign = answer, time.monotonic()
        self._showProgress()

    def _showProgress(self) -> None:
        now, fraction = time.monotonic(), float(self._progress.get("fraction") or 0)
        self.ui.progressBar.setValue(round(1000 * fraction))
        stage = messages.capitalized(str(self._progress.get("stage")))
        parts = [stage, messages.timeLeft(fraction, now - self._started)]
        if now - self._lastSign > SILENT_SECONDS:
            parts.append(_("no news for {n} s; Cancel is safe").format(n=round(now - self._lastSign)))
        self.say(" · ".join(filter(None, parts)))

    def _onDone(self, segmentation, answer: dict) -> None:
        self._reset()
        self.showAnswer(segmentation, answer)

    def _onError(self, kind: str, message: str, answer: dict) -> None:
        self._reset()
        cancelled = kind == "cancelled"
        self.say(_("Cancelled; nothing was changed.") if cancelled else "")
        self._warn(None if cancelled else messages.refusalOf(kind, message, answer))

    def _reset(self) -> None:
        """The task has ended."""
        self._task = None
        self._timer.stop()
        self.say("")
        self.ui.progressBar.setVisible(False)
        self._ask(None)
        self.panel.parametersChanged()

    def _clearMessages(self) -> None:
        """Removes what was said about an earlier run, or about another volume."""
        self.say("")
        self.ui.answerLabel.setText("")
        self._warn(None)

    def _warn(self, message: messages.Message | None) -> None:
        """One sentence; the lesser ones are in its tool tip and in the log."""
        ui, joint, details = self.ui, message.joint if message else "", message.details if message else ()
        more = " " + _("({n} more: point here)").format(n=len(details)) if details else ""
        ui.warningFrame.setVisible(message is not None)
        ui.warningLabel.setText(message.text + more if message else "")
        ui.warningLabel.setToolTip("\n".join(details))
        ui.warningButton.setVisible(bool(joint))
        ui.warningButton.setProperty("joint", joint)
        ui.warningButton.setText(_("Segment as {joint}").format(joint=joint))
        self.logic.log.append("\n".join((message.text, *details)) if message else "")

    def _fillJoints(self) -> None:
        """The joints of the chosen model."""
        if self._joints != self.panel.models.joints:
            self._joints = self.panel.models.joints
            self.ui.jointCombo.clear()
            self.ui.jointCombo.addItem(_("Detect"), "auto")
            for joint in self._joints:
                self.ui.jointCombo.addItem(messages.capitalized(joint), joint)


class DropFilter(qt.QObject):
    """Accepts a file that is dropped on the panel."""

    onFile = staticmethod(lambda path: None)

    def eventFilter(self, watched, event) -> bool:
        if event.type() not in (qt.QEvent.DragEnter, qt.QEvent.Drop):
            return False
        urls = event.mimeData().urls()
        path = urls[0].toLocalFile() if len(urls) == 1 else ""
        if not path:
            return False
        event.acceptProposedAction()
        if event.type() == qt.QEvent.Drop:
            self.onFile(path)
        return True
