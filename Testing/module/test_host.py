"""The stand-in is as strict as the real `qt`: idioms that PythonQt refuses fail here, those it accepts work."""

import pytest
import qt
import slicer


def test_propertiesAreAttributes():
    box, label = qt.QComboBox(), qt.QLabel()
    box.addItem("a", "A")
    label.text, label.enabled = "x", False
    assert (box.currentText, box.count, box.currentData, label.text) == ("a", 1, "A", "x")
    assert not label.isEnabled()
    with pytest.raises(TypeError):
        box.currentText()
    with pytest.raises(TypeError):
        label.text()


def test_unknownAttributesFail():
    for widget in (qt.QPushButton(), slicer.qMRMLNodeComboBox(), slicer.qMRMLSegmentEditorWidget()):
        with pytest.raises(AttributeError):
            widget.chekced = True
        with pytest.raises(AttributeError):
            widget.noSuchMethod()
    with pytest.raises(AttributeError):
        slicer.app.noSuchMethod()


def test_finishedPassesTheExitCodeAlone(spin):
    process, codes, both = qt.QProcess(), [], []
    process.finished.connect(lambda *arguments: codes.append(arguments))
    process.connect("finished(int,QProcess::ExitStatus)", lambda code, status: both.append((code, status)))
    process.start("/bin/sh", ["-c", "exit 3"])
    spin(lambda: codes and both)
    assert codes == [(3,)] and both == [(3, qt.QProcess.NormalExit)]


def test_aPythonSubclassKeepsItsOwnAttributes():
    class Filter(qt.QObject):
        pass

    one = Filter()
    one.anything = 3
    assert one.anything == 3


def test_aFileDialogThatNoTestExpectsFails():
    with pytest.raises(AssertionError):
        qt.QFileDialog.getOpenFileName(None, "title")
