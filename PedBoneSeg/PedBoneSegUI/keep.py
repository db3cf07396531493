"""Section 7: save, export to DICOM, add to a training set, and the command that trains on it."""

from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _

from PedBoneSegLib.errors import BadInput
from PedBoneSegLib.files import whole_file

from . import cases, models, paths, segmentations
from .images import gridOf
from .section import Section, askSaveFile, copyText, enable

FOLDER_SETTING = "PedBoneSeg/CasesFolder"


class KeepSection(Section):
    def __init__(self, panel) -> None:
        super().__init__(panel, panel.ui.keepLabel)
        ui = self.ui
        ui.casesFolderEdit.currentPath = qt.QSettings().value(FOLDER_SETTING, "") or ""
        ui.saveButton.clicked.connect(self._save)
        ui.dicomButton.clicked.connect(self._exportDicom)
        ui.addCaseButton.clicked.connect(self._addCase)
        ui.commandCopyButton.clicked.connect(lambda: copyText(str(ui.commandEdit.text)))
        ui.casesFolderEdit.currentPathChanged.connect(lambda path: self.follow())

    def follow(self) -> None:
        ui, segmentation = self.ui, self.panel.segmentation
        volume, table = segmentations.volumeOf(segmentation), segmentations.tableOf(segmentation)
        folder = str(ui.casesFolderEdit.currentPath)
        enable(segmentation and volume, ui.saveButton)
        enable(segmentation, ui.dicomButton)
        enable(table and volume and folder, ui.addCaseButton)
        command = self._trainingCommand(Path(folder), table.joint) if table and folder else ""
        ui.commandEdit.setText(command)
        enable(command, ui.commandCopyButton)

    def _trainingCommand(self, folder: Path, joint: str) -> str:
        """Adapts the chosen model; if the choice is automatic, the one that segments this joint. Empty without one."""
        stored = models.find(models.modelFor(joint, self.panel.models.model))
        if stored is None:
            return ""
        arguments = cases.trainingArguments(folder, joint, stored.name, models.jointsOf(stored.manifest))
        return paths.commandLine(arguments)

    def _addCase(self) -> None:
        segmentation, folder = self.panel.segmentation, str(self.ui.casesFolderEdit.currentPath)
        volume, table = segmentations.volumeOf(segmentation), segmentations.tableOf(segmentation)
        unlabelled = [name.strip().lower() for name in str(self.ui.unlabelledEdit.text).split(",") if name.strip()]
        with self.telling(_("Not added: {reason}")):
            case = cases.addCase(Path(folder), volume, segmentation, table, unlabelled)
            qt.QSettings().setValue(FOLDER_SETTING, folder)
            reviewed = segmentations.memoryOf(segmentation).get("reviewed")
            note = "" if reviewed else " " + _("It was not marked as reviewed, and the data set says so.")
            self.say(_("Added as {case}.").format(case=case) + note)

    def _save(self) -> None:
        kinds = "Segmentation (*.seg.nrrd);;NIfTI (*.nii.gz)"
        path = askSaveFile(_("Save the segmentation"), "bones.seg.nrrd", kinds)
        if path is not None:
            with self.telling(_("Not saved: {reason}")):
                saveSegmentation(self.panel.segmentation, path)
                self.say(_("Saved: {name}").format(name=path.name))

    def _exportDicom(self) -> None:
        """Slicer's own exporter, on the segmentation's item of the subject hierarchy."""
        dialog = slicer.qSlicerDICOMExportDialog(None)
        dialog.setMRMLScene(slicer.mrmlScene)
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
        dialog.execDialog(hierarchy.GetItemByDataNode(self.panel.segmentation))


def saveSegmentation(segmentation, path: Path) -> None:
    """`.seg.nrrd` keeps names, colors and terminology; NIfTI keeps label values alone, on the volume's grid."""
    if path.name.lower().endswith((".nii", ".nii.gz")):
        volume, table = segmentations.volumeOf(segmentation), segmentations.tableOf(segmentation)
        if table is None:
            raise BadInput(_("only bones of a known joint have label values"), _("save as .seg.nrrd"))
        cases.writeImage(path, segmentations.mergedLabels(segmentation, table, volume), gridOf(volume))
        return
    if not path.name.lower().endswith(".seg.nrrd"):
        raise BadInput(_("the ending says no format that is known here"), _("use .seg.nrrd or .nii.gz"))
    storage = slicer.vtkMRMLSegmentationStorageNode()
    with whole_file(path) as temporary:
        storage.SetFileName(str(temporary))
        if not storage.WriteData(segmentation):
            raise RuntimeError(_("the file could not be written"))
