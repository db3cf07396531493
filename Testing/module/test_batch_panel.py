"""Ring 3: a folder in, a folder out; goes on where it stopped; a double click loads a result."""

import json

import numpy as np
import SimpleITK
import slicer
from PedBoneSegUI import segmentations
from PedBoneSegUI.batch import RECORD, findInputs


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
    write(source / "sub folder" / "c.nii.gz", 2, (6, 64, 64))
    (source / "a.nii.gz").write_bytes(b"no image")
    (source / "notes.txt").write_text("not a volume")
    ui.jointCombo.setCurrentIndex(ui.jointCombo.findData("knee"))
    ui.batchInputEdit.setCurrentPath(str(source))
    ui.batchOutputEdit.setCurrentPath(str(output))
    ui.batchButton.click()
    assert ui.batchButton.text == "Cancel" and not ui.segmentButton.enabled
    spin(lambda: not widget.panel.batch.running, 90)
    shown = cells(ui)
    assert [row[1] for row in shown] == ["failed", "done", "done"], shown
    assert shown[1][2].startswith("Knee · ") and "2 done, 1 failed" in ui.batchLabel.text
    assert sorted(path.name for path in output.glob("*.nii.gz")) == ["b_bones.nii.gz", "sub folder_c_bones.nii.gz"]
    write(source / "b.nrrd", 5, (7, 64, 64))
    ui.batchButton.click()
    spin(lambda: not widget.panel.batch.running, 60)
    assert [row[1] for row in cells(ui)] == ["failed", "done", "done before"]
    ui.batchTable.cellDoubleClicked.emit(2, 0)
    segmentation, volume = widget._parameterNode.segmentation, widget._parameterNode.volume
    labels = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(output / "sub folder_c_bones.nii.gz")))
    table = segmentations.tableOf(segmentation)
    assert np.array_equal(segmentations.mergedLabels(segmentation, table, volume), labels) and labels.any()
    assert ui.answerLabel.text.startswith("Knee")
    nodes = slicer.mrmlScene.GetNumberOfNodes()
    ui.batchTable.cellDoubleClicked.emit(0, 0)
    assert slicer.mrmlScene.GetNumberOfNodes() == nodes, "a failed file has nothing to load"


def test_cancelAndTheListOfWhatIsDone(widget, spin, tmp_path):
    ui = widget.ui
    for name in "abc":
        write(tmp_path / "in" / f"{name}.nrrd", ord(name), (60, 384, 384))
    ui.batchInputEdit.setCurrentPath(str(tmp_path / "in"))
    ui.batchOutputEdit.setCurrentPath("")
    ui.batchButton.click()
    spin(lambda: any(row[1] == "running" for row in cells(ui)), 60)
    ui.batchButton.click()
    spin(lambda: not widget.panel.batch.running, 3)
    assert [row[1] for row in cells(ui)].count("cancelled") == 1 and "left" in ui.batchLabel.text
    assert not list((tmp_path / "in_bones").glob("*.nii.gz")) and not (tmp_path / "in_bones" / RECORD).exists()


def test_foldersThatWillNotDo(widget, tmp_path):
    ui = widget.ui
    ui.batchInputEdit.setCurrentPath(str(tmp_path / "nowhere"))
    ui.batchButton.click()
    assert "Choose the folder" in ui.batchLabel.text and not widget.panel.batch.running
    ui.batchInputEdit.setCurrentPath(str(tmp_path))
    ui.batchOutputEdit.setCurrentPath(str(tmp_path))
    ui.batchButton.click()
    assert "another folder" in ui.batchLabel.text and not widget.panel.batch.running


def test_whatIsAnInput(tmp_path):
    write(tmp_path / "x.mha", 0, (2, 8, 8))
    (tmp_path / "series").mkdir()
    (tmp_path / "series" / "IM0001").write_bytes(bytes(128) + b"DICM" + bytes(10))
    (tmp_path / "out").mkdir()
    write(tmp_path / "out" / "x_bones.nii.gz", 0, (2, 8, 8))
    found = [path for path in findInputs(tmp_path, tmp_path / "out") if path]
    assert found == [tmp_path / "x.mha", tmp_path / "series"]


def test_aDamagedRecordIsNoObstacle(widget, spin, tmp_path):
    ui = widget.ui
    write(tmp_path / "in" / "a.nrrd", 1, (6, 64, 64))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / RECORD).write_text("{", encoding="utf-8")
    ui.jointCombo.setCurrentIndex(ui.jointCombo.findData("knee"))
    ui.batchInputEdit.setCurrentPath(str(tmp_path / "in"))
    ui.batchOutputEdit.setCurrentPath(str(tmp_path / "out"))
    ui.batchButton.click()
    spin(lambda: not widget.panel.batch.running, 60)
    assert list(json.loads((tmp_path / "out" / RECORD).read_text())) == ["a.nrrd"]
