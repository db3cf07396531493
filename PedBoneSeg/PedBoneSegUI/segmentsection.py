"""Sections 2 and 3: choose, click Segment, and what was found."""

import time
from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _

from . import answers, images, models, segmentations
from .dialogs import connectClicked
from .results import Choice

SILENT_SECONDS = 30  # without a sign of the worker, before the panel says so


class SegmentSection:
    def __init__(self, panel) -> None:
        self._ui, self._panel, self._engine = panel.ui, panel, panel.engine
        self._run = self._volume = self._parameters = None
        self._choice: Choice | None = None
        self._started = self._lastSign = 0.0
        self._fraction, self._stage = 0.0, ""
        self._following = False
        ui = self._ui
        for text, side in ((_("not known"), ""), (_("left"), "left"), (_("right"), "right")):
            ui.sideCombo.addItem(text, side)
        self.fillJoints()
        ui.jointCombo.currentIndexChanged.connect(lambda index: self._onCombo("joint", ui.jointCombo))
        ui.sideCombo.currentIndexChanged.connect(lambda index: self._onCombo("side", ui.sideCombo))
        connectClicked(ui.segmentButton, self._onButton)
        connectClicked(ui.askNewButton, lambda: self._onAsked(segmentation=None))
        connectClicked(ui.askUntouchedButton, lambda: self._onAsked())
        connectClicked(ui.askNothingButton, lambda: ui.askFrame.setVisible(False))
        connectClicked(ui.warningButton, self._onOtherJoint)
        self._timer = qt.QTimer()
        self._timer.setInterval(1000)
        self._timer.timeout.connect(self._tick)
        self._drop = DropFilter()
        self._drop.onFile = self._onDropped
        panel.topWidget.setAcceptDrops(True)
        panel.topWidget.installEventFilter(self._drop)
        for widget in (ui.askFrame, ui.warningFrame, ui.progressBar, ui.warningButton):
            widget.setVisible(False)

    @property
    def running(self) -> bool:
        return self._run is not None

    def fillJoints(self) -> None:
        """The joints of the chosen model; the choice stays if the model has it."""
        combo = self._ui.jointCombo
        combo.blockSignals(True)
        combo.clear()
        combo.addItem(_("Detect"), "auto")
        for joint in models.choosableJoints(self._panel.models.model):
            combo.addItem(joint[:1].upper() + joint[1:], joint)
        combo.blockSignals(False)
        self.follow()

    def follow(self) -> None:
        """Brings the widgets in line with the parameter node."""
        parameters, ui = self._panel.parameters, self._ui
        if parameters is None or self._following:
            ui.segmentButton.setEnabled(self.running)
            return
        self._following = True
        volume = parameters.volume
        if volume is not self._volume:
            restored = parameters is not self._parameters and parameters.side  # a scene was loaded with its choices
            self._volume = volume
            if volume is not None and not restored:
                parameters.side = images.sideOf(volume) or ""
            if segmentations.volumeOf(parameters.segmentation) not in (volume, None):
                parameters.segmentation = None
        self._parameters = parameters
        ui.jointCombo.setCurrentIndex(max(0, ui.jointCombo.findData(parameters.joint)))
        ui.sideCombo.setCurrentIndex(max(0, ui.sideCombo.findData(parameters.side)))
        ui.segmentButton.setEnabled(self.running or (volume is not None and not self._panel.busy))
        ui.segmentButton.setText(_("Cancel") if self.running else _("Segment"))
        self._following = False

    def abandon(self) -> None:
        """For a scene that closes, or the end: the work stops and nobody is told."""
        run, self._run = self._run, None
        if run is not None:
            run.abandon()
        self._reset()
        self._say(_("Cancelled.") if run is not None else "")
        self._ui.answerLabel.setText("")
        self._warn(None)

    def start(self, choice: Choice) -> None:
        ui = self._ui
        ui.askFrame.setVisible(False)
        self._warn(None)
        ui.answerLabel.setText("")
        if not self._panel.ready():
            self._say(_("Something is missing on this computer: see the top of the panel."))
            return
        self._started = self._lastSign = time.monotonic()
        self._fraction, self._stage, self._choice = 0.0, _("Starting"), choice
        try:
            self._run = self._engine.run(
                choice, beforeWrite=self._panel.correct.saveState, onProgress=self._onProgress, onDone=self._onDone,
                onError=self._onError,
            )  # fmt: skip
        except ValueError as error:
            self._warn(answers.Warning(str(error)))
            return
        ui.progressBar.setValue(0)
        ui.progressBar.setVisible(True)
        self._timer.start()
        self._panel.parametersChanged()
        self._tick()

    def showAnswer(self, segmentation, answer: dict) -> None:
        """What was found, and the warning that must not be missed; the segmentation becomes the chosen one."""
        self._say("")
        self._ui.answerLabel.setText(answers.summary(answer))
        self._warn(answers.warningOf(answer))
        self._panel.models.showDevice(str(answer.get("device") or ""))
        if self._panel.parameters is not None:
            self._panel.parameters.segmentation = segmentation
            self._panel.parametersChanged()

    # ---- what the user does

    def _onButton(self) -> None:
        if self._run is not None:
            self._say(_("Cancelling"))
            self._run.cancel()
            return
        parameters = self._panel.parameters
        if parameters is None or parameters.volume is None:
            self._say(_("Choose a volume first."))
            return
        choice = Choice(
            parameters.volume, parameters.joint, parameters.side or None, parameters.segmentation, True,
            self._panel.models.model, self._panel.models.device,
        )  # fmt: skip
        if self._holdsHandwork(choice):
            self._choice = choice
            self._ui.askLabel.setText(
                _('"{name}" holds work of your hand. Where shall the new result go?').format(
                    name=choice.segmentation.GetName()
                )
            )
            self._ui.askFrame.setVisible(True)
            return
        self.start(choice)

    def _holdsHandwork(self, choice: Choice) -> bool:
        segmentation = choice.segmentation
        if segmentation is None or segmentation.GetSegmentation().GetNumberOfSegments() == 0:
            return False
        table = segmentations.tableOf(segmentation)
        if table is None:
            return True
        axis = segmentations.axisOf(segmentation, choice.volume)
        return bool(segmentations.editedSlices(segmentation, table, choice.volume, axis))

    def _onAsked(self, **changes) -> None:
        choice = self._choice
        scene = slicer.mrmlScene
        if not scene.IsNodePresent(choice.volume) or not scene.IsNodePresent(choice.segmentation):
            self._ui.askFrame.setVisible(False)
            return
        self.start(Choice(**{**choice.__dict__, **changes}))

    def _onOtherJoint(self) -> None:
        joint = self._ui.warningButton.property("joint")
        parameters = self._panel.parameters
        if joint and parameters is not None and self._run is None and parameters.volume is not None:
            parameters.joint = joint
            new = {"joint": joint, "volume": parameters.volume, "segmentation": None, "side": parameters.side or None}
            self.start(Choice(**new, model=self._panel.models.model, device=self._panel.models.device))

    def _onCombo(self, name: str, combo) -> None:
        if self._panel.parameters is not None and not self._following:
            setattr(self._panel.parameters, name, str(combo.currentData or ""))

    def _onDropped(self, path: str) -> None:
        try:
            volume = slicer.util.loadVolume(path)
        except RuntimeError:
            self._say(_("{name} is no volume that Slicer can read.").format(name=Path(path).name))
            return
        self._panel.parameters.volume = volume

    # ---- what the worker says

    def _onProgress(self, fraction: float, stage: str) -> None:
        self._fraction, self._stage, self._lastSign = fraction, stage, time.monotonic()
        self._ui.progressBar.setValue(round(1000 * fraction))
        self._tick()

    def _tick(self) -> None:
        if self._run is None:
            return
        now = time.monotonic()
        parts = [self._stage, answers.timeLeft(self._fraction, now - self._started)]
        if now - self._lastSign > SILENT_SECONDS:
            parts.append(_("no sign for {n} s; Cancel is safe").format(n=round(now - self._lastSign)))
        self._say(" · ".join(filter(None, parts)))

    def _onDone(self, segmentation, answer: dict) -> None:
        self._run = None
        self._reset()
        self.showAnswer(segmentation, answer)

    def _onError(self, kind: str, message: str, answer: dict) -> None:
        self._run = None
        self._reset()
        self._say(_("Cancelled; nothing was changed.") if kind == "cancelled" else "")
        if kind != "cancelled":
            self._warn(answers.refusalOf(kind, message, answer))

    def _reset(self) -> None:
        self._timer.stop()
        self._ui.progressBar.setVisible(False)
        self._ui.askFrame.setVisible(False)
        self._panel.parametersChanged() if self._panel.parameters is not None else self.follow()

    def _say(self, text: str) -> None:
        self._ui.stageLabel.setText(text)

    def _warn(self, warning: answers.Warning | None) -> None:
        ui = self._ui
        ui.warningFrame.setVisible(warning is not None)
        ui.warningLabel.setText(warning.text if warning else "")
        joint = warning.joint if warning else ""
        ui.warningButton.setVisible(bool(joint))
        ui.warningButton.setProperty("joint", joint)
        ui.warningButton.setText(_("Segment as {joint}").format(joint=joint))


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
