"""Section 5: the Segment Editor itself, embedded, and three of its effects at one click."""

import slicer
from slicer.i18n import tr as _

from . import segmentations
from .dialogs import connectClicked

SMALL_ISLAND_ML = 0.3  # an ossification center of a toddler is larger; what is smaller goes
SMOOTHING_MM = 3
NODE_TAG = "PedBoneSeg"


class CorrectSection:
    def __init__(self, panel) -> None:
        self._panel, self._ui, self._editor = panel, panel.ui, panel.ui.segmentEditor
        self._editor.setMaximumNumberOfUndoStates(10)
        self._selectNode()
        connectClicked(self._ui.piecesButton, self._largePieces)
        connectClicked(self._ui.smoothButton, self._smooth)
        connectClicked(self._ui.fillButton, self._fill)
        # Effects of other extensions may be registered after this panel was made.
        slicer.qSlicerSegmentEditorEffectFactory.instance().effectRegistered.connect(self._onEffect)

    def enter(self) -> None:
        self._selectNode()
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
        segmentation = self._panel.segmentation
        running = self._panel.segment.running if hasattr(self._panel, "segment") else False
        if self._panel.parameters is None:
            return
        self._selectNode()
        if self._editor.segmentationNode() is not segmentation:
            self._editor.setActiveEffect(None)
            self._editor.setSegmentationNode(segmentation)
        volume = segmentations.volumeOf(segmentation)
        if volume is not None and self._editor.sourceVolumeNode() is not volume:
            self._editor.setSourceVolumeNode(volume)
        for button in (self._ui.piecesButton, self._ui.smoothButton, self._ui.fillButton):
            button.setEnabled(segmentation is not None and not running)

    def saveState(self, segmentation) -> None:
        """One undo step before a result goes into a segmentation that is there."""
        if self._editor.segmentationNode() is not segmentation:
            self._editor.setSegmentationNode(segmentation)
        self._editor.setActiveEffect(None)
        self._editor.saveStateForUndo()

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
        volume = segmentations.volumeOf(self._panel.segmentation)
        if volume is not None:
            x, y, z = volume.GetSpacing()
            voxels = max(1, round(SMALL_ISLAND_ML * 1000 / (x * y * z)))
            self._apply("Islands", {"Operation": "REMOVE_SMALL_ISLANDS", "MinimumSize": str(voxels)})

    def _smooth(self) -> None:
        self._apply("Smoothing", {"SmoothingMethod": "MEDIAN", "KernelSizeMm": str(SMOOTHING_MM)})

    def _fill(self) -> None:
        self._apply("Fill between slices", {}, preview=True)

    def _apply(self, name: str, parameters: dict[str, str], preview: bool = False) -> None:
        """Runs an effect of the editor on the selected segment; the editor itself makes it one undo step."""
        editor = self._editor
        if not editor.currentSegmentID():
            return
        editor.setActiveEffectByName(name)
        effect = editor.activeEffect()
        if effect is None:
            slicer.util.showStatusMessage(_("This Slicer lacks the effect {name}.").format(name=name), 3000)
            return
        for parameter, value in parameters.items():
            effect.setParameter(parameter, value)
        if preview:
            effect.self().onPreview()
        effect.self().onApply()
        editor.setActiveEffect(None)

    def _onEffect(self, *_name) -> None:
        self._editor.updateEffectList()
