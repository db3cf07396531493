"""The section that adds corrected cases to a training set, and shows the command that trains on it."""

from pathlib import Path

import qt
from slicer.i18n import tr as _

from .. import models, paths, segmentations, trainingset
from ..tasks import Task
from .section import Section
from .widgets import copyText, enable

FOLDER_SETTING = "PedBoneSeg/CasesFolder"


class TrainingSection(Section):
    def __init__(self, panel) -> None:
        super().__init__(panel, panel.ui.trainingLabel)
        ui, self._task = self.ui, None
        ui.casesFolderEdit.currentPath = qt.QSettings().value(FOLDER_SETTING, "") or ""
        ui.addCaseButton.clicked.connect(self._addCase)
        ui.commandCopyButton.clicked.connect(lambda: copyText(str(ui.commandEdit.text)))
        ui.casesFolderEdit.currentPathChanged.connect(lambda path: self.update())

    def update(self) -> None:
        ui, segmentation = self.ui, self.panel.segmentation
        volume, table = segmentations.volumeOf(segmentation), segmentations.tableOf(segmentation)
        folder = str(ui.casesFolderEdit.currentPath)
        enable(table and volume and folder and self._task is None, ui.addCaseButton)
        command = self._trainingCommand(Path(folder), table.joint) if table and folder else ""
        ui.commandEdit.setText(command)
        enable(command, ui.commandCopyButton)

    def close(self) -> None:
        if self._task is not None:
            self._task.abandon()
            self._task = None

    def _trainingCommand(self, folder: Path, joint: str) -> str:
        """Adapts the chosen model; if the choice is automatic, the one that segments this joint. Empty without one."""
        stored = models.find(models.modelFor(joint, self.panel.models.model))
        if stored is None:
            return ""
        arguments = trainingset.trainingArguments(folder, joint, stored.name, models.jointsOf(stored.manifest))
        return paths.commandLine(arguments)

    def _addCase(self) -> None:
        segmentation, folder = self.panel.segmentation, str(self.ui.casesFolderEdit.currentPath)
        volume, table = segmentations.volumeOf(segmentation), segmentations.tableOf(segmentation)
        unlabelled = [name.strip().lower() for name in str(self.ui.unlabelledEdit.text).split(",") if name.strip()]
        self.say(_("Adding"))
        steps = trainingset.addingCase(Path(folder), volume, segmentation, table, unlabelled)
        self._task = Task(None, steps, lambda case: self._onAdded(segmentation, folder, case), self._onError)
        self.update()

    def _onAdded(self, segmentation, folder: str, case: str) -> None:
        self._task = None
        qt.QSettings().setValue(FOLDER_SETTING, folder)
        reviewed = segmentations.memoryOf(segmentation).get("reviewed")
        note = "" if reviewed else " " + _("It was not marked as reviewed, and the data set says so.")
        self.say(_("Added as {case}.").format(case=case) + note)
        self.update()

    def _onError(self, kind: str, message: str, answer: dict) -> None:
        self._task = None
        self.say(_("Not added: {reason}").format(reason=message))
        self.update()
