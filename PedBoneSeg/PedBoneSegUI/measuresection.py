"""Section 6: volume, surface, extents and axes of every bone; 3-D; meshes."""

import slicer
from slicer.i18n import tr as _

from PedBoneSegLib.files import whole_file

from . import measuretable, segmentations
from .dialogs import askFolder, askSaveFile, connectClicked, copyText, fillTable, shortError


class MeasureSection:
    def __init__(self, panel) -> None:
        self._ui, self._panel = panel.ui, panel
        self._measured = None  # the segmentation that the table shows
        self._columns: list[str] = []
        self._rows: list[list] = []
        ui = self._ui
        connectClicked(ui.measureButton, self._measure)
        connectClicked(ui.measureCopyButton, lambda: copyText(measuretable.tabText(self._columns, self._rows)))
        connectClicked(ui.measureCsvButton, self._saveCsv)
        connectClicked(ui.meshesButton, self._saveMeshes)
        self._enableTable()

    def follow(self) -> None:
        segmentation = self._panel.segmentation
        if self._rows and segmentation is not self._measured:
            self._columns, self._rows = [], []
            fillTable(self._ui.measureTable, [], [])
            self._enableTable()
        self._ui.measureButton.setEnabled(segmentations.tableOf(segmentation) is not None)
        self._ui.meshesButton.setEnabled(segmentation is not None)
        self._ui.show3DButton.setSegmentationNode(segmentation)

    def _measure(self) -> None:
        segmentation = self._panel.segmentation
        table = segmentations.tableOf(segmentation)
        if table is None or not self._panel.ready():
            return
        self._ui.measureButton.setEnabled(False)
        self._say(_("Measuring"))
        try:
            self._panel.engine.measure(
                segmentation, table, lambda answer: self._onMeasured(segmentation, table, answer),
                lambda kind, message, answer: self._onEnd(message),
            )  # fmt: skip
        except ValueError as error:
            self._onEnd(str(error))

    def _onMeasured(self, segmentation, table, answer: dict) -> None:
        if not slicer.mrmlScene.IsNodePresent(segmentation):
            self._onEnd("")
            return
        self._measured = segmentation
        self._columns, self._rows = measuretable.rowsOf(answer)
        measuretable.toNode(segmentation, self._columns, self._rows)
        fillTable(self._ui.measureTable, self._columns, [[measuretable.cell(v) for v in row] for row in self._rows])
        others = measuretable.unknownSegments(segmentation, table)
        self._onEnd(_("Not measured: {names}").format(names=", ".join(others)) if others else "")
        self._enableTable()

    def _onEnd(self, text: str) -> None:
        self._say(text)
        self.follow()

    def _saveCsv(self) -> None:
        path = askSaveFile(_("Save the measures"), "bones.csv", "CSV (*.csv)")
        if path is None:
            return
        try:
            with whole_file(path) as temporary:
                temporary.write_text(measuretable.tabText(self._columns, self._rows, ","), encoding="utf-8")
            self._say(_("Saved: {name}").format(name=path.name))
        except OSError as error:
            self._say(_("Not saved: {reason}").format(reason=shortError(error)))

    def _saveMeshes(self) -> None:
        folder = askFolder(_("Folder for the surfaces"))
        segmentation = self._panel.segmentation
        if folder is None or segmentation is None:
            return
        segmentation.CreateClosedSurfaceRepresentation()
        logic = slicer.vtkSlicerSegmentationsModuleLogic
        written = logic.ExportSegmentsClosedSurfaceRepresentationToFiles(str(folder), segmentation, None, "STL")
        self._say(_("Saved: {name}").format(name=folder.name) if written else _("The surfaces could not be written."))

    def _enableTable(self) -> None:
        self._ui.measureCopyButton.setEnabled(bool(self._rows))
        self._ui.measureCsvButton.setEnabled(bool(self._rows))

    def _say(self, text: str) -> None:
        self._ui.measureLabel.setText(text)
