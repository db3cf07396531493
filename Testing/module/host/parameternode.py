"""`slicer.parameterNodeWrapper` in small: typed fields on a vtkMRMLScriptedModuleNode, and their widgets.

Only the kinds of fields and widgets that the panel uses; any other is an error, as it is in the real one.
"""

import typing

import qt
import slicer
import vtk


def parameterNodeWrapper(cls):
    fields = typing.get_type_hints(cls)
    defaults = {name: getattr(cls, name) for name in fields if hasattr(cls, name)}
    for name, kind in fields.items():
        setattr(cls, name, _field(name, kind, defaults.get(name)))
    cls._fields = fields
    for function in (__init__, connectGui, disconnectGui, AddObserver, RemoveObserver, Modified):
        setattr(cls, function.__name__, function)
    return cls


def _field(name: str, kind: type, default) -> property:
    if issubclass(kind, vtk.vtkObject):

        def read(self):
            return self.parameterNode.GetNodeReference(name)

        def write(self, value) -> None:
            if value is not None and not isinstance(value, kind):
                raise TypeError(f"{name} takes a {kind.__name__}, not {value!r}")
            if self.parameterNode.GetNodeReference(name) is not value:
                self.parameterNode.SetNodeReferenceID(name, value.GetID() if value is not None else None)
                self.parameterNode.Modified()

        return property(read, write)
    if kind not in (str, bool):
        raise TypeError(f"the stand-in knows no field of type {kind}")

    def readText(self):
        text = self.parameterNode.GetParameter(name)
        if not self.parameterNode.HasParameter(name):
            return default
        return text if kind is str else text == "True"

    def writeText(self, value) -> None:
        if not isinstance(value, kind):
            raise TypeError(f"{name} takes a {kind.__name__}, not {value!r}")
        self.parameterNode.SetParameter(name, str(value))

    return property(readText, writeText)


def __init__(self, parameterNode) -> None:
    self.parameterNode, self._connected, self._updating = parameterNode, {}, False


def connectGui(self, ui) -> int:
    widgets = {w.property("SlicerParameterName"): w for w in vars(ui).values() if w.property("SlicerParameterName")}
    strangers = set(widgets) - set(self._fields)
    if strangers:
        raise ValueError(f"the .ui names parameters that are none: {strangers}")
    links = [_link(self, name, widget) for name, widget in widgets.items()]

    def toWidgets(*_event) -> None:
        if not self._updating:
            self._updating = True
            for _connect, _disconnect, write in links:
                write()
            self._updating = False

    toWidgets()
    for connect, _disconnect, _write in links:
        connect()
    tag = self.parameterNode.AddObserver(vtk.vtkCommand.ModifiedEvent, toWidgets)
    self._connected[tag] = links
    return tag


def _link(self, name: str, widget):
    if isinstance(widget, qt.QCheckBox):
        signal, read, write = widget.toggled, lambda: widget.checked, widget.setChecked
    elif isinstance(widget, slicer.qMRMLNodeComboBox):
        signal, read, write = widget.currentNodeChanged, widget.currentNode, widget.setCurrentNode
    else:
        raise TypeError(f"the stand-in cannot connect a {type(widget).__name__}")

    def changed(*_value) -> None:
        if not self._updating:
            setattr(self, name, read())

    return (
        lambda: signal.connect(changed),
        lambda: signal.disconnect(changed),
        lambda: write(getattr(self, name)),
    )


def disconnectGui(self, tag: int) -> None:
    self.parameterNode.RemoveObserver(tag)
    for _connect, disconnect, _write in self._connected.pop(tag):
        disconnect()


def AddObserver(self, event, function, priority=0.0):
    return self.parameterNode.AddObserver(event, function, priority)


def RemoveObserver(self, tag) -> None:
    self.parameterNode.RemoveObserver(tag)


def Modified(self) -> None:
    self.parameterNode.Modified()
