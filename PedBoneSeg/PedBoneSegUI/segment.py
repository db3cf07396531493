"""Sections 2 and 3: choose, click Segment, and what was found."""

import time
from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _

from PedBoneSegLib.errors import BadInput

from . import answers, images, segmentations
from .runs import Choice, Errand
from .section import Section, enable

SILENT_SECONDS = 30  # without a sign of the worker, before the panel says so


class SegmentSection(Section):
    def __init__(self, panel) -> None:
        super().__init__(panel, panel.ui.stageLabel)
        self._run: Errand | None = None
        self._volume = self._parameters = object()  # as last seen: nothing yet
        self._asked = None  # the segmentation that holds handwork, until the user has said where a result goes
        self._started = self._lastSign = 0.0
        self._progress: dict = {}
        self._joints: list[str] = []
        self._following = False
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
        self._timer.timeout.connect(self._tick)
        self._drop = DropFilter()
        self._drop.onFile = self._onDropped
        panel.topWidget.setAcceptDrops(True)
        panel.topWidget.installEventFilter(self._drop)

    @property
    def running(self) -> bool:
        return self._run is not None

    def follow(self) -> None:
        parameters, ui = self.panel.parameters, self.ui
        enable(self.running or (parameters and parameters.volume and not self.panel.busy), ui.segmentButton)
        ui.segmentButton.setText(_("Cancel") if self.running else _("Segment"))
        if parameters is None or self._following:
            return
        self._following = True
        self._fillJoints()
        volume = parameters.volume
        if volume is not self._volume:
            restored = parameters is not self._parameters and parameters.side  # a scene was loaded with its choices
            self._volume = volume
            self._forget()
            if volume is None:
                self.say(_("Load an MR image, drop its file here, or take one from the module Sample Data."))
            elif not restored:
                parameters.side = images.sideOf(volume) or ""
            if segmentations.volumeOf(parameters.segmentation) not in (volume, None):
                parameters.segmentation = None
        self._parameters = parameters
        if self._asked is not parameters.segmentation:
            self._ask(None)
        if ui.jointCombo.findData(parameters.joint) < 0:  # the chosen model does not know it
            parameters.joint = "auto"
        ui.jointCombo.setCurrentIndex(ui.jointCombo.findData(parameters.joint))
        ui.sideCombo.setCurrentIndex(max(0, ui.sideCombo.findData(parameters.side)))
        self._following = False

    def abandon(self) -> None:
        """For a scene that closes, or the end: the work stops and nobody is told."""
        run = self._run
        if run is not None:
            run.abandon()
        self._reset()
        self._forget()
        self.say(_("Cancelled.") if run is not None else "")

    def start(self, choice: Choice) -> None:
        self._ask(None)
        self._forget()
        if not self.panel.setup.ready():
            self.say(_("Something is missing on this computer: see the top of the panel."))
            return
        self._started = self._lastSign = time.monotonic()
        self._progress = {"fraction": 0.0, "stage": _("handing over")}
        self._run = self.logic.run(
            choice, beforeWrite=self.panel.correct.saveState, onProgress=self._onProgress, onDone=self._onDone,
            onError=self._onError,
        )  # fmt: skip
        self.ui.progressBar.setValue(0)
        self.ui.progressBar.setVisible(True)
        self._timer.start()
        self.panel.parametersChanged()
        self._tick()

    def showAnswer(self, segmentation, answer: dict) -> None:
        """What was found, and the warning that must not be missed; volume and segmentation become the chosen ones."""
        if self.panel.parameters is not None:
            self.panel.parameters.volume = segmentations.volumeOf(segmentation)
            self.panel.parameters.side = answer.get("side") or ""
            self.panel.parameters.segmentation = segmentation
            self.panel.parametersChanged()
        self.ui.answerLabel.setText(answers.summary(answer))
        self._warn(answers.warningOf(answer))
        self.panel.models.showDevice(str(answer.get("device") or ""))

    # ---- what the user does

    def _onButton(self) -> None:
        if self._run is not None:
            self.say(_("Cancelling"))
            self._run.cancel()
            return
        choice = self._choice()
        try:
            images.check(choice.volume)  # before handwork is looked for on its grid
        except BadInput as error:
            self._onError("bad-input", str(error), {})
            return
        if self._holdsHandwork(choice):
            self._ask(choice.segmentation)
        else:
            self.start(choice)

    def _choice(self, **changes) -> Choice:
        parameters, models = self.panel.parameters, self.panel.models
        chosen = {name: getattr(parameters, name) for name in ("volume", "joint", "segmentation")} | changes
        return Choice(**chosen, side=parameters.side or None, model=models.model, device=models.device)

    @staticmethod
    def _holdsHandwork(choice: Choice) -> bool:
        segmentation = choice.segmentation
        if segmentation is None or segmentation.GetSegmentation().GetNumberOfSegments() == 0:
            return False
        table, axis = segmentations.tableOf(segmentation), segmentations.axisOf(segmentation, choice.volume)
        return table is None or bool(segmentations.editedSlices(segmentation, table, choice.volume, axis))

    def _ask(self, segmentation) -> None:
        """Where shall a result go that is meant for a segmentation with handwork? None: the question is settled."""
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
        if self.panel.parameters is not None and not self._following:
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
        self._tick()

    def _tick(self) -> None:
        now, fraction = time.monotonic(), float(self._progress.get("fraction") or 0)
        self.ui.progressBar.setValue(round(1000 * fraction))
        parts = [answers.capitalized(str(self._progress.get("stage"))), answers.timeLeft(fraction, now - self._started)]
        if now - self._lastSign > SILENT_SECONDS:
            parts.append(_("no sign for {n} s; Cancel is safe").format(n=round(now - self._lastSign)))
        self.say(" · ".join(filter(None, parts)))

    def _onDone(self, segmentation, answer: dict) -> None:
        self._reset()
        self.showAnswer(segmentation, answer)

    def _onError(self, kind: str, message: str, answer: dict) -> None:
        self._reset()
        cancelled = kind == "cancelled"
        self.say(_("Cancelled; nothing was changed.") if cancelled else "")
        self._warn(None if cancelled else answers.refusalOf(kind, message, answer))

    def _reset(self) -> None:
        """The run has ended."""
        self._run = None
        self._timer.stop()
        self.ui.progressBar.setVisible(False)
        self._ask(None)
        self.panel.parametersChanged()

    def _forget(self) -> None:
        """What was said of an earlier run, or of another volume."""
        self.say("")
        self.ui.answerLabel.setText("")
        self._warn(None)

    def _warn(self, warning: answers.Warning | None) -> None:
        ui, joint = self.ui, warning.joint if warning else ""
        ui.warningFrame.setVisible(warning is not None)
        ui.warningLabel.setText(warning.text if warning else "")
        ui.warningButton.setVisible(bool(joint))
        ui.warningButton.setProperty("joint", joint)
        ui.warningButton.setText(_("Segment as {joint}").format(joint=joint))

    def _fillJoints(self) -> None:
        """The joints of the chosen model."""
        if self._joints != self.panel.models.joints:
            self._joints = self.panel.models.joints
            self.ui.jointCombo.clear()
            self.ui.jointCombo.addItem(_("Detect"), "auto")
            for joint in self._joints:
                self.ui.jointCombo.addItem(answers.capitalized(joint), joint)


class DropFilter(qt.QObject):
    """Takes a file that is dropped on the panel."""

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
