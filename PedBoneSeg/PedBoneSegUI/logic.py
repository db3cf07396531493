"""The module's logic: what needs no widgets. It owns the worker, the temporary folder and the log."""

from collections.abc import Callable

import qt
import slicer
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleLogic

from PedBoneSegLib import __version__

from . import models, paths, volumes
from .segmenting import Choice, measuring, segmenting
from .tasks import Task
from .workerclient import WorkerClient, doNothing
from .workfolder import WorkFolder
from .worklog import WorkLog


class PedBoneSegLogic(ScriptedLoadableModuleLogic):
    """Each panel and each script has one of its own."""

    def __init__(self) -> None:
        super().__init__()
        root = paths.findRoot()
        self.log = WorkLog()
        self.folder = WorkFolder(slicer.app.temporaryPath)
        self.folder.sweep()
        self.client = WorkerClient(
            [paths.findPython(), "-P", "-m", "PedBoneSegLib", "serve"],
            str(root),
            {"PYTHONPATH": paths.pythonPath(root), "PYTHONUTF8": "1", "PYTHONUNBUFFERED": "1"},
            __version__,
            self.log,
        )

    def close(self) -> None:
        """Ends the worker and removes the temporary folder."""
        self.client.close()
        self.folder.remove()

    def run(self, choice: Choice, beforeWrite: Callable = doNothing, **callbacks: Callable) -> Task:
        """Begins a segmentation; for `beforeWrite` see `segmenting.inserting`, for the callbacks `Task`."""
        self.log.hide(choice.volume.GetName() or "")
        choice.model = models.modelFor(choice.joint, choice.model)
        return Task(self.client, segmenting(choice, self.folder, beforeWrite), **callbacks)

    def segmentAndWait(self, volume, joint: str = "auto", side: str | None = None, **choices):
        """For scripts: returns (segmentation node, answer); RuntimeError with the reason if it cannot be done.

        The application stays alive meanwhile. `choices` are further fields of `Choice`.
        """
        loop, outcome = qt.QEventLoop(), []

        def end(*result) -> None:
            outcome.extend(result)
            loop.quit()

        self.run(Choice(volume, joint, side or volumes.sideOf(volume), **choices), onDone=end, onError=end)
        loop.exec_()
        if len(outcome) == 3:  # kind, message, answer
            raise RuntimeError(outcome[1])
        return tuple(outcome)

    def measure(self, segmentation, **callbacks: Callable) -> Task:
        """Asks the worker for the measures of a result's bones; for the callbacks see `Task`."""
        return Task(self.client, measuring(segmentation, self.folder), **callbacks)
