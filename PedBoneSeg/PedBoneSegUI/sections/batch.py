"""The section that segments a folder of volumes; a double click loads a result for review."""

from pathlib import Path

import slicer
from slicer.i18n import tr as _

from PedBoneSegLib.errors import BadInput
from PedBoneSegLib.program.batch import results_of_other_inputs

from .. import messages, models, segmentations, segmenting, volumes
from ..tasks import runToEnd
from .section import Section
from .widgets import enable, fillRow, fillTable

STATES = {"done": _("done"), "skipped": _("done before"), "failed": _("failed")}


class BatchSection(Section):
    """The worker goes through the folder and keeps the list of what is done; the panel shows what it reports."""

    def __init__(self, panel) -> None:
        super().__init__(panel, panel.ui.batchLabel)
        self._request = None  # while it runs
        self._fields: dict = {}  # of the request
        self._files: list[dict] = []  # the result of each file, as `pedboneseg segment FOLDER --json` prints it
        self._loaded: dict[int, object] = {}  # row: the segmentation that it was loaded as
        self._current = ""  # the file that is being segmented
        self.ui.batchButton.clicked.connect(self._onButton)
        self.ui.batchTable.cellDoubleClicked.connect(lambda row, column: self._load(row))

    @property
    def running(self) -> bool:
        return self._request is not None

    def update(self) -> None:
        self.ui.batchButton.setText(_("Cancel") if self.running else _("Start"))
        enable(self.running or not self.panel.segment.running, self.ui.batchButton)

    def close(self) -> None:
        if self.running:
            self.logic.client.cancel(self._request)

    def _onButton(self) -> None:
        if self.running:
            self.close()
            return
        source, output = (str(edit.currentPath).strip() for edit in (self.ui.batchInputEdit, self.ui.batchOutputEdit))
        if not source or not Path(source).is_dir():
            self.say(_("Choose the folder of volumes."))
        elif self.panel.setup.ready() and self.panel.parameters is not None and self._mayWrite(source, output):
            parameters, chosen = self.panel.parameters, self.panel.models
            self._fields = {
                "input": source, "output": output or None, "joint": parameters.joint, "side": parameters.side or None,
                "model": models.modelFor(parameters.joint, chosen.model) or None, "device": chosen.device,
                "given_up": [],
            }  # fmt: skip
            self._send()

    def _mayWrite(self, source: str, output: str) -> bool:
        """False, with a sentence, if results of other images would be replaced."""
        try:
            folder, names = results_of_other_inputs(Path(source), Path(output) if output else None)
        except BadInput as error:  # its list of what is done is damaged
            self.say(messages.sentence(str(error)))
            return False
        if names:
            text = _("{folder} holds results of other images with the same names ({names}): choose another folder.")
            self.say(text.format(folder=folder.name, names=", ".join(names[:3]) + (" …" if len(names) > 3 else "")))
        return not names

    def _send(self) -> None:
        self._files, self._loaded, self._current = [], {}, ""
        fillTable(self.ui.batchTable, [_("File"), _("State"), _("Result")], [], wide=2)
        self._request = self.logic.client.send(
            "batch", self._fields, onDone=self._onDone, onError=self._onError, onProgress=self._onProgress
        )
        self.say(_("Starting"))
        self.panel.parametersChanged()

    def _onProgress(self, answer: dict) -> None:
        self.ui.batchBar.setValue(round(1000 * float(answer.get("fraction") or 0)))
        if "file" not in answer:
            self._current, _colon, stage = str(answer.get("stage")).rpartition(": ")
            self.say(f"{self._current} · {stage}" if stage else "")
            return
        row = answer["file"]
        self._files.append(row)
        self.logic.log.hide(row["input"], row["input"].split(".")[0])
        self.ui.batchTable.setRowCount(len(self._files))
        fillRow(self.ui.batchTable, len(self._files) - 1, [row["input"], STATES[row["status"]], noteOf(row)])

    def _onDone(self, answer: dict) -> None:
        summary = answer["summary"]
        self.ui.batchBar.setValue(1000)
        text = _("{done} done, {skipped} done before, {failed} failed; results and {csv} are in {folder}.")
        names = {key: Path(summary[key]).name for key in ("csv", "folder")}
        self._end(text.format(**{**summary, **names}))

    def _onError(self, kind: str, message: str, answer: dict) -> None:
        if kind == "died" and self._current and self._current not in self._fields["given_up"]:
            # One bad file does not stop the rest: a new worker goes on, without the file that the last one died of.
            self._fields["given_up"].append(self._current)
            self._send()
        else:
            stopped = _("Cancelled; Start goes on where it stopped.")
            self._end(stopped if kind == "cancelled" else messages.sentence(message))

    def _end(self, sentence: str) -> None:
        self._request = None
        self.say(sentence)
        self.panel.parametersChanged()

    def _load(self, number: int) -> None:
        """Loads volume and result, or chooses them if they are loaded already; then the whole panel works on them."""
        row = self._files[number]
        if row["status"] == "failed" or self.panel.parameters is None or self.panel.busy:
            return
        loaded = self._loaded.get(number)
        if loaded is None or not slicer.mrmlScene.IsNodePresent(loaded) or segmentations.volumeOf(loaded) is None:
            loaded = None
            with self.reporting(_("Not loaded: {reason}")):
                loaded = self._loaded[number] = self._read(row)
        if loaded is not None:
            self.panel.segment.showAnswer(loaded, row)

    def _read(self, row: dict):
        source, model = Path(self._fields["input"]) / row["input"], self._fields["model"] or ""
        volume = volumes.addVolume(source, source.name.split(".")[0])
        try:
            choice, name = segmenting.Choice(volume, model=model), segmentations.resultName(volume)
            steps = segmenting.inserting(choice, row, volumes.gridOf(volume), Path(row["output"]), None, name)
            segmentation = runToEnd(steps)
        except Exception:
            slicer.mrmlScene.RemoveNode(volume)
            raise
        volume.CreateDefaultDisplayNodes()
        return segmentation


def noteOf(row: dict) -> str:
    """The result of a file in words."""
    if row["status"] == "failed":
        error = row["error"]
        text = "; ".join(filter(None, (error["message"], error["hint"])))
        return messages.refusalOf(error["kind"], text, error).text
    warning = messages.warningOf(row)
    return messages.summary(row) + (f" · {warning.text}" if warning else "")
