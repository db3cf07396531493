"""Ring 2: the flow of a script, without a panel: real worker, real MRML, sequences, transforms, several windows."""

from pathlib import Path

import numpy as np
import pytest
import slicer
from live_processes import is_alive, wait_until
from module.bones import KNEE, oblique
from PedBoneSegUI import labelmaps, paths, segmentations, tasks, volumes
from PedBoneSegUI.processes import descendants

from PedBoneSegLib.volume import Grid


@pytest.fixture(scope="module")
def logic(tinyModel):
    from PedBoneSeg import PedBoneSegLogic

    made = PedBoneSegLogic()
    yield made
    made.close()


def image(seed: int = 3) -> np.ndarray:
    array = np.random.default_rng(seed).normal(300, 60, (6, 64, 64)).clip(0)
    array[:, 10:30, 16:48] += 400
    return array.astype(np.int16)


def transformed(volume):
    import vtk

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    transform = vtk.vtkTransform()
    transform.RotateWXYZ(50, 1, 2, 3)
    node.SetMatrixTransformToParent(transform.GetMatrix())
    volume.SetAndObserveTransformNodeID(node.GetID())
    return volume


def test_aTransformInTheSceneChangesNoVoxel(logic, makeVolume):
    """The same scan, straight and under a transform: the same labels, each on its own volume."""
    results = []
    for volume in (makeVolume(image(), oblique()), transformed(makeVolume(image(), oblique()))):
        segmentation, answer = logic.segmentAndWait(volume, joint="knee", side="left", model="tiny")
        assert answer["side"] == "left" and segmentations.volumeOf(segmentation) is volume
        assert segmentation.GetTransformNodeID() == volume.GetTransformNodeID()
        results.append(labelmaps.mergedLabels(segmentation, KNEE, volume))
    assert np.array_equal(*results) and results[0].any()


def test_measuringByAScript(logic, makeVolume, spin):
    segmentation, answer = logic.segmentAndWait(makeVolume(image()), joint="knee", model="tiny")
    measured = []
    logic.measure(segmentation, onDone=measured.append)
    spin(lambda: measured)
    femur = measured[0]["bones"]["femur"]
    assert femur["volume_ml"] == pytest.approx(answer["bones"]["femur"]["volume_ml"], rel=1e-3) and femur["volume_ml"]
    assert not list(logic.folder.path.iterdir())


def written(array, grid, path):
    """Steps of an errand that needs no worker."""
    yield from volumes.writing(array, grid, path)
    return (path,)


def test_theFileHoldsTheGridOfTheVolume(logic, makeVolume, spin, tmp_path):
    """What the worker is handed, read by another reader: voxels, spacing, axes and origin."""
    import SimpleITK

    volume, path, ends = makeVolume(image().astype(np.float32), oblique()), tmp_path / "ä b.nrrd", []
    steps = written(slicer.util.arrayFromVolume(volume), volumes.gridOf(volume), path)
    tasks.Task(None, steps, ends.append, lambda *fault: ends.append(fault))
    spin(lambda: ends)
    read = SimpleITK.ReadImage(str(path))
    assert ends == [path] and np.array_equal(SimpleITK.GetArrayFromImage(read), image().astype(np.float32))
    for index in ((0, 0, 0), (63, 5, 2), (7, 60, 5)):
        expected = (oblique() @ (*index, 1))[:3] * (-1, -1, 1)
        assert np.allclose(read.TransformIndexToPhysicalPoint(index), expected, atol=1e-4)


def test_aFullDiskIsTold(logic, makeVolume, spin):
    ends = []
    grid = Grid.from_affine((4, 4, 4), np.eye(4))
    steps = written(np.zeros((4, 4, 4), np.uint8), grid, Path("/dev/full"))
    tasks.Task(None, steps, ends.append, lambda *fault: ends.append(fault))
    spin(lambda: ends)
    assert ends == [("bad-input", "No space left on device", {})]


def test_theCurrentItemOfASequence(logic, makeVolume):
    volume = makeVolume(image(1), name="Dynamic")
    sequence = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", "Dynamic sequence")
    for number in range(3):
        slicer.util.updateVolumeFromArray(volume, image(number))
        sequence.SetDataNodeAtValue(volume, str(number))
    browser = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", "browser")
    browser.SetAndObserveMasterSequenceNodeID(sequence.GetID())
    browser.AddProxyNode(volume, sequence, False)
    browser.SetSelectedItemNumber(1)
    slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(browser)
    assert np.array_equal(slicer.util.arrayFromVolume(volume), image(1))
    segmentation, _answer = logic.segmentAndWait(volume, joint="knee", model="tiny")
    assert segmentation.GetName() == "Dynamic item 2 bones"
    alone, _answer = logic.segmentAndWait(makeVolume(image(1)), joint="knee", model="tiny")
    labels = [labelmaps.mergedLabels(one, KNEE, volume) for one in (segmentation, alone)]
    assert np.array_equal(*labels)


def test_aScriptGetsTheReason(logic, makeVolume):
    with pytest.raises(RuntimeError, match="hip"):
        logic.segmentAndWait(makeVolume(image()), joint="hip")
    with pytest.raises(RuntimeError, match="components"):
        colored = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLVectorVolumeNode")
        slicer.util.updateVolumeFromArray(colored, np.zeros((4, 4, 4, 3), np.uint8))
        logic.segmentAndWait(colored)


def test_twoWindowsSideBySide(logic, makeVolume, spin):
    """Each has its own worker and its own folder; the end of one leaves the other."""
    from PedBoneSeg import PedBoneSegLogic

    other, ends = PedBoneSegLogic(), []
    for one in (logic, other):
        one.client.send("models", {"action": "list"}, onDone=ends.append)
    spin(lambda: len(ends) == 2)
    assert logic.client.processId() != other.client.processId() and logic.folder.path != other.folder.path
    folder, pid = other.folder.path, other.client.processId()
    other.close()
    spin(lambda: not is_alive(pid))
    assert not folder.exists() and logic.client.running


@pytest.mark.parametrize("end", ["quit", "reload"])
def test_theEndInMidRunLeavesNoProcess(tinyModel, makeVolume, spin, end):
    import slicer
    from module.host import scripted

    from PedBoneSeg import PedBoneSegWidget

    widget = PedBoneSegWidget(scripted.ModuleParent())
    widget.setup()
    widget._parameterNode.volume = makeVolume(np.zeros((40, 300, 300), np.int16) + np.arange(300, dtype=np.int16))
    widget.ui.segmentButton.click()
    spin(lambda: widget.logic.client.hello)
    pid = widget.logic.client.processId()
    tree, folder = [pid, *descendants(pid)], widget.logic.folder.path
    if end == "quit":
        slicer.app.emit("aboutToQuit()")
    widget.cleanup()
    wait_until(lambda: not any(is_alive(process) for process in tree))
    assert not folder.exists()
    spin(seconds=0.3, fail=False)


def test_theApplicationStaysAlive(spin, tmp_path):
    """A large image is handed over a few megabytes at a time, and the event loop turns after each of these steps.

    How long a step takes at clinical sizes is measured by Testing/benchmarks/panel_steps.py.
    """
    import qt

    turns, sizes, turnOf, ends = [], [], [], []
    path, array = tmp_path / "large.nrrd", np.zeros((64, 256, 256), np.float32)

    def watched():
        for _step in volumes.writing(array, Grid.from_affine(array.shape[::-1], np.eye(4)), path):
            sizes.append(path.stat().st_size)
            turnOf.append(len(turns))
            yield
        return ("written",)

    timer = qt.QTimer()
    timer.setInterval(0)  # every turn
    timer.timeout.connect(lambda: turns.append(1))
    timer.start()
    tasks.Task(None, watched(), ends.append, lambda *fault: ends.append(fault))
    spin(lambda: ends)
    timer.stop()
    assert ends == ["written"] and path.stat().st_size >= array.nbytes
    assert len(sizes) >= array.nbytes / volumes.CHUNK and max(np.diff(sizes)) <= volumes.CHUNK + 2**16
    assert min(np.diff(turnOf)) >= 1


def test_theSampleWithTheBundledModel(makeVolume):
    from PedBoneSegLib.models import store

    if not list(store.BUILT_IN.glob("*.safetensors")) or not paths.samplePath("knee").is_file():
        pytest.skip("the bundled model or the sample is not in this tree")
    from PedBoneSeg import PedBoneSegLogic

    logic = PedBoneSegLogic()
    try:
        segmentation, answer = logic.segmentAndWait(slicer.util.loadVolume(str(paths.samplePath("knee"))))
    finally:
        logic.close()
    assert answer["joint"] == "knee" and answer["verdict"] in ("joint", None)
    assert sum(bone["volume_ml"] > 0 for bone in answer["bones"].values()) >= 3
