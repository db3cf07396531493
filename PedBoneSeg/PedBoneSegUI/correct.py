"""Section 5: the Segment Editor itself, embedded, and three of its effects at one click."""

import slicer
from slicer.i18n import tr as _

from . import segmentations
from .section import Section, enable

SMALL_ISLAND_ML = 0.3  # an ossification center of a toddler is larger; what is smaller goes
SMOOTHING_MM = 3
NODE_TAG = "PedBoneSeg"


class CorrectSection(Section):
    def __init__(self, panel) -> None:
        super().__init__(panel, panel.ui.correctLabel)
        self._editor = self.ui.segmentEditor
        self.ui.piecesButton.clicked.connect(self._largePieces)
        self.ui.smoothButton.clicked.connect(
            lambda: self._apply("Smoothing", {"SmoothingMethod": "MEDIAN", "KernelSizeMm": str(SMOOTHING_MM)})
        )
        self.ui.fillButton.clicked.connect(lambda: self._apply("Fill between slices", {}, preview=True))
        # Effects of other extensions may be registered after this panel was made.
        slicer.qSlicerSegmentEditorEffectFactory.instance().effectRegistered.connect(self._onEffect)

    def close(self) -> None:
        slicer.qSlicerSegmentEditorEffectFactory.instance().effectRegistered.disconnect(self._onEffect)
        self.exit()

    def enter(self) -> None:
        self._editor.installKeyboardShortcuts()
        self._editor.updateWidgetFromMRML()

    def exit(self) -> None:
        self._editor.setActiveEffect(None)
        self._editor.uninstallKeyboardShortcuts()
        self._editor.removeViewObservations()

    def sceneCloses(self) -> None:
        self._editor.setSegmentationNode(None)
        self._editor.removeViewObservations()

    def follow(self) -> None:
        if self.panel.parameters is None:
            return
        segmentation = self.panel.segmentation
        self._selectNode()
        self._setSegmentation(segmentation)
        volume = segmentations.volumeOf(segmentation)
        if volume is not None and self._editor.sourceVolumeNode() is not volume:
            self._editor.setSourceVolumeNode(volume)
        buttons = (self.ui.piecesButton, self.ui.smoothButton, self.ui.fillButton)
        enable(volume is not None and not self.panel.segment.running, *buttons)

    def saveState(self, segmentation) -> None:
        """One undo step before a result goes into a segmentation that is there."""
        self._setSegmentation(segmentation)
        self._editor.setActiveEffect(None)
        self._editor.saveStateForUndo()

    def _setSegmentation(self, segmentation) -> None:
        if self._editor.segmentationNode() is not segmentation:
            self._editor.setActiveEffect(None)
            self._editor.setSegmentationNode(segmentation)

    def _selectNode(self) -> None:
        """An editor node of our own, so that the Segment Editor module keeps its state."""
        node = slicer.mrmlScene.GetSingletonNode(NODE_TAG, "vtkMRMLSegmentEditorNode")
        if node is None:
            node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLSegmentEditorNode")
            node.UnRegister(None)
            node.SetSingletonTag(NODE_TAG)
            # Bones may touch: a correction of one must not eat its neighbor unasked.
            node.SetOverwriteMode(slicer.vtkMRMLSegmentEditorNode.OverwriteNone)
            node = slicer.mrmlScene.AddNode(node)
        if self._editor.mrmlSegmentEditorNode() is not node:
            self._editor.setMRMLSegmentEditorNode(node)

    def _largePieces(self) -> None:
        x, y, z = segmentations.volumeOf(self.panel.segmentation).GetSpacing()
        voxels = max(1, round(SMALL_ISLAND_ML * 1000 / (x * y * z)))
        self._apply("Islands", {"Operation": "REMOVE_SMALL_ISLANDS", "MinimumSize": str(voxels)})

    def _apply(self, name: str, parameters: dict[str, str], preview: bool = False) -> None:
        """Runs an effect of the editor on the selected segment; the editor itself makes it one undo step."""
        editor = self._editor
        if not editor.currentSegmentID():
            self.say(_("Select a bone in the list first."))
            return
        editor.setActiveEffectByName(name)
        effect = editor.activeEffect()
        if effect is None:
            self.say(_("This Slicer lacks the effect {name}.").format(name=name))
            return
        for parameter, value in parameters.items():
            effect.setParameter(parameter, value)
        if preview:
            effect.self().onPreview()
        effect.self().onApply()
        editor.setActiveEffect(None)
        self.say("")

    def _onEffect(self, *_name) -> None:
        self._editor.updateEffectList()
