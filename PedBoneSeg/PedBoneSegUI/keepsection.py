"""Section 7: save, export to DICOM, add to a training set, and the command that trains on it."""

from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _

from PedBoneSegLib.anatomy import known_joints
from PedBoneSegLib.errors import PedBoneSegError
from PedBoneSegLib.files import whole_file

from . import cases, paths, segmentations
from .dialogs import askSaveFile, connectClicked, copyText, shortError
from .images import Geometry

FOLDER_SETTING = "PedBoneSeg/CasesFolder"


class KeepSection:
    def __init__(self, panel) -> None:
        self._ui, self._panel = panel.ui, panel
        ui = self._ui
        ui.casesFolderEdit.currentPath = qt.QSettings().value(FOLDER_SETTING, "") or ""
        connectClicked(ui.saveButton, self._save)
        connectClicked(ui.dicomButton, self._exportDicom)
        connectClicked(ui.addCaseButton, self._addCase)
        connectClicked(ui.commandCopyButton, lambda: copyText(str(ui.commandEdit.text)))
        ui.casesFolderEdit.currentPathChanged.connect(lambda path: self.follow())

    def follow(self) -> None:
        segmentation = self._panel.segmentation
        known = segmentations.tableOf(segmentation)
        ui = self._ui
        ui.saveButton.setEnabled(segmentation is not None and segmentations.volumeOf(segmentation) is not None)
        ui.dicomButton.setEnabled(segmentation is not None)
        ui.addCaseButton.setEnabled(known is not None and bool(ui.casesFolderEdit.currentPath))
        ready = known is not None and bool(ui.casesFolderEdit.currentPath)
        ui.commandCopyButton.setEnabled(ready)
        ui.commandEdit.setText(self._command(known) if ready else "")

    def _command(self, table) -> str:
        folder = Path(str(self._ui.casesFolderEdit.currentPath))
        model = self._panel.models.model
        return paths.commandLine(cases.trainingArguments(folder, table, table.joint in known_joints(), model))

    def _addCase(self) -> None:
        segmentation, ui = self._panel.segmentation, self._ui
        volume, table = segmentations.volumeOf(segmentation), segmentations.tableOf(segmentation)
        if volume is None or table is None:
            self._say(_("The segmentation has no volume, or no bones of a known joint."))
            return
        folder = Path(str(ui.casesFolderEdit.currentPath))
        unlabelled = [name.strip().lower() for name in str(ui.unlabelledEdit.text).split(",") if name.strip()]
        strangers = [name for name in unlabelled if name not in table.names]
        if strangers:
            self._say(_("Not a bone of the {joint}: {names}").format(joint=table.joint, names=", ".join(strangers)))
            return
        memory = segmentations.memoryOf(segmentation)
        axis = segmentations.axisOf(segmentation, volume)
        note = {
            "made_with": memory.get("model") or "default", "axis": axis, "reviewed": bool(memory.get("reviewed")),
            "slices_seen": [memory["slices"][one]["index"] for one in memory.get("seen", [])],
            "slices_corrected": segmentations.editedSlices(segmentation, table, volume, axis),
        }  # fmt: skip
        try:
            case = cases.addCase(folder, volume, segmentation, table, memory.get("side"), unlabelled, note)
        except (PedBoneSegError, OSError, RuntimeError) as error:
            self._say(_("Not added: {reason}").format(reason=shortError(error)))
            return
        qt.QSettings().setValue(FOLDER_SETTING, str(folder))
        self._say(_("Added as {case}.").format(case=case))

    def _save(self) -> None:
        segmentation = self._panel.segmentation
        path = askSaveFile(_("Save the segmentation"), "bones.seg.nrrd", "Segmentation (*.seg.nrrd);;NIfTI (*.nii.gz)")
        if path is None or segmentation is None:
            return
        try:
            saveSegmentation(segmentation, path)
        except (PedBoneSegError, OSError, RuntimeError) as error:
            self._say(_("Not saved: {reason}").format(reason=shortError(error)))
            return
        self._say(_("Saved: {name}").format(name=path.name))

    def _exportDicom(self) -> None:
        """Slicer's own exporter, on the segmentation's item of the subject hierarchy."""
        dialog = slicer.qSlicerDICOMExportDialog(None)
        dialog.setMRMLScene(slicer.mrmlScene)
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
        dialog.execDialog(hierarchy.GetItemByDataNode(self._panel.segmentation))

    def _say(self, text: str) -> None:
        self._ui.keepLabel.setText(text)


def saveSegmentation(segmentation, path: Path) -> None:
    """`.seg.nrrd` keeps names, colors and terminology; NIfTI keeps label values alone, on the volume's grid."""
    if path.name.lower().endswith((".nii", ".nii.gz")):
        volume, table = segmentations.volumeOf(segmentation), segmentations.tableOf(segmentation)
        if table is None:
            raise RuntimeError(_("only bones of a known joint have label values; save as .seg.nrrd"))
        labels = segmentations.mergedLabels(segmentation, table, volume)
        cases.writeNifti(path, labels, Geometry.ofVolume(volume))
        return
    if not path.name.lower().endswith(".seg.nrrd"):
        raise RuntimeError(_("the name must end in .seg.nrrd or .nii.gz"))
    storage = slicer.vtkMRMLSegmentationStorageNode()
    with whole_file(path) as temporary:
        storage.SetFileName(str(temporary))
        if not storage.WriteData(segmentation):
            raise RuntimeError(_("the file could not be written"))
