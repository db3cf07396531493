"""The section with the measures of every bone, as the worker takes them, and the bones in 3-D."""

import csv
import io
from functools import partial

import slicer
import vtk
from slicer.i18n import tr as _

from PedBoneSegLib.files import write_text
from PedBoneSegLib.results.columns import titles
from PedBoneSegLib.results.documents import measure_csv

from .. import segmentations
from .section import Section
from .widgets import askFolder, askSaveFile, copyText, enable, fillTable


def headings() -> dict[str, str]:
    """The columns that the panel shows, units on a second line; the table in the scene, Copy and CSV have all."""
    return {"bone": _("Bone"), **{name: _(title).replace(" (", "\n(") for name, title in titles().items()}}


def fillTableNode(segmentation, columns: list[str], rows: list[list[str]]) -> None:
    """Writes the measures into the table node that belongs to the segmentation; creates it if need be."""
    role = "PedBoneSeg.Measures"
    node = segmentation.GetNodeReference(role)
    if node is None:
        name = _("{name} measures").format(name=segmentation.GetName())
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", name)
        segmentation.SetNodeReferenceID(role, node.GetID())
    table = vtk.vtkTable()
    for index, name in enumerate(columns):
        column = vtk.vtkStringArray() if name == "bone" else vtk.vtkDoubleArray()
        column.SetName(name)
        for row in rows:
            column.InsertNextValue(row[index] if name == "bone" else float(row[index] or "nan"))
        table.AddColumn(column)
    node.SetAndObserveTable(table)


class MeasureSection(Section):
    def __init__(self, panel) -> None:
        super().__init__(panel, panel.ui.measureLabel)
        self._measured, self._csv, self._task = None, "", None  # the segmentation in the table, and all its measures
        self.ui.measureButton.clicked.connect(self._measure)
        self.ui.measureCopyButton.clicked.connect(lambda: copyText(self._csv.replace(",", "\t")))
        self.ui.measureCsvButton.clicked.connect(self._saveCsv)
        self.ui.meshesButton.clicked.connect(self._saveMeshes)

    def update(self) -> None:
        segmentation = self.panel.segmentation
        if segmentation is not self._measured:
            self._measured, self._csv = segmentation, ""
            fillTable(self.ui.measureTable, [], [])
            self.say("")
        known = segmentations.tableOf(segmentation) and segmentations.volumeOf(segmentation)
        enable(segmentation, self.ui.measureSection)
        if segmentation is None:
            self.ui.measureSection.collapsed = True
        # The worker does one thing at a time.
        enable(known and not self.panel.busy and self._task is None, self.ui.measureButton)
        enable(segmentation, self.ui.meshesButton)
        enable(self._csv, self.ui.measureCopyButton, self.ui.measureCsvButton)
        self.ui.show3DButton.setSegmentationNode(segmentation)

    def close(self) -> None:
        if self._task is not None:
            self._task.abandon()
            self._task = None

    def _measure(self) -> None:
        segmentation = self.panel.segmentation
        if self.panel.setup.ready():
            self.say(_("Measuring"))
            onDone = partial(self._onMeasured, segmentation)
            self._task = self.logic.measure(segmentation, onDone=onDone, onError=self._onError)
            self.update()

    def _onMeasured(self, segmentation, answer: dict) -> None:
        self._task = None
        if segmentation is self.panel.segmentation:  # else it was removed, or another one is chosen now
            self._csv = measure_csv(answer["bones"])
            columns, *rows = csv.reader(io.StringIO(self._csv))
            fillTableNode(segmentation, columns, rows)
            shown = [columns.index(name) for name in headings() if name in columns]
            cells = [
                [row[0], *(f"{float(row[index]):.4g}" if row[index] else "" for index in shown[1:])] for row in rows
            ]
            fillTable(self.ui.measureTable, [headings()[columns[index]] for index in shown], cells)
            others = segmentations.otherSegments(segmentation, segmentations.tableOf(segmentation))
            text = _("Not measured, as they are not bones: {names}").format(names=", ".join(others))
            self.say(text if others else "")
        self.update()

    def _onError(self, kind: str, message: str, answer: dict) -> None:
        self._task = None
        self.say(message)
        self.update()

    def _saveCsv(self) -> None:
        with self.reporting(_("Not saved: {reason}")):
            path = askSaveFile(_("Save the measures"), "bones.csv", "CSV (*.csv)", (".csv",))
            if path is not None:
                write_text(path, self._csv)
                self.say(_("Saved: {name}").format(name=path.name))

    def _saveMeshes(self) -> None:
        folder = askFolder(_("Folder for the surfaces"))
        if folder is not None:
            segmentation, logic = self.panel.segmentation, slicer.vtkSlicerSegmentationsModuleLogic
            segmentation.CreateClosedSurfaceRepresentation()
            done = logic.ExportSegmentsClosedSurfaceRepresentationToFiles(str(folder), segmentation, None, "STL")
            self.say(_("Saved: {name}").format(name=folder.name) if done else _("The surfaces could not be written."))
