"""Section 8: a folder in, a folder out; a double click loads a result for review."""

from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _

from . import images, models
from .batch import Batch, Item
from .dialogs import connectClicked, fillTable, shortError
from .results import Choice, putIntoScene
from .workerclient import nothing

COLUMNS = ("File", "State", "Result")
STATES = {
    "waiting": "waiting", "running": "running", "done": "done", "skipped": "done before", "failed": "failed",
    "cancelled": "cancelled",
}  # fmt: skip


class BatchSection:
    def __init__(self, panel) -> None:
        self._ui, self._panel = panel.ui, panel
        self._batch: Batch | None = None
        self._active = False
        connectClicked(self._ui.batchButton, self._onButton)
        self._ui.batchTable.cellDoubleClicked.connect(lambda row, column: self._load(row))

    @property
    def running(self) -> bool:
        return self._active

    def follow(self) -> None:
        self._ui.batchButton.setText(_("Cancel") if self._active else _("Start"))
        self._ui.batchButton.setEnabled(self._active or not self._panel.segment.running)

    def close(self) -> None:
        if self._batch is not None and self._active:
            self._batch.cancel()

    def _onButton(self) -> None:
        ui, parameters = self._ui, self._panel.parameters
        if self._active:
            self._batch.cancel()
            return
        source, output = (Path(str(edit.currentPath).strip()) for edit in (ui.batchInputEdit, ui.batchOutputEdit))
        if not str(ui.batchInputEdit.currentPath).strip() or not source.is_dir():
            self._say(_("Choose the folder of volumes."))
            return
        if not str(ui.batchOutputEdit.currentPath).strip():
            output = source.with_name(source.name + "_bones")
            ui.batchOutputEdit.currentPath = str(output)
        if output == source:
            self._say(_("Choose another folder for the results."))
            return
        if not self._panel.ready() or parameters is None:
            return
        options = {"joint": parameters.joint, "device": self._panel.models.device}
        options |= {"side": parameters.side} if parameters.side else {}
        options |= {"model": self._panel.models.model} if self._panel.models.model else {}
        self._batch = Batch(self._panel.engine.client, source, output, options, self._onChange, self._onEnd)
        try:
            self._batch.start()
        except OSError as error:
            self._say(_("The folder for the results cannot be made: {reason}").format(reason=shortError(error)))
            return
        self._active = True
        fillTable(ui.batchTable, [_(column) for column in COLUMNS], [])
        self._say("")
        self._panel.parametersChanged()

    def _onChange(self, position: int) -> None:
        table, items = self._ui.batchTable, self._batch.items
        if position >= table.rowCount:
            table.setRowCount(position + 1)
        for column, text in enumerate(self._cells(items[position])):
            cell = table.item(position, column)
            if cell is None:
                table.setItem(position, column, qt.QTableWidgetItem(text))
            else:
                cell.setText(text)
        ended = sum(item.state not in ("waiting", "running") for item in items)
        self._ui.batchBar.setMaximum(max(1, len(items)))
        self._ui.batchBar.setValue(ended)

    @staticmethod
    def _cells(item: Item) -> tuple[str, str, str]:
        return item.name, _(STATES[item.state]), item.note

    def _onEnd(self, sentence: str) -> None:
        self._active = False
        self._say(sentence)
        self._panel.parametersChanged()

    def _load(self, row: int) -> None:
        """Volume and result into the scene; then everything of the panel works on them."""
        item = self._batch.items[row] if self._batch and row < len(self._batch.items) else None
        if item is None or item.state not in ("done", "skipped") or self._panel.parameters is None:
            return
        volume = None
        try:
            volume = images.readFile(item.source, "vtkMRMLScalarVolumeNode")
            volume.SetName(item.source.name.split(".")[0])
            volume = slicer.mrmlScene.AddNode(volume)
            volume.CreateDefaultDisplayNodes()
            table = models.tableOf(item.answer, self._batch.model)
            choice = Choice(volume, model=self._batch.model)
            name = f"{volume.GetName()} bones"
            segmentation = putIntoScene(choice, item.answer, table, item.result, None, name, nothing)
        except (RuntimeError, OSError) as error:
            if volume is not None and volume.GetScene():
                slicer.mrmlScene.RemoveNode(volume)
            self._say(_("{name} could not be loaded: {reason}").format(name=item.name, reason=shortError(error)))
            return
        self._panel.parameters.volume = volume
        slicer.util.setSliceViewerLayers(background=volume, fit=True)
        self._panel.segment.showAnswer(segmentation, item.answer)

    def _say(self, text: str) -> None:
        self._ui.batchLabel.setText(text)
