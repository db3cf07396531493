"""The section that saves the segmentation to a file or exports it to DICOM."""

import re
from collections.abc import Generator
from pathlib import Path

import slicer
from slicer.i18n import tr as _

from PedBoneSegLib.errors import BadInput
from PedBoneSegLib.files import whole_file

from .. import labelmaps, segmentations, volumes
from ..tasks import Task
from .section import Section
from .widgets import askSaveFile, enable

ENDINGS = (".seg.nrrd", ".nii.gz")


class SaveSection(Section):
    def __init__(self, panel) -> None:
        super().__init__(panel, panel.ui.saveLabel)
        self._task: Task | None = None
        self._segmentation = None  # as last seen
        self.ui.saveButton.clicked.connect(self._save)
        self.ui.dicomButton.clicked.connect(self._exportDicom)

    def update(self) -> None:
        segmentation = self.panel.segmentation
        if segmentation is not self._segmentation:
            self._segmentation = segmentation
            self.say("")
        enable(segmentation, self.ui.saveSection)
        if segmentation is None:
            self.ui.saveSection.collapsed = True
        enable(segmentation and segmentations.volumeOf(segmentation) and self._task is None, self.ui.saveButton)
        enable(segmentation and hasDicomExport(), self.ui.dicomButton)

    def close(self) -> None:
        if self._task is not None:
            self._task.abandon()
            self._task = None

    def _save(self) -> None:
        kinds = "Segmentation (*.seg.nrrd);;NIfTI (*.nii.gz)"
        segmentation = self.panel.segmentation
        proposal = re.sub(r'[\\/:*?"<>|]+', "_", segmentation.GetName()) + ENDINGS[0]
        path = None
        with self.reporting(_("Not saved: {reason}")):
            path = askSaveFile(_("Save the segmentation"), proposal, kinds, ENDINGS)
        if path is not None:
            self.say(_("Saving"))
            self._task = Task(None, savingSegmentation(segmentation, path), self._onSaved, self._onError)
            self.update()

    def _onSaved(self, name: str) -> None:
        self._task = None
        self.say(_("Saved: {name}").format(name=name))
        self.update()

    def _onError(self, kind: str, message: str, answer: dict) -> None:
        self._task = None
        self.say(_("Not saved: {reason}").format(reason=message))
        self.update()

    def _exportDicom(self) -> None:
        """Opens Slicer's own export with the segmentation's item of the subject hierarchy."""
        dialog = slicer.qSlicerDICOMExportDialog(None)
        dialog.setMRMLScene(slicer.mrmlScene)
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
        dialog.execDialog(hierarchy.GetItemByDataNode(self.panel.segmentation))


def hasDicomExport() -> bool:
    """Slicer can be built without DICOM."""
    return hasattr(slicer, "qSlicerDICOMExportDialog")


def savingSegmentation(segmentation, path: Path) -> Generator:
    """The steps that save it, to (name,). `.seg.nrrd` has names, colors and terminology and is written by Slicer in one
    piece; NIfTI has label values alone, on the volume's grid."""
    if path.name.lower().endswith(".nii.gz"):
        volume, table = segmentations.volumeOf(segmentation), segmentations.tableOf(segmentation)
        if table is None:
            raise BadInput(_("only bones of a known joint have label values"), _("save as .seg.nrrd"))
        labels = yield from labelmaps.merging(segmentation, table, volume)
        yield from volumes.writingNifti(labels, volumes.gridOf(volume), path)
    else:
        yield
        storage = slicer.vtkMRMLSegmentationStorageNode()
        with whole_file(path) as temporary:
            storage.SetFileName(str(temporary))
            if not storage.WriteData(segmentation):
                raise RuntimeError(_("the file could not be written"))
    return (path.name,)
