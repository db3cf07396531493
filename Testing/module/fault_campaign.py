"""Faults at random moments of a segmentation: `python Testing/module/fault_campaign.py [--moments 100] [--seed 0]`.

The real panel and the real worker in the stand-in. After every fault the panel must be usable, the user's segmentation
intact voxel for voxel, no file left in the temporary folder, and not more than one worker alive. Prints a line a
moment; the exit code is the number of moments that failed.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "PedBoneSeg"), str(ROOT / "Testing"), str(ROOT)]
os.environ["PEDBONESEG_HOME"] = tempfile.mkdtemp(prefix="faults für ")

from module.host import application, install  # noqa: E402

install()

import numpy as np  # noqa: E402
import qt  # noqa: E402
import slicer  # noqa: E402
import vtk  # noqa: E402
from live_processes import is_alive  # noqa: E402
from module.bones import KNEE  # noqa: E402
from module.host import scripted  # noqa: E402
from PedBoneSegUI import bonewriting, segmentations  # noqa: E402
from PedBoneSegUI.processes import descendants, endTree  # noqa: E402
from tiny import make_tiny_bundle  # noqa: E402

from PedBoneSeg import PedBoneSegWidget  # noqa: E402
from PedBoneSegLib.models import store  # noqa: E402

FAULTS = ("kill", "hang", "flood", "disk", "model", "volume", "scene", "removed", "cancel", "twice")
BAD_WORKER = [sys.executable, str(ROOT / "Testing" / "module" / "badworker.py")]
errors: list[BaseException] = []
sys.excepthook = lambda kind, error, trace: errors.append(error)


def spin(condition=lambda: False, seconds: float = 1.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        qt.QApplication.processEvents()
        if condition():
            return True
        time.sleep(0.002)
    return False


def newVolume(rng, bad: bool = False):
    array = rng.normal(300, 90, (24, 160, 160)).clip(0).astype(np.float32)
    if bad:
        array[rng.random(array.shape) > 0.5] = np.nan
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Knee")
    slicer.util.updateVolumeFromArray(node, array)
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy(list(np.diag([1, 1, 0 if bad and rng.random() > 0.5 else 3.5, 1]).ravel()))
    node.SetIJKToRASMatrix(matrix)
    return node


class Campaign:
    def __init__(self, seed: int) -> None:
        self.random, self.rng = random.Random(seed), np.random.default_rng(seed)
        store.install(make_tiny_bundle(Path(os.environ["PEDBONESEG_HOME"]) / "t.safetensors", ("knee",), 49), "tiny")
        (store.models_folder() / "damaged.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{damaged")
        self.widget = PedBoneSegWidget(scripted.ModuleParent())
        self.widget.setup()
        self.widget.parent._entered = True
        self.widget.enter()
        self.panel, self.ui, self.client = self.widget.panel, self.widget.ui, self.widget.logic.client
        self.good = list(self.client._command)
        self.byHand = None
        self.fill()

    def fill(self) -> None:
        """The scene of a user: a volume, and a femur made by hand."""
        application.resetScene()
        self.volume = newVolume(self.rng)
        self.byHand = segmentations.createSegmentation(self.volume, "by hand")
        self.femur = self.byHand.GetSegmentation().AddEmptySegment("Femur", "Femur")
        self.mask = self.rng.random((24, 160, 160)) > 0.7
        bonewriting.writeMask(self.byHand, self.femur, self.mask, self.volume)
        self.widget._parameterNode.volume = self.volume

    def moment(self, fault: str) -> list[str]:
        ui, wrong = self.ui, []
        self.client._command[:] = self.good
        self.choose("damaged" if fault == "model" else "tiny")
        self.widget._parameterNode.joint = "knee"
        if fault == "volume":
            self.widget._parameterNode.volume = newVolume(self.rng, bad=True)
        if fault == "flood":
            self.client.stop()
            self.client._command[:] = [*BAD_WORKER, self.random.choice(["noise", "dies", "half-a-line", "hello-noise"])]
        newFile = self.widget.logic.folder.newFile
        if fault == "disk":
            self.widget.logic.folder.newFile = lambda suffix: self.fullDisk(newFile(suffix))
        self.widget._parameterNode.segmentation = self.byHand if self.random.random() < 0.5 else None
        ui.segmentButton.click()
        if ui.askFrame.isVisibleTo(ui.segmentSection):
            ui.askUntouchedButton.click()
        spin(lambda: not self.panel.segment.running, self.random.random() ** 2 * 3)
        closed = self.strike(fault)
        ended = spin(lambda: not self.panel.segment.running, 60 if fault in ("volume", "model", "flood") else 20)
        self.widget.logic.folder.newFile = newFile
        if not ended:
            wrong.append("the panel never came back")
        if errors:
            wrong.append(f"an error in a slot: {errors.pop()!r}")
        if closed:
            self.fill()
        self.widget._parameterNode.volume = self.volume
        if not ui.segmentButton.enabled or ui.segmentButton.text != "Segment":
            wrong.append("the button is not usable")
        now = slicer.util.arrayFromSegmentBinaryLabelmap(self.byHand, self.femur, self.volume) > 0
        if not np.array_equal(now, self.mask):
            wrong.append("the user's segmentation changed")
        spin(seconds=0.2)
        left = [path.name for path in self.widget.logic.folder.path.iterdir()] if not self.client.running else []
        if left and fault not in ("kill", "hang", "cancel", "scene"):
            wrong.append(f"files left: {left}")
        if sum(map(is_alive, descendants(os.getpid()))) > 1:
            wrong.append("more than one worker is alive")
        return wrong

    def strike(self, fault: str) -> bool:
        """The fault itself, now; True if the scene is gone."""
        if fault == "kill" and self.client.running:
            endTree(self.client.processId())
        if fault == "hang" and self.client.running:
            pid = self.client.processId()
            for one in (pid, *descendants(pid)):
                os.kill(one, signal.SIGSTOP)
        if fault in ("hang", "cancel", "twice") and self.panel.segment.running:
            self.ui.segmentButton.click()
            if fault == "twice" and self.panel.segment.running:
                self.ui.segmentButton.click()
        if fault == "scene":
            slicer.mrmlScene.Clear(False)
        if fault == "removed":
            slicer.mrmlScene.RemoveNode(self.volume)
        return fault in ("scene", "removed")

    @staticmethod
    def fullDisk(path: Path) -> Path:
        """A file to which nothing can be written; the link may be removed, the device must stay."""
        path.symlink_to("/dev/full")
        return path

    def choose(self, model: str) -> None:
        self.ui.modelCombo.setCurrentIndex(self.ui.modelCombo.findData(model))

    def worksAgain(self) -> list[str]:
        """A plain run at the end: everything is as on the first day."""
        self.client._command[:] = self.good
        self.fill()
        self.choose("tiny")
        self.widget._parameterNode.joint = "knee"
        self.ui.segmentButton.click()
        spin(lambda: not self.panel.segment.running, 90)
        result = segmentations.tableOf(self.widget._parameterNode.segmentation)
        return [] if result == KNEE else [f"no result: {self.ui.warningLabel.text}"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--moments", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    campaign, failed, count = Campaign(options.seed), 0, Counter()
    for number in range(options.moments):
        fault = FAULTS[number % len(FAULTS)]
        wrong = campaign.moment(fault)
        failed += bool(wrong)
        count[fault] += 1
        print(f"{number:4} {fault:8} {'; '.join(wrong) or 'survived'}", flush=True)
    wrong = campaign.worksAgain()
    print("at the end:", "; ".join(wrong) or "a plain run works")
    campaign.widget.cleanup()
    print(f"{options.moments - failed} of {options.moments} survived: {dict(count)}")
    return failed + bool(wrong)


if __name__ == "__main__":
    sys.exit(min(main(), 100))
