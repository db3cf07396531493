"""Everything of the module that needs no widget: the worker, the temporary folder, the log, and what they do."""

from collections.abc import Callable

import qt
import slicer
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleLogic

from PedBoneSegLib import __version__

from . import images, models, paths
from .processes import WorkLog
from .runs import Choice, Errand, measuring, segmenting
from .workerclient import WorkerClient, nothing


class PedBoneSegLogic(ScriptedLoadableModuleLogic):
    """One per panel or script."""

    def __init__(self) -> None:
        super().__init__()
        root = paths.findRoot()
        self.log = WorkLog()
        self.folder = paths.WorkFolder(slicer.app.temporaryPath)
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

    def run(self, choice: Choice, beforeWrite: Callable = nothing, **callbacks: Callable) -> Errand:
        """Begins a segmentation; see `landing` for `beforeWrite`, and `Errand` for the callbacks."""
        self.log.hide(choice.volume.GetName() or "")
        choice.model = models.modelFor(choice.joint, choice.model)
        return Errand(self.client, segmenting(choice, self.folder, beforeWrite), **callbacks)

    def segmentAndWait(self, volume, joint: str = "auto", side: str | None = None, **choices):
        """For scripts: returns (segmentation node, answer); RuntimeError with the reason if it cannot be done.

        The application stays alive meanwhile. `choices` are further fields of `Choice`.
        """
        loop, outcome = qt.QEventLoop(), []

        def end(*result) -> None:
            outcome.extend(result)
            loop.quit()

        self.run(Choice(volume, joint, side or images.sideOf(volume), **choices), onDone=end, onError=end)
        loop.exec_()
        if len(outcome) == 3:  # kind, message, answer
            raise RuntimeError(outcome[1])
        return tuple(outcome)

    def measure(self, segmentation, **callbacks: Callable) -> None:
        """Asks the worker for the measures of a result's bones; see `Errand` for the callbacks."""
        Errand(self.client, measuring(segmentation, self.folder), **callbacks)
