"""Section 8: a folder in, a folder out, by the worker; a double click loads a result for review."""

from pathlib import Path

import slicer
from slicer.i18n import tr as _

from . import answers, images, models, runs, segmentations
from .section import Section, enable, fillRow, fillTable

STATES = {"done": _("done"), "skipped": _("done before"), "failed": _("failed")}


class BatchSection(Section):
    """The worker goes through the folder and keeps the list of what is done; here is what it says of each file."""

    def __init__(self, panel) -> None:
        super().__init__(panel, panel.ui.batchLabel)
        self._request = None  # while it runs
        self._fields: dict = {}  # of the request
        self._files: list[dict] = []  # what came of each, as `pedboneseg segment FOLDER --json` prints it
        self._working = ""  # the file at hand
        self.ui.batchButton.clicked.connect(self._onButton)
        self.ui.batchTable.cellDoubleClicked.connect(lambda row, column: self._load(self._files[row]))

    @property
    def running(self) -> bool:
        return self._request is not None

    def follow(self) -> None:
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
        elif self.panel.setup.ready() and self.panel.parameters is not None:
            parameters, chosen = self.panel.parameters, self.panel.models
            self._fields = {
                "input": source, "output": output or None, "joint": parameters.joint, "side": parameters.side or None,
                "model": models.modelFor(parameters.joint, chosen.model) or None, "device": chosen.device,
                "given_up": [],
            }  # fmt: skip
            self._send()

    def _send(self) -> None:
        self._files, self._working = [], ""
        fillTable(self.ui.batchTable, [_("File"), _("State"), _("Result")], [])
        self._request = self.logic.client.send(
            "batch", self._fields, onDone=self._onDone, onError=self._onError, onProgress=self._onProgress
        )
        self.say(_("Starting"))
        self.panel.parametersChanged()

    def _onProgress(self, answer: dict) -> None:
        self.ui.batchBar.setValue(round(1000 * float(answer.get("fraction") or 0)))
        if "file" not in answer:
            self._working, _colon, stage = str(answer.get("stage")).rpartition(": ")
            self.say(f"{self._working} · {stage}" if stage else "")
            return
        row = answer["file"]
        self._files.append(row)
        self.logic.log.hide(row["input"], row["input"].split(".")[0])
        self.ui.batchTable.setRowCount(len(self._files))
        fillRow(self.ui.batchTable, len(self._files) - 1, [row["input"], STATES[row["status"]], noteOf(row)])

    def _onDone(self, answer: dict) -> None:
        summary = answer["summary"]
        self.ui.batchOutputEdit.currentPath = summary["folder"]
        self.ui.batchBar.setValue(1000)
        words = _("{done} done, {skipped} done before, {failed} failed; volumes and errors are in {csv}")
        self._end(words.format(**{**summary, "csv": Path(summary["csv"]).name}))

    def _onError(self, kind: str, message: str, answer: dict) -> None:
        if kind == "died" and self._working and self._working not in self._fields["given_up"]:
            # One bad file does not stop the rest: a new worker goes on, without the file that the last one died of.
            self._fields["given_up"].append(self._working)
            self._send()
        else:
            stopped = _("Cancelled; Start goes on where it stopped.")
            self._end(stopped if kind == "cancelled" else answers.capitalized(message))

    def _end(self, sentence: str) -> None:
        self._request = None
        self.say(sentence)
        self.panel.parametersChanged()

    def _load(self, row: dict) -> None:
        """Volume and result into the scene; then everything of the panel works on them."""
        if row["status"] == "failed" or self.panel.parameters is None:
            return
        with self.telling(_("Not loaded: {reason}")):
            source, model = Path(self._fields["input"]) / row["input"], self._fields["model"] or ""
            volume = images.addVolume(source, source.name.split(".")[0])
            try:
                choice, name = runs.Choice(volume, model=model), segmentations.resultName(volume)
                steps = runs.landing(choice, row, images.gridOf(volume), Path(row["output"]), None, name)
                segmentation = atOnce(steps)
            except Exception:
                slicer.mrmlScene.RemoveNode(volume)
                raise
            volume.CreateDefaultDisplayNodes()
            slicer.util.setSliceViewerLayers(background=volume, fit=True)
            self.panel.segment.showAnswer(segmentation, row)


def noteOf(row: dict) -> str:
    """What came of a file, in words."""
    if row["status"] == "failed":
        error = row["error"]
        return answers.refusalOf(error["kind"], "; ".join(filter(None, (error["message"], error["hint"]))), error).text
    warning = answers.warningOf(row)
    return answers.summary(row) + (f" · {warning.text}" if warning else "")


def atOnce(steps):
    """Runs a generator to its end; returns its value."""
    try:
        while True:
            next(steps)
    except StopIteration as end:
        return end.value
