"""Ring 3: a folder in, a folder out; goes on where it stopped; a double click loads a result."""

import json

import numpy as np
import qt
import SimpleITK
import slicer
from PedBoneSegUI import labelmaps, segmentations
from PedBoneSegUI.processes import endTree
from PedBoneSegUI.sections.batch import noteOf
from PedBoneSegUI.sections.widgets import fillTable

from PedBoneSegLib.program.batch import MANIFEST, SUMMARY


def write(path, seed: int = 0, size=(24, 64, 64)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.random.default_rng(seed).normal(300, 60, size).clip(0).astype(np.int16)
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing((1.0, 1.0, 4.0))
    SimpleITK.WriteImage(image, str(path))


def cells(ui) -> list[list[str]]:
    table = ui.batchTable
    return [[table.item(row, column).text() for column in range(3)] for row in range(table.rowCount)]


def test_aFolderWithABadFileAndAResume(widget, spin, tmp_path):
    ui, source, output = widget.ui, tmp_path / "Fälle A", tmp_path / "Ergebnis"
    write(source / "b.nrrd", 1, (6, 64, 64))
    write(source / "c d.nii.gz", 2, (6, 64, 64))
    (source / "a.nii.gz").write_bytes(b"no image")
    (source / "notes.txt").write_text("not a volume")
    ui.jointCombo.setCurrentIndex(ui.jointCombo.findData("knee"))
    ui.batchInputEdit.setCurrentPath(str(source))
    ui.batchOutputEdit.setCurrentPath(str(output))
    ui.batchButton.click()
    assert ui.batchButton.text == "Cancel" and not ui.segmentButton.enabled
    spin(lambda: not widget.panel.batch.running)
    shown = cells(ui)
    assert [row[1] for row in shown] == ["failed", "done", "done"], shown
    assert shown[1][2].startswith("Knee · ") and "2 done, 0 done before, 1 failed" in ui.batchLabel.text
    assert sorted(path.name for path in output.glob("*.nii.gz")) == ["b_bones.nii.gz", "c d_bones.nii.gz"]
    assert (output / SUMMARY).is_file()
    write(source / "b.nrrd", 5, (7, 64, 64))
    ui.batchButton.click()
    spin(lambda: not widget.panel.batch.running)
    assert [row[1] for row in cells(ui)] == ["failed", "done", "done before"]
    ui.batchTable.cellDoubleClicked.emit(2, 0)
    segmentation, volume = widget._parameterNode.segmentation, widget._parameterNode.volume
    labels = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(output / "c d_bones.nii.gz")))
    table = segmentations.tableOf(segmentation)
    assert np.array_equal(labelmaps.mergedLabels(segmentation, table, volume), labels) and labels.any()
    assert ui.answerLabel.text.startswith("Knee")
    nodes = slicer.mrmlScene.GetNumberOfNodes()
    ui.batchTable.cellDoubleClicked.emit(2, 0)
    assert slicer.mrmlScene.GetNumberOfNodes() == nodes, "what is loaded already is chosen, not loaded again"
    assert widget._parameterNode.segmentation is segmentation
    ui.batchTable.cellDoubleClicked.emit(0, 0)
    assert slicer.mrmlScene.GetNumberOfNodes() == nodes, "a failed file has nothing to load"


def test_cancelAndTheListOfWhatIsDone(widget, spin, tmp_path):
    ui = widget.ui
    for name in "abc":
        write(tmp_path / "in" / f"{name}.nrrd", ord(name), (60, 384, 384))
    ui.batchInputEdit.setCurrentPath(str(tmp_path / "in"))
    ui.batchOutputEdit.setCurrentPath("")
    ui.batchButton.click()
    spin(lambda: "a.nrrd · segmenting" in ui.batchLabel.text)
    assert not ui.measureButton.enabled and not ui.modelInstallButton.enabled, "the worker does one thing at a time"
    ui.batchButton.click()
    spin(lambda: not widget.panel.batch.running)
    assert not cells(ui) and "goes on where it stopped" in ui.batchLabel.text and ui.modelInstallButton.enabled
    assert not list((tmp_path / "in_bones").glob("*.nii.gz"))


def test_foldersThatWillNotDo(widget, spin, tmp_path):
    ui = widget.ui
    ui.batchInputEdit.setCurrentPath(str(tmp_path / "nowhere"))
    ui.batchButton.click()
    assert "Choose the folder" in ui.batchLabel.text and not widget.panel.batch.running
    ui.batchInputEdit.setCurrentPath(str(tmp_path))
    ui.batchOutputEdit.setCurrentPath(str(tmp_path))
    ui.batchButton.click()
    spin(lambda: not widget.panel.batch.running)
    assert "holds no volume" in ui.batchLabel.text
    write(tmp_path / "a.nrrd", 1, (6, 64, 64))
    ui.batchButton.click()
    spin(lambda: not widget.panel.batch.running)
    assert "another folder" in ui.batchLabel.text and not list(tmp_path.glob("*bones*"))


def test_aFileThatTheWorkerDiesOf(widget, spin, tmp_path):
    """The worker is killed while it works on the first file: a new one does the rest."""
    ui, client = widget.ui, widget.logic.client
    write(tmp_path / "in" / "a.nrrd", 1, (60, 384, 384))
    write(tmp_path / "in" / "b.nrrd", 2, (6, 64, 64))
    ui.jointCombo.setCurrentIndex(ui.jointCombo.findData("knee"))
    ui.batchInputEdit.setCurrentPath(str(tmp_path / "in"))
    ui.batchOutputEdit.setCurrentPath("")
    ui.batchButton.click()
    spin(lambda: "a.nrrd · segmenting" in ui.batchLabel.text)
    endTree(client.processId())
    spin(lambda: not widget.panel.batch.running)
    assert [row[:2] for row in cells(ui)] == [["a.nrrd", "failed"], ["b.nrrd", "done"]], cells(ui)
    assert "ended the program" in cells(ui)[0][2] and (tmp_path / "in_bones").is_dir()


def test_aDamagedListOfWhatIsDone(widget, spin, tmp_path):
    """Nothing is guessed and nothing overwritten: the user is told which file to delete."""
    ui = widget.ui
    write(tmp_path / "in" / "a.nrrd", 1, (6, 64, 64))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / MANIFEST).write_text("{", encoding="utf-8")
    ui.jointCombo.setCurrentIndex(ui.jointCombo.findData("knee"))
    ui.batchInputEdit.setCurrentPath(str(tmp_path / "in"))
    ui.batchOutputEdit.setCurrentPath(str(tmp_path / "out"))
    ui.batchButton.click()
    spin(lambda: not widget.panel.batch.running)
    assert MANIFEST in ui.batchLabel.text and "delete it" in ui.batchLabel.text
    (tmp_path / "out" / MANIFEST).unlink()
    ui.batchButton.click()
    spin(lambda: not widget.panel.batch.running)
    assert list(json.loads((tmp_path / "out" / MANIFEST).read_text())["files"]) == ["a.nrrd"]


def test_anotherFolderNeverReplacesResults(widget, spin, tmp_path):
    """Folder A with Results empty, then folder B: the path of A's results is not kept; and typed in, it is refused."""
    ui = widget.ui
    for name, seed in (("A", 1), ("B", 2)):
        write(tmp_path / name / "knee.nrrd", seed, (6, 64, 64))
    ui.jointCombo.setCurrentIndex(ui.jointCombo.findData("knee"))
    ui.batchInputEdit.setCurrentPath(str(tmp_path / "A"))
    ui.batchOutputEdit.setCurrentPath("")
    ui.batchButton.click()
    spin(lambda: not widget.panel.batch.running)
    assert ui.batchOutputEdit.currentPath == "" and "A_bones" in ui.batchLabel.text
    result = (tmp_path / "A_bones" / "knee_bones.nii.gz").read_bytes()
    ui.batchInputEdit.setCurrentPath(str(tmp_path / "B"))
    ui.batchOutputEdit.setCurrentPath(str(tmp_path / "A_bones"))
    ui.batchButton.click()
    assert not widget.panel.batch.running and "results of other images" in ui.batchLabel.text
    assert "knee.nrrd" in ui.batchLabel.text
    ui.batchOutputEdit.setCurrentPath("")
    ui.batchButton.click()
    spin(lambda: not widget.panel.batch.running)
    assert (tmp_path / "B_bones" / "knee_bones.nii.gz").is_file()
    assert (tmp_path / "A_bones" / "knee_bones.nii.gz").read_bytes() == result


def test_theReasonOfAFailureCanBeRead():
    """In a panel of 450 px its column gets the room, the text is wrapped, and the tool tip has it whole."""
    message = "knee.nrrd is sheared: its axes are not at right angles"
    error = {"kind": "bad-input", "message": message, "hint": "resample it " * 12}
    note = noteOf({"input": "knee.nrrd", "status": "failed", "error": error})
    table = qt.QTableWidget()
    fillTable(table, ["File", "State", "Result"], [["knee.nrrd", "failed", note]], wide=2)
    table.resize(450, 300)
    table.show()
    qt.QApplication.processEvents()
    assert message in note and table.item(0, 2).toolTip() == note
    assert table.columnWidth(2) > 200 and table.horizontalHeader().length() <= table.viewport().width
    assert table.rowHeight(0) > 4 * table.fontMetrics().height(), "the whole text, in lines"
