"""The whole conversation in the real application: a click after the other on the sample, timed, with pictures.

    Slicer --no-splash --additional-module-paths PedBoneSeg --python-script Testing/slicer/conversation/run.py OUTPUT

Writes `report.json` and the tutorial's pictures into the folder OUTPUT; the exit code is 0 if every step passed. With
`--testing`, Slicer runs it on settings of its own. PyTorch and safetensors must be installed in that Slicer.
"""

import json
import sys
import time
import traceback
from pathlib import Path

import qt
import slicer

BLOCKED_MS = 50  # the longest time that the application may be busy at a stretch while the worker segments
SECONDS = 300  # for one segmentation on a slow CPU


class Conversation:
    def __init__(self, output: Path) -> None:
        self.output, self.steps, self.gaps = output, [], []
        output.mkdir(parents=True, exist_ok=True)
        self.timer = qt.QTimer()
        self.timer.setInterval(5)
        self.timer.timeout.connect(self.beat)
        self.last = (0.0, 0.0)

    # ---- tools

    def beat(self) -> None:
        """Notes the time since the last beat, by the clock and of the GUI's own thread: others take the CPU, too."""
        now = time.thread_time(), time.perf_counter()
        self.gaps.append([round(1000 * (time - before), 1) for time, before in zip(now, self.last, strict=True)])
        self.last = now

    def spin(self, condition, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise AssertionError(f"not within {seconds} s: {self.ui.stageLabel.text} {self.ui.warningLabel.text}")
            slicer.app.processEvents()

    def picture(self, name: str, section=None) -> None:
        """Of the main window, once all is drawn; of the panel's sections, only Segment and `section` are open."""
        for button in (self.ui.reviewSection, self.ui.correctSection, self.ui.measureSection, self.ui.saveSection,
                       self.ui.batchSection, self.ui.advancedSection):  # fmt: skip
            button.collapsed = button is not section
        end = time.monotonic() + 1
        self.spin(lambda: time.monotonic() > end, 2)
        if section is not None:
            slicer.util.findChildren(slicer.util.mainWindow(), "ScrollArea")[0].ensureWidgetVisible(section)
        slicer.app.processEvents()
        slicer.util.mainWindow().grab().save(str(self.output / f"{name}.png"))

    def step(self, function) -> bool:
        begin, fault = time.monotonic(), ""
        try:
            function()
        except Exception as error:
            fault = f"{type(error).__name__}: {error}"
            traceback.print_exc()
        seconds = round(time.monotonic() - begin, 2)
        self.steps.append({"step": function.__name__, "passed": not fault, "seconds": seconds, "fault": fault})
        print(f"{'pass' if not fault else 'FAIL'} {function.__name__} {seconds} s {fault}", flush=True)
        return not fault

    # ---- the conversation

    def openThePanel(self) -> None:
        slicer.util.mainWindow().resize(1440, 900)
        slicer.app.layoutManager().setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
        slicer.util.selectModule("PedBoneSeg")
        self.widget = slicer.modules.pedboneseg.widgetRepresentation().self()
        self.ui, self.panel = self.widget.ui, self.widget.panel
        assert not self.ui.setupSection.visible, self.ui.setupLabel.text

    def loadTheSample(self) -> None:
        import SampleData

        from PedBoneSeg import SAMPLES, registerSampleData

        if not any(source.sampleName == SAMPLES["knee"] for source in slicer.modules.sampleDataSources["PedBoneSeg"]):
            registerSampleData()
        self.volume = SampleData.downloadSample(SAMPLES["knee"])
        self.ui.volumeSelector.setCurrentNode(self.volume)
        assert self.widget._parameterNode.volume == self.volume
        self.picture("1-sample")

    def segmentByAClick(self) -> None:
        self.last = time.thread_time(), time.perf_counter()
        self.timer.start()
        self.ui.segmentButton.click()
        assert self.ui.segmentButton.text == "Cancel"
        self.spin(lambda: not self.panel.segment.running, SECONDS)
        self.timer.stop()
        assert self.ui.answerLabel.text, self.ui.warningLabel.text
        self.segmentation = self.widget._parameterNode.segmentation
        self.picture("2-answer")

    def neverBlockedForLong(self) -> None:
        busy, clock = (sorted(gap[index] for gap in self.gaps) for index in range(2))
        self.steps[-1].update(longest_busy_ms=busy[-5:], longest_by_the_clock_ms=clock[-5:])
        assert busy[-1] < BLOCKED_MS, f"the application was busy for {busy[-1]:.0f} ms"

    def threeDimensions(self) -> None:
        self.segmentation.CreateClosedSurfaceRepresentation()
        slicer.util.resetThreeDViews()
        self.picture("3-surfaces")

    def cancelWithinASecond(self) -> None:
        nodes = slicer.mrmlScene.GetNumberOfNodes()
        self.ui.segmentationSelector.setCurrentNode(None)
        self.ui.segmentButton.click()
        slicer.app.processEvents()
        begin = time.monotonic()
        self.ui.segmentButton.click()
        self.spin(lambda: not self.panel.segment.running, 5)
        assert time.monotonic() - begin < 1 and slicer.mrmlScene.GetNumberOfNodes() == nodes
        self.ui.segmentationSelector.setCurrentNode(self.segmentation)

    def reviewTheWorstSlices(self) -> None:
        red = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceNode()
        before = red.GetSliceToRAS().GetElement(0, 3), red.GetSliceOffset()
        self.ui.nextButton.click()
        after = red.GetSliceToRAS().GetElement(0, 3), red.GetSliceOffset()
        assert before != after or not self.ui.nextButton.enabled, "the views did not move"
        self.ui.doubtCheckBox.checked = True
        self.picture("4-review", self.ui.reviewSection)
        self.ui.doubtCheckBox.checked = False

    def correctAndUndo(self) -> None:
        from PedBoneSegUI import labelmaps, segmentations

        table = segmentations.tableOf(self.segmentation)
        self.ui.correctSection.collapsed = False
        before = labelmaps.mergedLabels(self.segmentation, table, self.volume)
        for button in (self.ui.smoothButton, self.ui.piecesButton):
            button.click()
        changed = labelmaps.mergedLabels(self.segmentation, table, self.volume)
        self.picture("5-correct", self.ui.correctSection)
        for _step in range(2):
            self.ui.segmentEditor.undo()
        after = labelmaps.mergedLabels(self.segmentation, table, self.volume)
        assert (before != changed).any() and (before == after).all()

    def againIntoTheSameIsOneUndoStep(self) -> None:
        from PedBoneSegUI import labelmaps, segmentations

        self.ui.correctSection.collapsed = False
        table = segmentations.tableOf(self.segmentation)
        segment = segmentations.segmentOfBone(self.segmentation, table.bones[0])
        mask = slicer.util.arrayFromSegmentBinaryLabelmap(self.segmentation, segment, self.volume)
        mask[mask.shape[0] // 2] = 0
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask, self.segmentation, segment, self.volume)
        before = labelmaps.mergedLabels(self.segmentation, table, self.volume)
        self.ui.segmentButton.click()
        self.spin(lambda: self.ui.askFrame.visible, 20)  # a corrected segmentation is not overwritten unasked
        self.ui.askUntouchedButton.click()
        self.spin(lambda: not self.panel.segment.running, SECONDS)
        self.ui.segmentEditor.undo()
        assert (labelmaps.mergedLabels(self.segmentation, table, self.volume) == before).all()

    def measure(self) -> None:
        self.ui.measureSection.collapsed = False
        self.ui.measureButton.click()
        self.spin(lambda: self.ui.measureTable.rowCount > 0, 60)
        self.picture("6-measure", self.ui.measureSection)

    def addToATrainingSet(self) -> None:
        import tempfile

        self.ui.advancedSection.collapsed = False
        self.ui.casesFolderEdit.currentPath = tempfile.mkdtemp()
        self.ui.addCaseButton.click()
        self.spin(lambda: self.ui.addCaseButton.enabled, 60)
        assert self.ui.trainingLabel.text.startswith("Added"), self.ui.trainingLabel.text
        self.picture("7-training-set", self.ui.advancedSection)

    def exportAsDicomSeg(self) -> None:
        import DICOMSegmentationPlugin

        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
        item = hierarchy.GetItemByDataNode(self.segmentation)
        exportables = DICOMSegmentationPlugin.DICOMSegmentationPluginClass().examineForExport(item)
        assert exportables, "Slicer offers no DICOM SEG export for the segmentation"

    def batch(self) -> None:
        import shutil
        import tempfile

        from PedBoneSegUI import paths

        folder = Path(tempfile.mkdtemp())
        shutil.copy(paths.samplePath("knee"), folder / "knee.nii.gz")
        self.ui.batchSection.collapsed = False
        self.ui.batchInputEdit.currentPath = str(folder)
        self.ui.batchOutputEdit.currentPath = ""
        self.ui.batchButton.click()
        self.spin(lambda: not self.panel.batch.running, SECONDS)
        assert "1 done" in self.ui.batchLabel.text and self.ui.batchTable.rowCount == 1, self.ui.batchLabel.text
        self.picture("8-batch", self.ui.batchSection)

    def closeTheSceneInMidRun(self) -> None:
        self.ui.segmentButton.click()
        slicer.app.processEvents()
        slicer.mrmlScene.Clear(0)
        self.spin(lambda: not self.panel.segment.running, 2)
        assert not self.ui.warningLabel.text

    def reloadTheModule(self) -> None:
        slicer.util.reloadScriptedModule("PedBoneSeg")
        self.widget = slicer.modules.pedboneseg.widgetRepresentation().self()
        assert self.widget.panel is not None

    def run(self) -> int:
        for function in (
            self.openThePanel, self.loadTheSample, self.segmentByAClick, self.neverBlockedForLong,
            self.threeDimensions, self.reviewTheWorstSlices, self.correctAndUndo, self.measure, self.addToATrainingSet,
            self.exportAsDicomSeg, self.batch,
            self.againIntoTheSameIsOneUndoStep,  # it changes the labels, so no picture is taken after it
            self.cancelWithinASecond, self.closeTheSceneInMidRun, self.reloadTheModule,
        ):  # fmt: skip
            if not self.step(function) and function in (self.openThePanel, self.loadTheSample, self.segmentByAClick):
                break
        failed = [step["step"] for step in self.steps if not step["passed"]]
        report = {"slicer": slicer.app.applicationVersion, "steps": self.steps, "passed": not failed}
        (self.output / "report.json").write_text(json.dumps(report, indent=1))
        print(f"{'PASSED' if not failed else 'FAILED'}: {len(self.steps) - len(failed)} of {len(self.steps)} steps")
        return bool(failed)


if __name__ == "__main__":
    slicer.util.exit(Conversation(Path(sys.argv[1] if len(sys.argv) > 1 else "conversation-output")).run())
