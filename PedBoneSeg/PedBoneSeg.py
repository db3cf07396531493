"""PedBoneSeg for 3D Slicer: choose the joint, click Segment, check, correct, measure, keep.

From Python, in six lines:

    logic = slicer.util.getModuleLogic("PedBoneSeg")  # or PedBoneSegLogic(), with a worker of its own, until close()
    volume = slicer.util.getNode("Knee MR")
    segmentation, answer = logic.segmentAndWait(volume, joint="auto", side="right")
    print(answer["joint"], answer["bones"])
    logic.measure(segmentation, onDone=print)
    slicer.util.saveNode(segmentation, "bones.seg.nrrd")
"""

import hashlib
import os

import qt
import slicer
import vtk
from PedBoneSegUI import dependencies, paths, volumes
from PedBoneSegUI.logic import PedBoneSegLogic
from PedBoneSegUI.panel import Panel
from PedBoneSegUI.segmentations import loadTerminology
from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.parameterNodeWrapper import parameterNodeWrapper
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

RESOURCES = os.path.join(os.path.dirname(__file__), "Resources")
SAMPLES = {"ankle": "Synthetic ankle", "knee": "Synthetic knee", "shoulder": "Synthetic shoulder"}


class PedBoneSeg(ScriptedLoadableModule):
    def __init__(self, parent) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("PedBoneSeg")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        parent.dependencies = ["Segmentations", "SubjectHierarchy", "Terminologies"]
        parent.contributors = ["The PedBoneSeg developers"]
        parent.helpText = _(
            "Segments the bones of children's ankles, knees and shoulders in MR images, shows where the result should "
            "be checked first, and collects corrected cases for training. The built-in model was trained on synthetic "
            "images, without patient data. For research; not a medical device."
        )
        parent.acknowledgementText = _("After the work on multi-joint segmentation of pediatric bones in MR images.")
        slicer.app.connect("startupCompleted()", onStartupCompleted)


def onStartupCompleted() -> None:
    loadTerminology(os.path.join(RESOURCES, "SegmentationCategoryTypeModifier-PedBoneSeg.term.json"))
    registerSampleData()


def registerSampleData() -> None:
    """One synthetic case per joint, from the installed files, without a download."""
    import SampleData

    logic = SampleData.SampleDataLogic
    if hasattr(logic, "registerCustomSampleDataCategory"):  # since Slicer 5.12
        logic.registerCustomSampleDataCategory("PedBoneSeg", title=_("PedBoneSeg (synthetic)"))
    for joint, name in SAMPLES.items():
        path = paths.samplePath(joint)
        if path.is_file():
            logic.registerCustomSampleDataSource(
                category="PedBoneSeg",
                sampleName=name,
                thumbnailFileName=os.path.join(RESOURCES, "Icons", f"PedBoneSeg{joint.capitalize()}.png"),
                uris=path.as_uri(),
                fileNames=f"PedBoneSeg-{joint}.nii.gz",
                nodeNames=name,
                loadFileTypes="VolumeFile",  # as .nii.gz Slicer may as well read a segmentation
                checksums="SHA256:" + hashlib.sha256(path.read_bytes()).hexdigest(),
            )


@parameterNodeWrapper
class PedBoneSegParameterNode:
    """The user's choices, saved with the scene; the .ui names these fields as `SlicerParameterName`.

    `joint` is "auto" or a joint's name, `side` empty, "left" or "right"; `segmentation` None means a new one. Folders
    are not here: a scene that is passed on must not say where its author's files are.
    """

    volume: vtkMRMLScalarVolumeNode
    segmentation: vtkMRMLSegmentationNode
    joint: str = "auto"
    side: str = ""
    showDoubt: bool = False


class PedBoneSegWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    def __init__(self, parent=None) -> None:
        self.logic = self.panel = None
        self._parameterNode = self._guiTag = None
        VTKObservationMixin.__init__(self)
        ScriptedLoadableModuleWidget.__init__(self, parent)

    def setup(self) -> None:
        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/PedBoneSeg.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)

        self.logic = PedBoneSegLogic()
        self.panel = Panel(self.ui, self.logic, uiWidget)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndImportEvent, self.onSceneEndClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.NodeAddedEvent, self.onNodeAdded)
        slicer.app.connect("aboutToQuit()", self.onQuit)
        self.initializeParameterNode()

    def cleanup(self) -> None:
        """The module is reloaded, or the application ends: nothing may be left running."""
        slicer.app.disconnect("aboutToQuit()", self.onQuit)
        self.setParameterNode(None)
        self.removeObservers()
        self.onQuit()

    def onQuit(self) -> None:
        if self.panel is not None:
            self.panel.close()
            self.logic.close()
            self.panel = None

    def enter(self) -> None:
        self.initializeParameterNode()
        self.panel.enter()

    def exit(self) -> None:
        if self.panel is not None:
            self.panel.exit()

    def onSceneStartClose(self, caller, event) -> None:
        self.setParameterNode(None)
        self.panel.sceneCloses()

    def onSceneEndClose(self, caller, event) -> None:
        if self.parent.isEntered:
            self.initializeParameterNode()

    def onNodeAdded(self, caller, event) -> None:
        """A volume that was just loaded is chosen if none is; its voxels come after its node."""
        if self.parent.isEntered and self._parameterNode is not None and not self._parameterNode.volume:
            qt.QTimer.singleShot(0, self.chooseVolume)

    def initializeParameterNode(self) -> None:
        self.setParameterNode(PedBoneSegParameterNode(self.logic.getParameterNode()))
        self.chooseVolume()

    def chooseVolume(self) -> None:
        """Without a choice, the image that the views show, else the first one of the scene."""
        if self._parameterNode is not None and not self._parameterNode.volume:
            volume = volumes.shownOrFirst()
            if volume is not None:
                self._parameterNode.volume = volume

    def setParameterNode(self, parameterNode) -> None:
        """The parameters stay connected while another module is shown: a segmentation may end meanwhile."""
        if self._parameterNode is not None:
            self._parameterNode.disconnectGui(self._guiTag)
            self.removeObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self.onParametersChanged)
        self._parameterNode = parameterNode
        if parameterNode is not None:
            self._guiTag = parameterNode.connectGui(self.ui)
            self.addObserver(parameterNode, vtk.vtkCommand.ModifiedEvent, self.onParametersChanged)
        if self.panel is not None:
            self.panel.setParameters(parameterNode)

    def onParametersChanged(self, caller=None, event=None) -> None:
        if self.panel is not None:
            self.panel.parametersChanged()


class PedBoneSegTest(ScriptedLoadableModuleTest):
    """In the application: the sample of the knee, segmented. The whole conversation is in Testing/slicer."""

    def runTest(self) -> None:
        slicer.mrmlScene.Clear()
        if dependencies.missing() or not paths.samplePath("knee").is_file():
            self.skipTest("torch or the sample is missing")
        onStartupCompleted()
        logic = PedBoneSegLogic()
        try:
            volume = slicer.util.loadVolume(str(paths.samplePath("knee")))
            segmentation, answer = logic.segmentAndWait(volume, joint="knee")
        finally:
            logic.close()
        self.assertEqual(answer["joint"], "knee")
        self.assertGreaterEqual(segmentation.GetSegmentation().GetNumberOfSegments(), 3)
