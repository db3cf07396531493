"""Ring 3: the real panel on the real .ui, the real worker and a tiny model, by clicks."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import qt
import slicer
import vtk
from module.host import qtmodule
from PedBoneSegUI import bonewriting, dependencies, labelmaps, models, segmentations, volumes
from PedBoneSegUI.reviewlist import ReviewList
from PedBoneSegUI.sections.widgets import fillTable

from PedBoneSegLib.anatomy import joint_table, known_joints
from PedBoneSegLib.errors import BadModel
from PedBoneSegLib.models import store


@pytest.fixture
def ui(widget):
    return widget.ui


@pytest.fixture
def volume(widget, makeVolume):
    rng = np.random.default_rng(3)
    array = rng.normal(300, 60, (6, 64, 64)).clip(0)
    array[:, 10:30, 16:48] += 400
    node = makeVolume(array.astype(np.int16), np.diag([1.0, 1.0, 4.0, 1.0]), "Müller_Zoë right knee")
    widget._parameterNode.volume = node
    return node


@pytest.fixture
def large(widget, makeVolume):
    """A volume that takes the worker long enough to be interrupted."""
    array = np.random.default_rng(1).normal(300, 90, (60, 384, 384)).clip(0).astype(np.int16)
    widget._parameterNode.volume = makeVolume(array, np.diag([0.5, 0.5, 3.0, 1.0]))
    return widget._parameterNode.volume


@pytest.fixture
def segment(ui, widget, volume, spin):
    """Segments the volume as a knee by a click; returns the segmentation."""

    def run(joint: str = "knee"):
        ui.jointCombo.setCurrentIndex(ui.jointCombo.findData(joint))
        ui.segmentButton.click()
        spin(lambda: not widget.panel.segment.running)
        assert ui.answerLabel.text.startswith("Knee"), ui.warningLabel.text
        return widget._parameterNode.segmentation

    return run


def edit(segmentation, volume, k: int) -> None:
    """A hand's stroke through the femur on slice k."""
    table = joint_table("knee")
    segment = segmentations.segmentOfBone(segmentation, table.bone("femur"))
    mask = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segment, volume) > 0
    mask[k, 5:9, 5:9] = ~mask[k, 5:9, 5:9]
    bonewriting.writeMask(segmentation, segment, mask, volume)


def test_theSideIsReadFromTheName(ui, volume):
    assert ui.sideCombo.currentData == "right"


def test_segmentingByAClick(ui, widget, volume, segment):
    segmentation = segment()
    core = segmentation.GetSegmentation()
    assert [core.GetNthSegment(i).GetName() for i in range(4)] == [
        "Right femur", "Right tibia", "Right fibula", "Right patella",
    ]  # fmt: skip
    assert ui.answerLabel.text.startswith("Knee, right · ")
    assert ui.warningLabel.text == "No patella was found." and ui.warningFrame.isVisibleTo(ui.segmentSection)
    assert "Device: cpu" in ui.deviceLabel.text
    assert ui.segmentButton.text == "Segment" and ui.segmentButton.enabled
    assert ui.segmentationSelector.currentNode() is segmentation
    assert ui.segmentEditor.segmentationNode() is segmentation
    assert not list(widget.logic.folder.path.iterdir()), "no temporary file is left"
    assert "Müller" not in widget.logic.log.text and "Zoë" not in widget.logic.log.text


def test_anAnswerStandsWithItsVolumeAlone(ui, widget, volume, segment, makeVolume, spin):
    """Another volume takes the words about the last one away; a result brings its own volume back."""
    segmentation = segment()
    other = makeVolume(name="left ankle")
    widget._parameterNode.volume = other
    assert not ui.answerLabel.text and not ui.warningFrame.isVisibleTo(ui.segmentSection)
    assert widget._parameterNode.segmentation is None and ui.sideCombo.currentData == "left"
    widget._parameterNode.volume = volume
    ui.segmentButton.click()
    widget._parameterNode.volume = other
    spin(lambda: not widget.panel.segment.running)
    assert ui.answerLabel.text.startswith("Knee, right") and widget._parameterNode.volume is volume
    assert widget._parameterNode.segmentation is not segmentation
    widget._parameterNode.volume = None
    assert "Sample Data" in ui.stageLabel.text and not ui.segmentButton.enabled


def backgrounds() -> set[str]:
    return {node.GetBackgroundVolumeID() for node in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")}


def test_panelAndViewsAgree(ui, widget, volume, segment, makeVolume, spin):
    """The volume is changed in mid-run: when the result comes, panel and views show its volume, with it alone."""
    first = segment()
    assert backgrounds() == {volume.GetID()} and first.GetDisplayVisibility()
    other = makeVolume(name="left ankle")
    ui.volumeSelector.setCurrentNode(other)
    assert backgrounds() == {other.GetID()} and not first.GetDisplayVisibility()
    ui.volumeSelector.setCurrentNode(volume)
    ui.segmentButton.click()
    ui.volumeSelector.setCurrentNode(other)
    spin(lambda: not widget.panel.segment.running)
    second = widget._parameterNode.segmentation
    assert widget._parameterNode.volume is volume and backgrounds() == {volume.GetID()}
    assert second.GetDisplayVisibility() and not first.GetDisplayVisibility()


def test_onlyImagesAreChosen(ui, widget, makeVolume, spin):
    """A label map that was loaded first is not taken; an image that is loaded while none is chosen is."""
    slicer.mrmlScene.Clear(False)
    slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "labels")
    slicer.mrmlScene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", "colors")
    widget.enter()
    assert widget._parameterNode.volume is None and not ui.segmentButton.enabled
    sample = makeVolume(name="Synthetic knee")
    spin(lambda: widget._parameterNode.volume is sample)
    assert ui.volumeSelector.currentNode() is sample and ui.segmentButton.enabled
    makeVolume(name="another")
    spin(seconds=0.05, fail=False)
    assert widget._parameterNode.volume is sample, "a choice is not changed by loading"


def test_aVolumeThatChangesWhileItIsHandedOver(ui, widget, volume, spin, monkeypatch):
    monkeypatch.setattr(volumes, "CHUNK", 1024)
    ui.segmentButton.click()
    spin(lambda: widget.logic.folder.path.glob("*.nrrd"))
    voxels = slicer.util.arrayFromVolume(volume)
    voxels[5] = 0
    slicer.util.arrayFromVolumeModified(volume)
    spin(lambda: not widget.panel.segment.running)
    assert "changed while it was being copied" in ui.warningLabel.text


def test_aSlicerWithoutDicom(ui, widget, segment, monkeypatch):
    monkeypatch.delattr(slicer, "qSlicerDICOMExportDialog")
    segment()
    assert not ui.dicomButton.enabled and ui.saveButton.enabled


def test_cancelLeavesTheSceneAsItWas(ui, widget, large, spin):
    nodes = slicer.mrmlScene.GetNumberOfNodes()
    ui.segmentButton.click()
    assert ui.segmentButton.text == "Cancel" and ui.progressBar.isVisibleTo(ui.segmentSection)
    spin(seconds=0.3, fail=False)
    ui.segmentButton.click()
    spin(lambda: not widget.panel.segment.running)
    assert slicer.mrmlScene.GetNumberOfNodes() == nodes and "nothing was changed" in ui.stageLabel.text


def test_closingTheSceneInMidRun(ui, widget, large, spin, makeVolume, segment):
    ui.segmentButton.click()
    spin(seconds=0.2, fail=False)
    slicer.mrmlScene.Clear(False)
    spin(seconds=0.3, fail=False)
    assert not widget.panel.segment.running and not ui.warningLabel.text
    widget._parameterNode.volume = makeVolume(np.full((4, 32, 32), 7, np.int16) + np.arange(32, dtype=np.int16))
    segment()


def test_removingTheVolumeInMidRun(ui, widget, large, spin):
    ui.segmentButton.click()
    spin(seconds=0.05, fail=False)
    slicer.mrmlScene.RemoveNode(large)
    spin(lambda: not widget.panel.segment.running)
    assert "removed" in ui.warningLabel.text and not slicer.util.getNodesByClass("vtkMRMLSegmentationNode")


def test_aResultIntoAnExistingSegmentationIsOneUndoStep(ui, widget, volume, segment):
    first = segment()
    before = labelmaps.mergedLabels(first, joint_table("knee"), volume)
    slicer.util.updateVolumeFromArray(volume, slicer.util.arrayFromVolume(volume)[:, ::-1].copy())
    again = segment()
    assert again is first
    after = labelmaps.mergedLabels(first, joint_table("knee"), volume)
    assert not np.array_equal(before, after)
    ui.segmentEditor.undo()
    assert np.array_equal(labelmaps.mergedLabels(first, joint_table("knee"), volume), before)


def test_aVolumeWithoutDepthIsRefusedBeforeHandworkIsLookedFor(ui, widget, volume, segment, spin):
    first = segment()
    edit(first, volume, 2)
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    for row in range(3):
        matrix.SetElement(row, 2, 0.0)
    volume.SetIJKToRASMatrix(matrix)
    ui.segmentButton.click()
    assert not widget.panel.segment.running and not ui.askFrame.isVisibleTo(ui.segmentSection)
    assert "geometry" in ui.warningLabel.text and ui.segmentButton.enabled


def test_handworkIsNeverOverwrittenUnasked(ui, widget, volume, segment, spin):
    first = segment()
    edit(first, volume, 2)
    byHand = labelmaps.mergedLabels(first, joint_table("knee"), volume)
    slicer.util.updateVolumeFromArray(volume, slicer.util.arrayFromVolume(volume)[:, ::-1].copy())
    ui.segmentButton.click()
    spin(lambda: ui.askFrame.isVisibleTo(ui.segmentSection))
    assert not widget.panel.segment.running
    ui.askNothingButton.click()
    assert not ui.askFrame.isVisibleTo(ui.segmentSection) and not widget.panel.segment.running
    ui.segmentButton.click()
    spin(lambda: ui.askFrame.isVisibleTo(ui.segmentSection))
    ui.askUntouchedButton.click()
    spin(lambda: not widget.panel.segment.running)
    after = labelmaps.mergedLabels(first, joint_table("knee"), volume)
    axis = segmentations.axisOf(first, volume)
    assert np.array_equal(np.take(after, 2, 2 - axis), np.take(byHand, 2, 2 - axis)) or axis != 2
    assert not np.array_equal(after, byHand)
    edit(first, volume, 4)
    kept = labelmaps.mergedLabels(first, joint_table("knee"), volume)
    ui.segmentButton.click()
    spin(lambda: ui.askFrame.isVisibleTo(ui.segmentSection))
    ui.askNewButton.click()
    spin(lambda: not widget.panel.segment.running)
    assert widget._parameterNode.segmentation is not first
    assert np.array_equal(labelmaps.mergedLabels(first, joint_table("knee"), volume), kept)


def test_anImageThatCannotBeSegmentedIsToldAsSuch(ui, widget, makeVolume, spin):
    sheared = np.array([[1, 0.4, 0, 0], [0, 1, 0, 0], [0, 0, 3, 0], [0, 0, 0, 1.0]])
    widget._parameterNode.volume = makeVolume(matrix=sheared)
    ui.segmentButton.click()
    spin(lambda: not widget.panel.segment.running)
    assert "sheared" in ui.warningLabel.text and not widget.panel.segment.running


def test_aFaultAfterTheAnswerIsTold(ui, widget, volume, spin, monkeypatch):
    """The model was removed while it worked: its label table cannot be read any more."""

    def gone(answer, model):
        raise BadModel("there is no model 'tiny'", "")

    monkeypatch.setattr(models, "tableOfAnswer", gone)
    nodes = slicer.mrmlScene.GetNumberOfNodes()
    ui.segmentButton.click()
    spin(lambda: not widget.panel.segment.running)
    assert "no model 'tiny'" in ui.warningLabel.text and slicer.mrmlScene.GetNumberOfNodes() == nodes
    assert ui.segmentButton.enabled and ui.segmentButton.text == "Segment"


def test_reviewByButtonsAndKeys(ui, widget, volume, segment):
    segmentation = segment()
    listed = [{"index": 3, "score": 0.9, "share": 0.6}, {"index": 1, "score": 0.5, "share": 0.9}]
    segmentations.remember(segmentation, slices=listed, axis=2, seen=[], accepted=[], position=-1)
    widget.panel.parametersChanged()
    assert "2 slices hold 90 %" in ui.reviewLabel.text
    red = slicer.mrmlScene.GetSingletonNode("Red", "vtkMRMLSliceNode")
    ui.nextButton.click()
    assert "Slice 1 of 2 · Red 12.0 mm" in ui.reviewLabel.text and ui.reviewBar.value == 60
    assert red.GetSliceOffset() == pytest.approx(3 * 4.0)
    for shortcut in widget.panel.review._keys:
        assert shortcut.isEnabled()
    widget.panel.review._keys[0].activated.emit()
    assert red.GetSliceOffset() == pytest.approx(1 * 4.0) and ui.reviewBar.value == 90
    ui.previousButton.click()
    assert red.GetSliceOffset() == pytest.approx(3 * 4.0)
    ui.acceptButton.click()
    ui.acceptButton.click()
    assert ui.reviewLabel.text.endswith("reviewed")
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    assert logic.GetSegmentStatus(segmentation.GetSegmentation().GetNthSegment(0)) == logic.Completed


def test_acceptedSlicesOfScenesFromOlderVersionsAreKept(makeVolume):
    segmentation = segmentations.createSegmentation(makeVolume(), "older")
    segmentations.remember(segmentation, slices=[{"index": 3}, {"index": 1}], seen=[0], right=[0], position=0)
    review = ReviewList(segmentation)
    assert review.accepted == [0] and not review.complete
    review.accept()
    review.accept()
    assert ReviewList(segmentation).accepted == [0, 1] and review.complete


def test_doubtIsLaidOverTheImage(ui, widget, volume, segment):
    segmentation = segment()
    doubt = segmentations.doubtOf(segmentation)
    assert doubt is not None and doubt.GetImageData().GetDimensions() == volume.GetImageData().GetDimensions()
    ui.doubtCheckBox.click()
    composite = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")[0]
    assert composite.GetForegroundVolumeID() == doubt.GetID()
    ui.doubtCheckBox.click()
    assert composite.GetForegroundVolumeID() is None
    ui.volumeSelector.setCurrentNode(doubt)
    assert ui.volumeSelector.currentNode() is not doubt, "a doubt map is not offered as an image"


def test_correctingWithTheEditorsEffects(ui, widget, volume, segment):
    segmentation = segment()
    ui.correctSection.collapsed = False
    femur = segmentations.segmentOfBone(segmentation, joint_table("knee").bone("femur"))
    mask = np.zeros((6, 64, 64), bool)
    mask[1, 10:40, 10:40] = mask[3, 10:40, 10:40] = True
    mask[5, 60, 60] = True
    bonewriting.writeMask(segmentation, femur, mask, volume)
    ui.segmentEditor.setCurrentSegmentID(femur)
    ui.piecesButton.click()
    ui.fillButton.click()
    ui.smoothButton.click()
    now = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, femur, volume) > 0
    assert not now[5].any() and now[2, 20, 20]
    for _step in range(3):
        ui.segmentEditor.undo()
    now = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, femur, volume) > 0
    assert np.array_equal(now, mask)


def test_aClickCorrectsTheSelectedBoneAlone(ui, widget, volume, segment):
    """Whatever was set in the editor before: all visible segments, a mask; and it is set again afterwards."""
    segmentation, table = segment(), joint_table("knee")
    ids = [segmentations.segmentOfBone(segmentation, bone) for bone in table.bones]
    drawn = np.zeros((len(ids), 6, 64, 64), bool)
    for number, segmentId in enumerate(ids):
        drawn[number, [1, 4], 12 * number : 12 * number + 8, 10:40] = True
        bonewriting.writeMask(segmentation, segmentId, drawn[number], volume)
    node, display = ui.segmentEditor.mrmlSegmentEditorNode(), segmentation.GetDisplayNode()
    node.SetAttribute("Smoothing.ApplyToAllVisibleSegments", "1")
    node.SetAttribute("Smoothing.KernelSizeMm", "7")
    node.SetMaskMode(slicer.vtkMRMLSegmentationNode.EditAllowedInsideAllSegments)
    node.SetSourceVolumeIntensityMask(True)
    node.SetOverwriteMode(node.OverwriteAllSegments)
    display.SetSegmentVisibility(ids[3], False)
    ui.segmentEditor.setCurrentSegmentID(ids[1])
    for button in (ui.fillButton, ui.smoothButton, ui.piecesButton):
        button.click()
        assert ui.segmentEditor.currentSegmentID() == ids[1], "the bone stays selected"
    now = [slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, name, volume) > 0 for name in ids]
    assert now[1][2].any() and not np.array_equal(now[1], drawn[1])
    assert all(np.array_equal(now[n], drawn[n]) for n in (0, 2, 3))
    assert node.GetAttribute("Smoothing.ApplyToAllVisibleSegments") == "1"
    assert node.GetAttribute("Smoothing.KernelSizeMm") == "7" and node.GetAttribute("Islands.Operation") is None
    assert node.GetMaskMode() == slicer.vtkMRMLSegmentationNode.EditAllowedInsideAllSegments
    assert node.GetSourceVolumeIntensityMask() and node.GetOverwriteMode() == node.OverwriteAllSegments
    assert [display.GetSegmentVisibility(name) for name in ids] == [True, True, True, False]


def test_theEditorsKeysWorkOnlyWhileCorrectIsOpen(ui, widget, segment):
    segment()
    ui.correctSection.collapsed = True
    widget.enter()
    assert not ui.segmentEditor.shortcutsInstalled()
    ui.correctSection.collapsed = False
    assert ui.segmentEditor.shortcutsInstalled()
    widget.exit()
    assert not ui.segmentEditor.shortcutsInstalled()
    widget.enter()
    assert ui.segmentEditor.shortcutsInstalled()
    ui.correctSection.collapsed = True
    assert not ui.segmentEditor.shortcutsInstalled()


def test_whatCannotBeDoneYetIsNotOpen(ui, widget, volume, segment):
    later = (ui.reviewSection, ui.correctSection, ui.measureSection, ui.saveSection)
    assert not any(section.enabled or not section.collapsed for section in later)
    segment()
    assert all(section.enabled for section in later)
    assert [section.collapsed for section in later] == [False, True, True, True]


def shownWhole(header: list[str], rows: list[list[str]], width: int) -> bool:
    """Whether a table of that width shows all columns, and all of their texts."""
    table = qt.QTableWidget()
    fillTable(table, header, rows)
    table.resize(width, 300)
    table.show()
    qt.QApplication.processEvents()
    metrics, columns = table.fontMetrics(), range(len(header))
    widest = [
        max(metrics.horizontalAdvance(line) for cell in (header[column], *(row[column] for row in rows))
            for line in cell.split("\n"))
        for column in columns
    ]  # fmt: skip
    inside = table.horizontalHeader().length() <= table.viewport().width
    return inside and all(widest[column] < table.columnWidth(column) for column in columns)


def test_measuring(ui, widget, volume, segment, spin, tmp_path):
    segmentation = segment()
    ui.measureButton.click()
    spin(lambda: ui.measureTable.rowCount == 4)
    table = joint_table("knee")
    labels = labelmaps.mergedLabels(segmentation, table, volume)
    header = [ui.measureTable.horizontalHeaderItem(c).text() for c in range(ui.measureTable.columnCount)]
    shown = float(ui.measureTable.item(0, header.index("Volume\n(ml)")).text())
    texts = [[ui.measureTable.item(row, c).text() for c in range(len(header))] for row in range(4)]
    longest = max((bone for joint in known_joints() for bone in joint_table(joint).names), key=len)
    assert shownWhole(header, [[longest, "123.4", "123.4", "123.4", "123.4", "123.4"], *texts], 450)
    assert shown == pytest.approx((labels == 1).sum() * 4 / 1000, rel=1e-3)
    assert slicer.util.getNodesByClass("vtkMRMLTableNode")[0].GetTable().GetNumberOfRows() == 4
    ui.measureCopyButton.click()
    assert slicer.app.clipboard().text().splitlines()[1].startswith("femur\t1\t")
    qtmodule.dialogAnswers.append(str(tmp_path / "bönes.csv"))
    ui.measureCsvButton.click()
    assert (tmp_path / "bönes.csv").read_text(encoding="utf-8").count("\n") == 5
    qtmodule.dialogAnswers.append(str(tmp_path))
    ui.meshesButton.click()
    assert list(tmp_path.glob("*.stl"))


def test_savingAndTheTrainingSet(ui, widget, volume, segment, spin, tmp_path):
    segmentation = segment()
    for chosen, written in (("a.seg.nrrd",) * 2, ("a.nii.gz",) * 2, ("knee v1.2", "knee v1.2.seg.nrrd")):
        qtmodule.dialogAnswers.append(str(tmp_path / chosen))
        ui.saveButton.click()
        spin(lambda: ui.saveButton.enabled)
        assert (tmp_path / written).stat().st_size > 100, ui.saveLabel.text
    assert qtmodule.dialogProposals[-1] == "Müller_Zoë right knee bones.seg.nrrd"
    before = (tmp_path / "knee v1.2.seg.nrrd").read_bytes()
    qtmodule.dialogAnswers.append(str(tmp_path / "knee v1.2"))  # the dialog did not ask about the file with its ending
    ui.saveButton.click()
    spin(lambda: ui.saveButton.enabled)
    assert "exists already" in ui.saveLabel.text and (tmp_path / "knee v1.2.seg.nrrd").read_bytes() == before
    qtmodule.dialogAnswers.append(str(tmp_path / "nowhere" / "a.nii.gz"))
    ui.saveButton.click()
    spin(lambda: ui.saveButton.enabled)
    assert ui.saveLabel.text.startswith("Not saved")
    ui.dicomButton.click()
    scene, _item = slicer.qSlicerDICOMExportDialog.exported[-1]
    assert scene is slicer.mrmlScene
    folder = tmp_path / "Dataset 102"
    ui.casesFolderEdit.setCurrentPath(str(folder))
    ui.unlabelledEdit.setText("rib")
    ui.addCaseButton.click()
    spin(lambda: ui.addCaseButton.enabled)
    assert "rib" in ui.trainingLabel.text and not folder.exists()
    ui.unlabelledEdit.setText("Patella")
    ui.addCaseButton.click()
    spin(lambda: ui.addCaseButton.enabled)
    assert ui.trainingLabel.text.startswith("Added as case_"), ui.trainingLabel.text
    dataset = json.loads((folder / "dataset.json").read_text())
    assert dataset["numTraining"] == 1 and list(dataset["pedboneseg"]["sides"].values()) == ["right"]
    ui.commandCopyButton.click()
    assert "adapt" in slicer.app.clipboard().text() and "Dataset 102" in slicer.app.clipboard().text()
    assert segmentation is widget._parameterNode.segmentation


@pytest.fixture
def automatic(ui):
    """The model "Automatic", as a user finds the panel: the built-in one works."""
    chosen = ui.modelCombo.currentIndex
    ui.modelCombo.setCurrentIndex(ui.modelCombo.findText("Automatic"))
    yield
    ui.modelCombo.setCurrentIndex(chosen)


def test_theCommandRunsHere(ui, widget, automatic, volume, segment, spin, tmp_path):
    """The command that the panel copies, word for word, in a shell; one training step on a small exam is enough."""
    slicer.util.updateVolumeFromArray(volume, np.arange(4 * 32 * 32, dtype=np.int16).reshape(4, 32, 32))
    edit(segment(), volume, 2)
    folder = tmp_path / "my set für Zoë"
    ui.casesFolderEdit.setCurrentPath(str(folder))
    ui.addCaseButton.click()
    spin(lambda: ui.addCaseButton.enabled)
    ui.commandCopyButton.click()
    line = slicer.app.clipboard().text()
    done = subprocess.run(f"{line} --steps 1", shell=True, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    trained = store.show(str(folder / "knee-own.safetensors"))
    assert "knee-own" in models.jointsOf(trained.manifest) and "femur" in done.stdout


def test_droppingAFile(ui, widget, volume, tmp_path):
    storage = slicer.vtkMRMLVolumeArchetypeStorageNode()
    storage.SetFileName(str(tmp_path / "left knee.nrrd"))
    assert storage.WriteData(volume)
    data = qt.QMimeData()
    data.setUrls([qt.QUrl.fromLocalFile(str(tmp_path / "left knee.nrrd"))])
    place, action = qt.QPointF(5, 5), qt.Qt.CopyAction
    enter = qt.QDragEnterEvent(qt.QPoint(5, 5), action, data, qt.Qt.LeftButton, qt.Qt.NoModifier)
    qt.QApplication.sendEvent(widget.panel.topWidget, enter)
    drop = qt.QDropEvent(place, action, data, qt.Qt.LeftButton, qt.Qt.NoModifier)
    qt.QApplication.sendEvent(widget.panel.topWidget, drop)
    assert widget._parameterNode.volume.GetName() == "left knee" and ui.sideCombo.currentData == "left"


def test_modelsFromFile(ui, widget, spin, tmp_path):
    (tmp_path / "no model.safetensors").write_bytes(b"not a model")
    qtmodule.dialogAnswers.append(str(tmp_path / "no model.safetensors"))
    ui.modelInstallButton.click()
    spin(lambda: ui.modelInstallButton.enabled)
    assert "no model" in ui.modelText.plainText
    ui.modelFolderButton.click()
    assert qtmodule.openedUrls[-1].endswith("models")
    ui.logCopyButton.click()
    ui.releaseButton.click()
    assert not widget.logic.client.running


def test_setupShowsItselfOnlyWhenSomethingIsMissing(ui, widget, volume, monkeypatch, spin):
    widget.enter()
    assert ui.setupSection.isHidden()
    monkeypatch.setattr(dependencies, "missing", lambda: ["torch"])
    monkeypatch.setattr(dependencies, "TORCH", "torch>=99")
    widget.enter()
    assert not ui.setupSection.isHidden() and "PyTorch" in ui.setupLabel.text
    ui.segmentButton.click()
    assert not widget.panel.segment.running and "top of the panel" in ui.stageLabel.text
    qtmodule.dialogAnswers.append(str(Path(__file__).parent))
    ui.setupWheelsButton.click()
    spin(lambda: ui.setupInstallButton.enabled)
    assert "No fitting build" in ui.setupLabel.text
    monkeypatch.undo()
    widget.enter()
    assert ui.setupSection.isHidden()


def test_cancelStopsEveryInstallation(ui, widget, monkeypatch, spin):
    """Also the second call, safetensors after torch: each is a process of ours."""
    monkeypatch.setattr(dependencies, "missing", lambda: ["torch", "safetensors"])
    waiting = ["-c", "import time; print('started', flush=True); time.sleep(600)"]
    monkeypatch.setattr(dependencies, "steps", lambda packages, wheels: [["-c", "pass"], waiting])
    widget.enter()
    ui.setupInstallButton.click()
    spin(lambda: "started" in ui.setupLogText.plainText.splitlines())
    process = widget.panel.setup._installation._process
    ui.setupCancelButton.click()
    spin(lambda: ui.setupInstallButton.enabled)
    assert process.state() == qt.QProcess.NotRunning and "cancelled" in ui.setupLabel.text
    monkeypatch.undo()
    widget.enter()


def test_everyControlBearsAClick(ui, widget, spin):
    """With an empty scene: whatever is enabled is clicked or turned, and nothing raises."""
    for control in list(vars(ui).values()):
        if isinstance(control, qt.QAbstractButton) and control.enabled and control.name not in ("setupInstallButton",):
            if control.name in ("modelInstallButton", "setupWheelsButton"):
                qtmodule.dialogAnswers.append("")
            control.click()
        elif isinstance(control, qt.QComboBox):
            for index in range(control.count):
                control.setCurrentIndex(index)
    spin(seconds=0.2, fail=False)
    combo = ui.modelCombo
    combo.setCurrentIndex(combo.findData("tiny"))
