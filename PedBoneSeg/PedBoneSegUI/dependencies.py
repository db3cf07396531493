"""What must be there before the worker can run, and its installation in a child process.

The GUI process asks `importlib.metadata` alone; it never imports torch. Which build of PyTorch fits the computer is
decided by light-the-torch, as the PyTorch extension does it.
"""

import importlib.metadata
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import qt
from slicer.i18n import tr as _

from .paths import findPython
from .processtree import endTree

# PyTorch 2.13 cannot be installed on Windows by the light-the-torch of Slicer 5.12 (Slicer/light-the-torch#176).
TORCH = "torch>=2.4,<2.13" if os.name == "nt" else "torch>=2.4"
SAFETENSORS = "safetensors>=0.4.3"
LIGHT_THE_TORCH = "light-the-torch>=0.5"
_OLDEST = {"torch": (2, 4), "safetensors": (0, 4, 3)}

_FAULTS = (
    (("proxyerror", "407 proxy", "tunnel connection failed"), "The network's proxy refuses the download."),
    (("certificate_verify_failed", "sslerror"), "The network breaks the encryption of the download (a proxy?)."),
    (
        ("temporary failure in name resolution", "getaddrinfo failed", "failed to establish a new connection",
         "network is unreachable", "nodename nor servname"),
        "There is no way to the internet from here.",
    ),
    (("no space left", "errno 28"), "The disk is full."),
    (("permission denied", "access is denied", "errno 13"), "The folder of Slicer may not be written to."),
    (("no matching distribution", "could not find a version"), "No fitting build was found there."),
)  # fmt: skip


def missing() -> list[str]:
    """The packages that are not installed or too old, asked without importing any."""
    found = []
    for name, oldest in _OLDEST.items():
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found.append(name)
            continue
        numbers = tuple(int(part) for part in version.split("+")[0].split(".")[:3] if part.isdigit())
        if numbers < oldest:
            found.append(name)
    return found


def isInstalled(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def steps(packages: list[str], wheels: str = "") -> list[list[str]]:
    """The calls of the interpreter, one after the other, as arguments. `wheels`: a folder to take all from, offline."""
    wanted = [{"torch": TORCH, "safetensors": SAFETENSORS}[name] for name in packages]
    if wheels:
        return [["-m", "pip", "install", "--no-index", "--find-links", wheels, *wanted]]
    calls = []
    if "torch" in packages:
        if not isInstalled("light-the-torch"):
            calls.append(["-m", "pip", "install", LIGHT_THE_TORCH])
        calls.append(["-m", "light_the_torch", "install", TORCH])
    if "safetensors" in packages:
        calls.append(["-m", "pip", "install", SAFETENSORS])
    return calls


def explain(log: str) -> str:
    """Why an installation failed, in one sentence; the remedy for a computer without internet is the wheels folder."""
    text = log.lower()
    for signs, sentence in _FAULTS:
        if any(sign in text for sign in signs):
            return _(sentence) + " " + _("A folder of wheels works without the internet: see the button beside.")
    return _("The installation failed; the log tells more.")


def gpuPresent() -> bool:
    """Whether the computer seems to have an NVIDIA GPU, whatever PyTorch thinks."""
    return Path("/proc/driver/nvidia/version").exists() or bool(shutil.which("nvidia-smi"))


class Installation:
    """Runs `steps` one after the other; `onEnd(sentence)` with an empty sentence when all went well."""

    def __init__(self, calls: list[list[str]], log, onEnd: Callable[[str], None]) -> None:
        self._calls, self._log, self._onEnd = list(calls), log, onEnd
        self._process, self._cancelled, self._ended = None, False, False

    def start(self) -> None:
        qt.QTimer.singleShot(0, self._next)

    def cancel(self) -> None:
        self._cancelled = True
        if self._process is not None:
            endTree(int(self._process.processId()))
            self._process.kill()

    def _next(self) -> None:
        if self._cancelled:
            self._end(_("The installation was cancelled."))
        elif not self._calls:
            self._end("")
        elif packaging := self._packaging():
            packaging.pip_install(
                self._calls.pop(0)[-1],
                blocking=False,
                show_progress=False,
                requester="PedBoneSeg",
                logCallback=self._log.append,
                completedCallback=self._onCode,
            )
        else:
            self._run(self._calls.pop(0))

    def _packaging(self):
        """Slicer's own installer, for the small package, where this Slicer has it (5.12) and no folder is given."""
        if self._calls[0] != ["-m", "pip", "install", SAFETENSORS]:
            return None
        try:
            import slicer.packaging
        except ImportError:
            return None
        return slicer.packaging

    def _run(self, arguments: list[str]) -> None:
        process = self._process = qt.QProcess()
        process.setProcessChannelMode(qt.QProcess.MergedChannels)
        process.readyReadStandardOutput.connect(
            lambda: self._log.append(process.readAllStandardOutput().data().decode("utf-8", "replace"))
        )
        process.connect("finished(int,QProcess::ExitStatus)", self._onFinished)
        process.connect("errorOccurred(QProcess::ProcessError)", self._onProcessError)
        self._log.append(" ".join(["python", *arguments]))
        process.start(findPython(), arguments)

    def _onProcessError(self, error) -> None:
        if error == qt.QProcess.FailedToStart:
            self._end(_("Slicer's Python could not be started: {program}").format(program=findPython() or "?"))

    def _onFinished(self, code: int, status) -> None:
        self._onCode(code if status == qt.QProcess.NormalExit else -1)

    def _onCode(self, code: int) -> None:
        self._process = None
        if code and not self._cancelled:
            self._end(explain(self._log.text))
        else:
            qt.QTimer.singleShot(0, self._next)

    def _end(self, sentence: str) -> None:
        if not self._ended:
            self._ended = True
            self._onEnd(sentence)
