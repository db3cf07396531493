"""Everything of the module that needs no widget: the worker, the temporary folder, the log, and what they do."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import qt
import slicer

from PedBoneSegLib import __version__
from PedBoneSegLib.anatomy import JointTable, known_joints

from . import images, models, paths, segmentations
from .results import Choice
from .runs import Run
from .workerclient import WorkerClient, nothing
from .workfolder import WorkFolder
from .worklog import WorkLog


class Engine:
    """One per panel or script. `command` is the worker's own unless a test passes another."""

    def __init__(self, command: list[str] | None = None) -> None:
        root = paths.findRoot()
        self.log = WorkLog()
        self.folder = WorkFolder(slicer.app.temporaryPath)
        self.folder.sweep()
        self.client = WorkerClient(
            command or [paths.findPython(), "-m", "PedBoneSegLib", "serve"],
            str(root),
            {"PYTHONPATH": paths.pythonPath(root), "PYTHONUTF8": "1", "PYTHONUNBUFFERED": "1"},
            __version__,
            self.log,
        )

    def close(self) -> None:
        """Ends the worker and removes the temporary folder."""
        self.client.close()
        self.folder.remove()

    def run(self, choice: Choice, **callbacks: Callable) -> Run:
        """Begins a segmentation; see `Run` for the callbacks."""
        self.log.hide(choice.volume.GetName() or "")
        run = Run(choice, self.client, self.folder, models.tableOf, **callbacks)
        run.start()
        return run

    def segmentAndWait(self, volume, joint: str = "auto", side: str | None = None, **choices):
        """For scripts: returns (segmentation node, answer); RuntimeError with the reason if it cannot be done.

        The application stays alive meanwhile. `choices` are further fields of `Choice`.
        """
        loop, outcome = qt.QEventLoop(), {}

        def onDone(segmentation, answer: dict) -> None:
            outcome.update(result=(segmentation, answer))
            loop.quit()

        def onError(kind: str, message: str, answer: dict) -> None:
            outcome.update(error=message)
            loop.quit()

        self.run(Choice(volume, joint, side or images.sideOf(volume), **choices), onDone=onDone, onError=onError)
        loop.exec_()
        if "error" in outcome:
            raise RuntimeError(outcome["error"])
        return outcome["result"]

    def measure(
        self, segmentation, table: JointTable, onDone: Callable[[dict], None], onError: Callable = nothing
    ) -> None:
        """Asks the worker for the measures of the table's bones; ValueError if there is no volume to refer to."""
        volume = segmentations.volumeOf(segmentation)
        if volume is None:
            raise ValueError("the segmentation has no volume")
        path = self.folder.newFile(".nrrd")
        labels = segmentations.mergedLabels(segmentation, table, volume)

        def onWritten(sentence: str) -> None:
            if sentence:
                end()
                onError("bad-input", sentence, {})
            else:
                fields = {"input": str(path), "joint": table.joint}
                model = segmentations.memoryOf(segmentation).get("model")
                if table.joint not in known_joints() and model:
                    fields["model"] = model
                self.client.send("measure", fields, onDone=done, onError=failed)

        def done(answer: dict) -> None:
            end()
            onDone(answer)

        def failed(kind: str, message: str, answer: dict) -> None:
            end()
            onError(kind, message, answer)

        def end() -> None:
            Path(path).unlink(missing_ok=True)

        images.FileWriting(labels.astype(np.uint8), images.Geometry.ofVolume(volume), path, onWritten)
