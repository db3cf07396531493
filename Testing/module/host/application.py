"""The application around the scene: `slicer.app`, the modules' logics, translations, loading of files."""

import sys
import tempfile
import types
from pathlib import Path

import slicer
import slicer.util
import vtk

from . import qtmodule


class Application:
    """`slicer.app`: only what the module may ask of it; anything else is an AttributeError."""

    __slots__ = ("_clipboard", "_connections", "_logic", "_qt", "temporaryPath")

    def __init__(self, qt) -> None:
        self._qt, self._clipboard, self._connections = qt, Clipboard(), []
        self.temporaryPath = str(Path(tempfile.mkdtemp(prefix="slicer temporär ")))

    def clipboard(self):
        return self._clipboard

    def connect(self, signature: str, function) -> None:
        assert signature in ("startupCompleted()", "aboutToQuit()"), signature
        self._connections.append((signature, function))

    def disconnect(self, signature: str, function) -> None:
        self._connections.remove((signature, function))

    def emit(self, signature: str) -> None:
        """For tests: what is connected to the signal is called."""
        for connected, function in list(self._connections):
            if connected == signature:
                function()

    def testingEnabled(self) -> bool:
        return True

    def processEvents(self) -> None:
        self._qt.QApplication.processEvents()

    def layoutManager(self):
        return None  # as with --no-main-window


class Clipboard:
    def __init__(self) -> None:
        self._text = ""

    def setText(self, text: str) -> None:
        assert isinstance(text, str)
        self._text = text

    def text(self) -> str:
        return self._text


class Modules:
    """`slicer.modules`: `.name.logic()` of the modules that are there."""

    def __init__(self, logics: dict) -> None:
        for name, logic in logics.items():
            setattr(self, name, types.SimpleNamespace(logic=lambda logic=logic: logic))


def install() -> Application:
    """Once per process; returns `slicer.app`."""
    if "qt" in sys.modules:
        return slicer.app
    qt = sys.modules["qt"] = qtmodule.makeModule()
    application = qt.QApplication.instance() or qt.QApplication(["tests", "-platform", "offscreen"])
    qt.QSettings.setDefaultFormat(qt.QSettings.IniFormat)
    qt.QSettings.setPath(qt.QSettings.IniFormat, qt.QSettings.UserScope, tempfile.mkdtemp())
    qt.QCoreApplication.setOrganizationName("PedBoneSegTests")
    slicer.app = Application(qt)
    slicer._qtApplication = application  # kept alive
    _installScene()
    _installWidgets(qt)
    from . import parameternode, scripted

    _module("slicer.i18n", tr=lambda text: text, translate=lambda context, text: text)
    names = ("", "Widget", "Logic", "Test")
    classes = {f"ScriptedLoadableModule{name}": getattr(scripted, f"ScriptedLoadableModule{name}") for name in names}
    _module("slicer.ScriptedLoadableModule", **classes)
    _module("slicer.parameterNodeWrapper", parameterNodeWrapper=parameternode.parameterNodeWrapper)
    slicer.util.mainWindow = lambda: None
    slicer.util.loadVolume = loadVolume
    return slicer.app


def _installScene() -> None:
    vtk.vtkObject.GlobalWarningDisplayOff()
    scene = slicer.mrmlScene = slicer.vtkMRMLScene()
    applicationLogic = slicer.vtkSlicerApplicationLogic()
    applicationLogic.SetMRMLScene(scene)
    logics = {
        "colors": slicer.vtkSlicerColorLogic(),
        "subjecthierarchy": slicer.vtkSlicerSubjectHierarchyModuleLogic(),
        "terminologies": slicer.vtkSlicerTerminologiesModuleLogic(),
        "volumes": slicer.vtkSlicerVolumesLogic(),
        "segmentations": slicer.vtkSlicerSegmentationsModuleLogic(),
        "sequences": slicer.vtkSlicerSequencesLogic(),
    }
    share = tempfile.mkdtemp()
    titles = {"subjecthierarchy": "SubjectHierarchy"}
    for name, logic in logics.items():
        logic.SetModuleShareDirectory(share) if hasattr(logic, "SetModuleShareDirectory") else None
        logic.SetMRMLApplicationLogic(applicationLogic)
        logic.SetMRMLScene(scene)
        applicationLogic.SetModuleLogic(titles.get(name, name.capitalize()), logic)
    logics["colors"].AddDefaultColorNodes()
    slicer.modules = Modules(logics)
    slicer._applicationLogic = applicationLogic
    scene.AddObserver(slicer.vtkMRMLScene.NodeAddedEvent, _makeItem)
    scene.AddObserver(slicer.vtkMRMLScene.NodeAboutToBeRemovedEvent, _removeWhatDisplayed)
    resetScene()


@vtk.calldata_type(vtk.VTK_OBJECT)
def _makeItem(scene, event, node) -> None:
    """In the application every node that holds data gets its item of the subject hierarchy when it is added."""
    if node.IsA("vtkMRMLDisplayableNode") and not node.GetHideFromEditors():
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
        hierarchy.CreateItem(hierarchy.GetSceneItemID(), node)


@vtk.calldata_type(vtk.VTK_OBJECT)
def _removeWhatDisplayed(scene, event, node) -> None:
    """With a node the application's subject hierarchy removes what displayed it."""
    if scene.IsClosing() or not node.IsA("vtkMRMLDisplayableNode"):
        return
    for display in [node.GetNthDisplayNode(index) for index in range(node.GetNumberOfDisplayNodes())]:
        if display is not None:
            scene.RemoveNode(display)


VIEWS = {"Red": "Axial", "Green": "Coronal", "Yellow": "Sagittal"}


def resetScene() -> None:
    """An empty scene with the three slice views of the default layout."""
    slicer.mrmlScene.Clear(False)
    if not slicer.util.getNodesByClass("vtkMRMLSliceNode"):
        slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(slicer.mrmlScene)
        for name in VIEWS:
            node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLSliceNode")
            node.UnRegister(None)
            node.SetSingletonTag(name)
            node.SetLayoutName(name)
            slicer.mrmlScene.AddNode(node)
            composite = slicer.vtkMRMLSliceCompositeNode()
            composite.SetSingletonTag(name)
            slicer.mrmlScene.AddNode(composite)
    for node in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
        assert node.SetOrientation(VIEWS[node.GetLayoutName()])
        node.SetSliceOffset(0)


def _installWidgets(qt) -> None:
    from . import widgets

    ctk = sys.modules["ctk"] = types.ModuleType("ctk")
    for cls in (*widgets.CTK, *widgets.SLICER):
        setattr(ctk if cls in widgets.CTK else slicer, cls.__name__, cls)
        if issubclass(cls, qt.QWidget):
            qtmodule.UiLoader.customClasses[cls.__name__] = cls


def _module(name: str, **contents) -> None:
    module = sys.modules[name] = types.ModuleType(name)
    vars(module).update(contents)
    setattr(slicer, name.rpartition(".")[2], module)


def loadVolume(path: str):
    """As slicer.util.loadVolume: the node, or RuntimeError; through Slicer's own storage node."""
    node = slicer.vtkMRMLScalarVolumeNode()
    storage = slicer.vtkMRMLVolumeArchetypeStorageNode()
    storage.SetFileName(path)
    if not Path(path).is_file() or not storage.ReadData(node):
        raise RuntimeError(f"{path} cannot be read")
    node.SetName(Path(path).name.split(".")[0])
    node = slicer.mrmlScene.AddNode(node)
    node.CreateDefaultDisplayNodes()
    return node
