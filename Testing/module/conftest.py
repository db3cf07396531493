"""The host is installed before any test of the module is imported; every test begins with an empty scene."""

import sys
import time

import numpy as np
import pytest
from live_processes import SECONDS
from module.host import application, install, qtmodule

install()


@pytest.fixture(autouse=True)
def emptyScene(monkeypatch):
    """An error in a slot does not reach the caller: Qt prints it. Here it fails the test."""
    errors = []
    monkeypatch.setattr(sys, "excepthook", lambda kind, error, trace: errors.append(error))
    qtmodule.dialogAnswers.clear()
    application.resetScene()
    yield
    if errors:
        raise errors[0]
    assert not qtmodule.dialogAnswers, "a scripted answer of a file dialog was never asked for"
    application.resetScene()


@pytest.fixture
def spin():
    """spin(condition, seconds): lets Qt's events run until the condition holds; fails if it never does."""
    import qt

    def run(condition=lambda: False, seconds: float = SECONDS, fail: bool = True) -> bool:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            qt.QApplication.processEvents()
            if condition():
                return True
            time.sleep(0.002)
        assert not fail, "it did not happen in time"
        return False

    return run


@pytest.fixture
def makeVolume():
    """makeVolume(array [k, j, i], matrix 4x4 IJK to RAS, name) adds a volume to the scene."""
    import slicer
    import vtk

    def make(array=None, matrix=None, name: str = "Knee MR"):
        if array is None:
            array = np.random.default_rng(5).integers(0, 900, (8, 20, 24)).astype(np.int16)
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
        slicer.util.updateVolumeFromArray(node, array)
        ijkToRas = vtk.vtkMatrix4x4()
        matrix = np.array(matrix if matrix is not None else np.diag([0.7, 0.7, 4.0, 1.0]))
        ijkToRas.DeepCopy(list(matrix.ravel()))
        node.SetIJKToRASMatrix(ijkToRas)
        return node

    return make


@pytest.fixture(scope="module")
def tinyModel(tmp_path_factory):
    """A small model of the knee with random weights that find three bones, installed in a user's folder of its own."""
    import os

    from tiny import make_tiny_bundle

    from PedBoneSegLib.models import store

    folder = tmp_path_factory.mktemp("home für Zoë")
    os.environ["PEDBONESEG_HOME"] = str(folder)
    store.install(make_tiny_bundle(folder / "tiny.safetensors", ("knee",), seed=49), "tiny")
    yield "tiny"
    del os.environ["PEDBONESEG_HOME"]


@pytest.fixture(scope="module")
def widget(tinyModel):
    """The module's widget as the application makes it, entered, with the tiny model chosen; closed at the end."""
    import qt
    import slicer
    from module.host import scripted

    from PedBoneSeg import PedBoneSegWidget

    parent = scripted.ModuleParent()
    made = PedBoneSegWidget(parent)
    made.setup()
    parent._entered = True
    made.enter()
    combo = made.ui.modelCombo
    combo.setCurrentIndex(combo.findData(tinyModel))
    made.ui.deviceCombo.setCurrentIndex(made.ui.deviceCombo.findData("cpu"))
    yield made
    made.exit()
    slicer.app.emit("aboutToQuit()")
    made.cleanup()
    qt.QApplication.processEvents()
    assert not qtmodule.complaints, qtmodule.complaints
