"""The section with Slicer's Segment Editor, and three of its effects with one click each."""

from collections.abc import Iterator
from contextlib import contextmanager

import slicer
import vtk
from slicer.i18n import tr as _

from .. import segmentations
from .section import Section
from .widgets import enable

SMALL_PIECE_ML = 0.3  # smaller pieces are removed; a toddler's ossification center is larger
SMOOTHING_MM = 3
NODE_TAG = "PedBoneSeg"
# Everything that the three effects read; what is not set here could have been set in another tool, or by a user.
SMOOTHING = {"SmoothingMethod": "MEDIAN", "KernelSizeMm": str(SMOOTHING_MM), "ApplyToAllVisibleSegments": "0"}
FILLING = {"AutoUpdate": "0"}


class CorrectSection(Section):
    def __init__(self, panel) -> None:
        super().__init__(panel, panel.ui.correctLabel)
        self._editor, self._entered = self.ui.segmentEditor, False
        self.ui.piecesButton.clicked.connect(self._largePieces)
        self.ui.smoothButton.clicked.connect(lambda: self._apply("Smoothing", SMOOTHING))
        self.ui.fillButton.clicked.connect(lambda: self._apply("Fill between slices", FILLING, preview=True))
        self.ui.correctSection.contentsCollapsed.connect(self._onCollapsed)
        # Effects of other extensions may be registered after the panel was created.
        slicer.qSlicerSegmentEditorEffectFactory.instance().effectRegistered.connect(self._onEffect)

    def close(self) -> None:
        slicer.qSlicerSegmentEditorEffectFactory.instance().effectRegistered.disconnect(self._onEffect)
        self.exit()

    def enter(self) -> None:
        self._entered = True
        self._editor.updateWidgetFromMRML()
        self._setActive(not self.ui.correctSection.collapsed)

    def exit(self) -> None:
        self._entered = False
        self._setActive(False)
        self._editor.removeViewObservations()

    def _onCollapsed(self, collapsed: bool) -> None:
        self._setActive(self._entered and not collapsed)

    def _setActive(self, active: bool) -> None:
        """The editor takes its keys, space and I among them, only while the section is open."""
        if active:
            self._editor.installKeyboardShortcuts()
        else:
            self._editor.setActiveEffect(None)
            self._editor.uninstallKeyboardShortcuts()

    def sceneCloses(self) -> None:
        self._editor.setSegmentationNode(None)
        self._editor.removeViewObservations()

    def update(self) -> None:
        if self.panel.parameters is None:
            return
        segmentation = self.panel.segmentation
        self._selectNode()
        self._setSegmentation(segmentation)
        volume = segmentations.volumeOf(segmentation)
        if volume is not None and self._editor.sourceVolumeNode() is not volume:
            self._editor.setSourceVolumeNode(volume)
        enable(segmentation, self.ui.correctSection)
        if segmentation is None:
            self.ui.correctSection.collapsed = True
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
            # Bones may touch: correcting one must not eat into its neighbor unasked.
            node.SetOverwriteMode(slicer.vtkMRMLSegmentEditorNode.OverwriteNone)
            node = slicer.mrmlScene.AddNode(node)
        if self._editor.mrmlSegmentEditorNode() is not node:
            self._editor.setMRMLSegmentEditorNode(node)

    def _largePieces(self) -> None:
        x, y, z = segmentations.volumeOf(self.panel.segmentation).GetSpacing()
        voxels = max(1, round(SMALL_PIECE_ML * 1000 / (x * y * z)))
        self._apply("Islands", {"Operation": "REMOVE_SMALL_ISLANDS", "MinimumSize": str(voxels)})

    def _apply(self, name: str, parameters: dict[str, str], preview: bool = False) -> None:
        """Runs an effect on the selected bone alone; the editor itself makes it one undo step."""
        editor, segmentId = self._editor, self._editor.currentSegmentID()
        if not segmentId:
            self.say(_("Select a bone in the list first."))
            return
        with self._onlyThisBone(segmentId), self._restoringParameters(name):
            editor.setActiveEffectByName(name)
            effect = editor.activeEffect()
            if effect is None:
                self.say(_("This Slicer does not have the effect {name}.").format(name=name))
                return
            for parameter, value in parameters.items():
                effect.setParameter(parameter, value)
            if preview:
                effect.self().onPreview()
            effect.self().onApply()
            editor.setActiveEffect(None)
        editor.setCurrentSegmentID(segmentId)
        self.say("")

    @contextmanager
    def _onlyThisBone(self, segmentId: str) -> Iterator[None]:
        """The bone alone is visible (Slicer fills all visible segments) and may be edited everywhere; what the user
        had set comes back."""
        node, display = self._editor.mrmlSegmentEditorNode(), self.panel.segmentation.GetDisplayNode()
        visible = vtk.vtkStringArray()
        display.GetVisibleSegmentIDs(visible)
        before = {visible.GetValue(n) for n in range(visible.GetNumberOfValues())}
        mask, overwrite = node.GetMaskMode(), node.GetOverwriteMode()
        intensity = node.GetSourceVolumeIntensityMask()
        for other in segmentations.segmentIds(self.panel.segmentation):
            display.SetSegmentVisibility(other, other == segmentId)
        node.SetMaskMode(slicer.vtkMRMLSegmentationNode.EditAllowedEverywhere)
        node.SetOverwriteMode(slicer.vtkMRMLSegmentEditorNode.OverwriteNone)
        node.SetSourceVolumeIntensityMask(False)
        try:
            yield
        finally:
            for other in segmentations.segmentIds(self.panel.segmentation):
                display.SetSegmentVisibility(other, other in before)
            node.SetMaskMode(mask)
            node.SetOverwriteMode(overwrite)
            node.SetSourceVolumeIntensityMask(intensity)

    @contextmanager
    def _restoringParameters(self, name: str) -> Iterator[None]:
        """An effect keeps its parameters as attributes of the editor's node, "Smoothing.KernelSizeMm"; afterwards they
        are as before."""
        node = self._editor.mrmlSegmentEditorNode()

        def parameters() -> dict[str, str]:
            return {key: node.GetAttribute(key) for key in node.GetAttributeNames() if key.startswith(f"{name}.")}

        before = parameters()
        try:
            yield
        finally:
            for key in parameters():
                node.SetAttribute(key, before.get(key))  # None removes it: the effect sets its default again

    def _onEffect(self, *_name) -> None:
        self._editor.updateEffectList()
