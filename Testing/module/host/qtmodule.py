"""The module `qt` as PythonQt presents it, made of PySide6.

- A Q_PROPERTY is an attribute to read and write, and cannot be called; setters and is-methods stay methods.
- Writing an attribute that is no property of a Qt class is an error, where PySide6 would silently keep it.
- `QProcess.finished` passes one argument, the text form of `connect` both; `QProcess.write` takes text.
- File dialogs answer what a test has scripted, and fail otherwise.
"""

import ctypes
import os
import sys
import types

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from PySide6 import QtCore, QtGui, QtUiTools, QtWidgets  # noqa: E402

# Properties that would hide something that the real `qt` offers under the same name, and classes left as they are.
_HIDING = {("QTimer", "singleShot")}
_EXEMPT = {"QEventLoop"}
_CHANGED: set[type] = set()

dialogAnswers: list[str] = []  # what the next file dialogs answer
dialogProposals: list[str] = []  # the file names that they proposed
openedUrls: list[str] = []
complaints: list[str] = []  # what Qt itself complained of: unknown signals of a .ui, objects used after their end


def makeModule() -> types.ModuleType:
    _keepNone()
    qt = types.ModuleType("qt")
    for namespace in (QtCore, QtGui, QtWidgets, QtUiTools):
        for name in dir(namespace):
            if name.startswith("Q"):
                setattr(qt, name, getattr(namespace, name))
    for value in list(vars(qt).values()):
        if isinstance(value, type) and issubclass(value, QtCore.QObject) and value.__name__ not in _EXEMPT:
            presentProperties(value)
            value.__setattr__ = _strictSetattr
    _installRules()
    QtCore.qInstallMessageHandler(_hear)
    qt.QProcess = Process
    qt.QFileDialog = FileDialog
    qt.QDesktopServices = DesktopServices
    qt.QUiLoader = UiLoader
    return qt


def _keepNone() -> None:
    """PySide6 gives back one reference to None too many with each call that returns nothing. Since Python 3.12 that
    does not matter; before, Python aborts after some ten thousand calls, which a busy machine makes while it waits.
    """
    if sys.version_info < (3, 12):
        ctypes.c_ssize_t.from_address(id(None)).value += 1 << 40


def presentProperties(cls: type) -> None:
    """Installs the Q_PROPERTYs that `cls` itself declares as Python properties."""
    meta = getattr(cls, "staticMetaObject", None)
    if meta is None or cls in _CHANGED:
        return
    _CHANGED.add(cls)
    for index in range(meta.propertyOffset(), meta.propertyCount()):
        name = meta.property(index).name()
        if (cls.__name__, name) not in _HIDING and not isinstance(cls.__dict__.get(name), property):
            setattr(cls, name, _property(name, meta.property(index).isWritable()))


def _hear(kind, context, message: str) -> None:
    # A property of a set type cannot be declared in Python: the stand-in of ctkPathLineEdit goes without its filters.
    # And the locale is the machine's.
    if "set-type property filters" not in message and not message.startswith("Detected locale"):
        complaints.append(message)


def _property(name: str, writable: bool) -> property:
    def read(self):
        return QtCore.QObject.property(self, name)

    def write(self, value) -> None:
        if not writable or not QtCore.QObject.setProperty(self, name, value):
            raise AttributeError(f"{type(self).__name__}.{name} cannot be set to {value!r}")

    return property(read, write)


def _installRules() -> None:
    QtCore.QObject.name = _property("objectName", True)
    for cls in (QtCore.QEventLoop, QtWidgets.QDialog, QtCore.QCoreApplication):
        cls.exec_ = cls.exec


def _strictSetattr(self, name: str, value) -> None:
    for cls in type(self).__mro__:
        found = cls.__dict__.get(name)
        if isinstance(found, property):
            found.__set__(self, value)
            return
        if isinstance(found, QtCore.Property):
            QtCore.QObject.setProperty(self, name, value)
            return
    if isinstance(value, QtCore.SignalInstance):  # PySide6 itself keeps its signals so
        self.__dict__[name] = value
        return
    ofHost = type(self).__module__.startswith("module.host")
    ofQt = type(self).__module__.startswith("PySide6")
    # A class of the module under test keeps what it likes, as in PythonQt; the host's own are strict from outside.
    if ofQt or (ofHost and not name.startswith("_")):
        if UiLoader.loading:  # PySide6's loader leaves the children as attributes; PythonQt's does not
            return
        raise AttributeError(f"{type(self).__name__} has no property {name!r}")
    self.__dict__[name] = value


class Process(QtCore.QProcess):
    """As PythonQt binds it: the signal `finished` as an attribute passes the exit code alone, and never both."""

    def __init__(self, parent=None) -> None:
        super().__init__(parent)
        self._both = self.__dict__["finished"]
        self.__dict__["finished"] = _OneArgument(self._both)

    def connect(self, signature: str, function) -> bool:
        signals = {
            "finished(int,QProcess::ExitStatus)": self._both,
            "errorOccurred(QProcess::ProcessError)": self.errorOccurred,
        }
        signals[signature].connect(function)
        return True

    def write(self, data) -> int:
        return super().write(data.encode() if isinstance(data, str) else data)


class _OneArgument:
    def __init__(self, signal) -> None:
        self._signal = signal

    def connect(self, function) -> None:
        self._signal.connect(lambda code, status: function(code))


class FileDialog:
    """The static functions; each takes the next scripted answer, an empty one is "cancelled"."""

    @staticmethod
    def _next(_parent=None, _title="", proposal="", _kinds="") -> str:
        if not dialogAnswers:
            raise AssertionError("a file dialog was opened that no test expected")
        dialogProposals.append(proposal)
        return dialogAnswers.pop(0)

    getExistingDirectory = getOpenFileName = getSaveFileName = _next


class DesktopServices:
    @staticmethod
    def openUrl(url) -> bool:
        openedUrls.append(url.toString())
        return True


class UiLoader(QtUiTools.QUiLoader):
    """Loads a .ui as Slicer does; a class that is not known fails instead of becoming a plain widget."""

    customClasses: dict[str, type] = {}
    loading = False

    def __init__(self) -> None:
        super().__init__()
        for cls in self.customClasses.values():
            self.registerCustomWidget(cls)

    def load(self, device, parent=None):
        UiLoader.loading = True
        try:
            return super().load(device, parent)
        finally:
            UiLoader.loading = False
