"""Section 6: volume, surface, extents and axes of every bone, as the worker measures them; 3-D; meshes."""

import csv
import io
from functools import partial

import slicer
import vtk
from slicer.i18n import tr as _

from PedBoneSegLib.files import whole_file
from PedBoneSegLib.results.columns import titles
from PedBoneSegLib.results.documents import measure_csv

from . import segmentations
from .section import Section, askFolder, askSaveFile, copyText, enable, fillTable


def tableTitles() -> dict[str, str]:
    """The columns that the panel shows, with their headings. The table in the scene, Copy and CSV have all columns."""
    return {"bone": _("Bone"), **{name: _(title) for name, title in titles().items()}}


def toNode(segmentation, columns: list[str], rows: list[list[str]]) -> None:
    """The table node that belongs to the segmentation, filled anew."""
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


def otherSegments(segmentation, table) -> list[str]:
    """Names of segments that are no bones of the table: they are not measured."""
    ours = {segmentations.segmentOfBone(segmentation, bone) for bone in table.bones}
    core = segmentation.GetSegmentation()
    return [core.GetSegment(one).GetName() for one in segmentations.segmentIds(segmentation) if one not in ours]


class MeasureSection(Section):
    def __init__(self, panel) -> None:
        super().__init__(panel, panel.ui.measureLabel)
        self._measured, self._csv = None, ""  # the segmentation that the table shows, and all that was measured
        self.ui.measureButton.clicked.connect(self._measure)
        self.ui.measureCopyButton.clicked.connect(lambda: copyText(self._csv.replace(",", "\t")))
        self.ui.measureCsvButton.clicked.connect(self._saveCsv)
        self.ui.meshesButton.clicked.connect(self._saveMeshes)

    def follow(self) -> None:
        segmentation = self.panel.segmentation
        if segmentation is not self._measured:
            self._measured, self._csv = segmentation, ""
            fillTable(self.ui.measureTable, [], [])
            self.say("")
        known = segmentations.tableOf(segmentation) and segmentations.volumeOf(segmentation)
        enable(known and not self.panel.busy, self.ui.measureButton)  # the worker does one thing at a time
        enable(segmentation, self.ui.meshesButton)
        enable(self._csv, self.ui.measureCopyButton, self.ui.measureCsvButton)
        self.ui.show3DButton.setSegmentationNode(segmentation)

    def _measure(self) -> None:
        segmentation = self.panel.segmentation
        if self.panel.setup.ready():
            enable(False, self.ui.measureButton)
            self.say(_("Measuring"))
            self.logic.measure(segmentation, onDone=partial(self._onMeasured, segmentation), onError=self._onError)

    def _onMeasured(self, segmentation, answer: dict) -> None:
        if segmentation is not self.panel.segmentation:
            return  # it was removed, or another one is chosen now
        self._csv = measure_csv(answer["bones"])
        columns, *rows = csv.reader(io.StringIO(self._csv))
        toNode(segmentation, columns, rows)
        headings = tableTitles()
        shown = [columns.index(name) for name in headings if name in columns]
        cells = [[row[0], *(f"{float(row[index]):.4g}" if row[index] else "" for index in shown[1:])] for row in rows]
        fillTable(self.ui.measureTable, [headings[columns[index]] for index in shown], cells)
        others = otherSegments(segmentation, segmentations.tableOf(segmentation))
        self.say(_("Not measured, as they are no bones: {names}").format(names=", ".join(others)) if others else "")
        self.follow()

    def _onError(self, kind: str, message: str, answer: dict) -> None:
        self.say(message)
        self.follow()

    def _saveCsv(self) -> None:
        path = askSaveFile(_("Save the measures"), "bones.csv", "CSV (*.csv)")
        if path is not None:
            with self.telling(_("Not saved: {reason}")):
                with whole_file(path) as temporary:
                    temporary.write_text(self._csv, encoding="utf-8")
                self.say(_("Saved: {name}").format(name=path.name))

    def _saveMeshes(self) -> None:
        folder = askFolder(_("Folder for the surfaces"))
        if folder is not None:
            segmentation, logic = self.panel.segmentation, slicer.vtkSlicerSegmentationsModuleLogic
            segmentation.CreateClosedSurfaceRepresentation()
            done = logic.ExportSegmentsClosedSurfaceRepresentationToFiles(str(folder), segmentation, None, "STL")
            self.say(_("Saved: {name}").format(name=folder.name) if done else _("The surfaces could not be written."))
