"""`slicer.ScriptedLoadableModule` in small: what the four classes of a module inherit."""

import unittest
from pathlib import Path

import qt
import slicer

RESOURCES = Path(__file__).resolve().parents[3] / "PedBoneSeg" / "Resources"


class ScriptedLoadableModule:
    def __init__(self, parent) -> None:
        self.parent = parent
        self.moduleName = type(self).__name__


class ScriptedLoadableModuleWidget:
    def __init__(self, parent=None) -> None:
        super().__init__()
        self.moduleName = type(self).__name__.removesuffix("Widget")
        if parent is None:
            parent = ModuleParent()
            self.parent, self.layout = parent, parent.layout()
            self.setup()
        self.parent, self.layout = parent, parent.layout()

    def setup(self) -> None:
        pass

    def resourcePath(self, name: str) -> str:
        return str(RESOURCES / name)


class ModuleParent(slicer.qMRMLWidget):
    """The page of the module panel; `isEntered` as of qSlicerAbstractModuleWidget."""

    def __init__(self) -> None:
        super().__init__()
        self.setLayout(qt.QVBoxLayout())
        self._entered = False

    @property
    def isEntered(self) -> bool:
        return self._entered


class ScriptedLoadableModuleLogic:
    def __init__(self, parent=None) -> None:
        super().__init__()
        self.moduleName = type(self).__name__.removesuffix("Logic")

    def getParameterNode(self):
        node = slicer.mrmlScene.GetSingletonNode(self.moduleName, "vtkMRMLScriptedModuleNode")
        if node is None:
            node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLScriptedModuleNode")
            node.UnRegister(None)
            node.SetSingletonTag(self.moduleName)
            node.SetModuleName(self.moduleName)
            node = slicer.mrmlScene.AddNode(node)
        return node


class ScriptedLoadableModuleTest(unittest.TestCase):
    pass
