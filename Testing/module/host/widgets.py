"""Stand-ins for the widgets of ctk and Slicer that the panel uses, with the real ones' properties, slots and signals.

Behind them is real MRML: a selector follows the scene, the editor writes through Slicer's own editor logic.
"""

import numpy as np
import slicer
import vtk
from PySide6.QtCore import Property, QObject, Signal, Slot
from PySide6.QtWidgets import QComboBox, QLineEdit, QPushButton, QVBoxLayout, QWidget
from scipy import ndimage


class qMRMLWidget(QWidget):
    mrmlSceneChanged = Signal("vtkMRMLScene*")

    def __init__(self, parent=None) -> None:
        super().__init__(parent)
        self._scene = None

    @Slot("vtkMRMLScene*")
    def setMRMLScene(self, scene) -> None:
        self._scene = scene
        for child in self.findChildren(QWidget):
            if isinstance(child, qMRMLNodeComboBox | qMRMLSegmentEditorWidget):
                child.setMRMLScene(scene)

    def mrmlScene(self):
        return self._scene


class ctkCollapsibleButton(QWidget):
    contentsCollapsed = Signal(bool)

    def __init__(self, parent=None) -> None:
        super().__init__(parent)
        self._text, self._collapsed = "", False

    def _getText(self) -> str:
        return self._text

    def _setText(self, text: str) -> None:
        self._text = text

    def _getCollapsed(self) -> bool:
        return self._collapsed

    def _setCollapsed(self, collapsed: bool) -> None:
        self._collapsed = collapsed
        self.contentsCollapsed.emit(collapsed)

    text = Property(str, _getText, _setText)
    collapsed = Property(bool, _getCollapsed, _setCollapsed)


class ctkPathLineEdit(QWidget):
    currentPathChanged = Signal(str)

    def __init__(self, parent=None) -> None:
        super().__init__(parent)
        self._edit = QLineEdit(self)
        QVBoxLayout(self).addWidget(self._edit)
        self._edit.textChanged.connect(self.currentPathChanged.emit)

    def _getPath(self) -> str:
        return QObject.property(self._edit, "text")

    def _setPath(self, path: str) -> None:
        self._edit.setText(path)

    def setCurrentPath(self, path: str) -> None:
        self._edit.setText(path)

    currentPath = Property(str, _getPath, _setPath)


class qMRMLNodeComboBox(QWidget):
    currentNodeChanged = Signal("QVariant")

    def __init__(self, parent=None) -> None:
        super().__init__(parent)
        self._scene, self._types, self._node, self._noneDisplay = None, [], None, ""
        self._flags = {}
        self._box = QComboBox(self)
        QVBoxLayout(self).addWidget(self._box)

    @Slot("vtkMRMLScene*")
    def setMRMLScene(self, scene) -> None:
        if scene is not None and scene is not self._scene:
            for event in (scene.NodeRemovedEvent, scene.EndCloseEvent):
                scene.AddObserver(event, lambda caller, name: self._dropRemoved())
        self._scene = scene

    def _dropRemoved(self) -> None:
        if self._node is not None and not self._scene.IsNodePresent(self._node):
            self.setCurrentNode(None)

    def currentNode(self):
        return self._node

    def setCurrentNode(self, node) -> None:
        if node is not None and not self._offers(node):
            node = None
        if node is not self._node:
            self._node = node
            self.currentNodeChanged.emit(node)

    def _offers(self, node) -> bool:
        """Hidden nodes and, unless asked for, nodes of derived classes are not in the list."""
        derived = self._flags.get("showChildNodeTypes", False) and any(node.IsA(kind) for kind in self._types)
        return (derived or node.GetClassName() in self._types) and not node.GetHideFromEditors()

    def _flag(name):  # noqa: N805  makes the properties below
        return Property(
            bool, lambda self: self._flags.get(name, False), lambda self, value: self._flags.__setitem__(name, value)
        )

    noneEnabled, addEnabled, removeEnabled, renameEnabled, showChildNodeTypes = map(
        _flag, ("noneEnabled", "addEnabled", "removeEnabled", "renameEnabled", "showChildNodeTypes")
    )
    nodeTypes = Property(
        "QStringList", lambda self: self._types, lambda self, value: self.__setattr__("_types", list(value))
    )
    noneDisplay = Property(
        str, lambda self: self._noneDisplay, lambda self, value: self.__setattr__("_noneDisplay", value)
    )


class qMRMLSegmentationShow3DButton(QPushButton):
    def __init__(self, parent=None) -> None:
        super().__init__(parent)
        self._segmentation = None
        self.setCheckable(True)
        self.toggled.connect(self._show)

    def setSegmentationNode(self, node) -> None:
        self._segmentation = node

    def _show(self, visible: bool) -> None:
        if self._segmentation is None:
            return
        if visible:
            self._segmentation.CreateClosedSurfaceRepresentation()
        else:
            self._segmentation.RemoveClosedSurfaceRepresentation()


class Effect:
    """What the panel may ask of an effect; the three that it uses do on voxels what the real ones do.

    As the real ones they keep their parameters as attributes of the editor's node, obey its mask, and (smoothing where
    it is told to, filling always) change all visible segments.
    """

    PARAMETERS = {
        "Islands": {"Operation": {"REMOVE_SMALL_ISLANDS", "KEEP_LARGEST_ISLAND"}, "MinimumSize": None},
        "Smoothing": {"SmoothingMethod": {"MEDIAN"}, "KernelSizeMm": None, "ApplyToAllVisibleSegments": {"0", "1"}},
        "Fill between slices": {"AutoUpdate": {"0", "1"}},
    }
    DEFAULTS = {
        "Islands": {"Operation": "KEEP_LARGEST_ISLAND", "MinimumSize": "1000"},
        "Smoothing": {"SmoothingMethod": "MEDIAN", "KernelSizeMm": "3", "ApplyToAllVisibleSegments": "0"},
        "Fill between slices": {"AutoUpdate": "1"},
    }

    def __init__(self, name: str, editor) -> None:
        self.name, self._editor, self._previewed = name, editor, False
        for parameter, value in self.DEFAULTS[name].items():
            if editor._node.GetAttribute(f"{name}.{parameter}") is None:
                editor._node.SetAttribute(f"{name}.{parameter}", value)

    def self(self):
        return self

    def setParameter(self, name: str, value: str) -> None:
        allowed = self.PARAMETERS[self.name][name]
        assert isinstance(value, str) and (allowed is None or value in allowed), (name, value)
        self._editor._node.SetAttribute(f"{self.name}.{name}", value)

    def _parameter(self, name: str) -> str:
        return self._editor._node.GetAttribute(f"{self.name}.{name}")

    def onPreview(self) -> None:
        assert self.name == "Fill between slices"
        self._previewed = True

    def onApply(self) -> None:
        assert self._previewed or self.name != "Fill between slices", "without a preview the real effect does nothing"
        self._editor.saveStateForUndo()
        everyone = self.name == "Fill between slices" or (
            self.name == "Smoothing" and self._parameter("ApplyToAllVisibleSegments") == "1"
        )
        for segment in self._visible() if everyone else [self._editor._segment]:
            self._change(segment)

    def _visible(self) -> list[str]:
        visible = vtk.vtkStringArray()
        self._editor.segmentationNode().GetDisplayNode().GetVisibleSegmentIDs(visible)
        return [visible.GetValue(number) for number in range(visible.GetNumberOfValues())]

    def _change(self, segment: str) -> None:
        node, volume = self._editor.segmentationNode(), self._editor.sourceVolumeNode()
        before = mask = slicer.util.arrayFromSegmentBinaryLabelmap(node, segment, volume) > 0
        if self.name == "Islands":
            labels, _count = ndimage.label(mask)
            sizes = np.bincount(labels.ravel())
            mask = (sizes >= int(self._parameter("MinimumSize")))[labels] & mask
        elif self.name == "Smoothing":
            mask = ndimage.median_filter(mask, 3)
        else:
            mask = mask.copy()
            filled = np.flatnonzero(mask.any(axis=(1, 2)))
            for index in range(filled[0], filled[-1]) if len(filled) else ():
                if not mask[index].any():
                    mask[index] = mask[index - 1]
        if self._editor._node.GetSourceVolumeIntensityMask():
            low, high = self._editor._node.GetSourceVolumeIntensityMaskRange()
            image = slicer.util.arrayFromVolume(volume)
            mask = np.where((image >= low) & (image <= high), mask, before)
        if self._editor._node.GetMaskMode() != slicer.vtkMRMLSegmentationNode.EditAllowedEverywhere:
            mask = before  # where it is allowed is not simulated: nowhere
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask.astype(np.uint8), node, segment, volume)


class qMRMLSegmentEditorWidget(qMRMLWidget):
    """The calls of the real editor that the panel uses, over vtkSlicerSegmentEditorLogic."""

    def __init__(self, parent=None) -> None:
        super().__init__(parent)
        self._logic = slicer.vtkSlicerSegmentEditorLogic()
        self._history = slicer.vtkSegmentationHistory()
        self._node = self._effect = None
        self._flags, self._segment, self._shortcuts = {}, "", False
        self._undoStates = 10

    @Slot("vtkMRMLScene*")
    def setMRMLScene(self, scene) -> None:
        self._scene = scene
        self._logic.SetMRMLScene(scene)

    def setMRMLSegmentEditorNode(self, node) -> None:
        self._node = node
        self._logic.SetSegmentEditorNode(node)

    def mrmlSegmentEditorNode(self):
        return self._node if self._node is not None and self._node.GetScene() is not None else None

    def setSegmentationNode(self, node) -> None:
        if self._node is not None:
            self._node.SetAndObserveSegmentationNode(node)
        core = node.GetSegmentation() if node is not None else None
        self._segment = core.GetNthSegmentID(0) if core is not None and core.GetNumberOfSegments() else ""
        if self._history.GetSegmentation() is not core:
            self._history.SetSegmentation(core)

    def segmentationNode(self):
        return self._node.GetSegmentationNode() if self._node is not None else None

    def setSourceVolumeNode(self, node) -> None:
        assert self.segmentationNode() is not None, "the real editor refuses a volume before a segmentation"
        self._node.SetAndObserveSourceVolumeNode(node)

    def sourceVolumeNode(self):
        return self._node.GetSourceVolumeNode() if self._node is not None else None

    def currentSegmentID(self) -> str:
        return self._segment

    def setCurrentSegmentID(self, segment: str) -> None:
        self._segment = segment

    def saveStateForUndo(self) -> None:
        assert self.segmentationNode() is not None
        self._history.SaveState()

    def undo(self) -> None:
        self._history.RestorePreviousState()

    def redo(self) -> None:
        self._history.RestoreNextState()

    def activeEffect(self):
        return self._effect

    def setActiveEffect(self, effect) -> None:
        assert effect is None or isinstance(effect, Effect)
        self._effect = effect

    def setActiveEffectByName(self, name: str) -> None:
        self._effect = Effect(name, self) if name in Effect.PARAMETERS else None
        if name == "Fill between slices":  # it works on the whole segmentation: no segment stays selected
            self._segment = ""

    def installKeyboardShortcuts(self, parent=None) -> None:
        self._shortcuts = True

    def uninstallKeyboardShortcuts(self) -> None:
        self._shortcuts = False

    def shortcutsInstalled(self) -> bool:
        """For tests; the real editor cannot be asked."""
        return self._shortcuts

    def updateWidgetFromMRML(self) -> None:
        pass

    def removeViewObservations(self) -> None:
        pass

    def updateEffectList(self) -> None:
        pass

    def setMaximumNumberOfUndoStates(self, count: int) -> None:
        self._undoStates = count
        self._history.SetMaximumNumberOfStates(count)

    def _flag(name):  # noqa: N805
        return Property(
            bool, lambda self: self._flags.get(name, True), lambda self, value: self._flags.__setitem__(name, value)
        )

    segmentationNodeSelectorVisible = _flag("segmentationNodeSelectorVisible")
    sourceVolumeNodeSelectorVisible = _flag("sourceVolumeNodeSelectorVisible")
    switchToSegmentationsButtonVisible = _flag("switchToSegmentationsButtonVisible")
    maximumNumberOfUndoStates = Property(int, lambda self: self._undoStates, setMaximumNumberOfUndoStates)


class qSlicerSegmentEditorEffectFactory(QObject):
    effectRegistered = Signal(str)
    _one = None

    @classmethod
    def instance(cls):
        cls._one = cls._one or cls()
        return cls._one


class qSlicerDICOMExportDialog(QObject):
    """Records which item of the subject hierarchy was to be exported."""

    exported: list[tuple[object, int]] = []

    def __init__(self, parent=None) -> None:
        super().__init__(parent)
        self._scene = None

    @Slot("vtkMRMLScene*")
    def setMRMLScene(self, scene) -> None:
        self._scene = scene

    def execDialog(self, item: int) -> bool:
        assert self._scene is not None
        self.exported.append((self._scene, item))
        return True


CTK = (ctkCollapsibleButton, ctkPathLineEdit)
SLICER = (
    qMRMLWidget, qMRMLNodeComboBox, qMRMLSegmentationShow3DButton, qMRMLSegmentEditorWidget,
    qSlicerSegmentEditorEffectFactory, qSlicerDICOMExportDialog,
)  # fmt: skip
