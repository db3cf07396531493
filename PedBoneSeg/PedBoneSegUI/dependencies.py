"""The packages that the worker needs: which are missing, and their installation.

The versions are read by `importlib.metadata`; torch is never imported. light-the-torch decides which build of PyTorch
fits the computer, as in the PyTorch extension.
"""

import importlib.metadata
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import qt
from slicer.i18n import tr as _

from .paths import findPython
from .processes import endTree
from .worklog import WorkLog

# PyTorch 2.13 cannot be installed on Windows by the light-the-torch of Slicer 5.12 (Slicer/light-the-torch#176).
TORCH = "torch>=2.4,<2.13" if os.name == "nt" else "torch>=2.4"
SAFETENSORS = "safetensors>=0.4.3"
LIGHT_THE_TORCH = "light-the-torch>=0.5"

_OFFLINE = _("A folder of wheels works without the internet: see the button below.")
_FAULTS = (  # what pip says, what that means, and what may be done
    ("proxyerror|407 proxy|tunnel connection failed", _("The network's proxy refuses the download."), _OFFLINE),
    ("certificate_verify_failed|sslerror", _("The network breaks the download's encryption (a proxy?)."), _OFFLINE),
    (
        "temporary failure in name resolution|getaddrinfo failed|failed to establish a new connection"
        "|network is unreachable|nodename nor servname",
        _("There is no way to the internet from here."), _OFFLINE,
    ),
    ("no space left|errno 28", _("The disk is full."), _("Make room and try again.")),
    ("permission denied|access is denied|errno 13", _("Slicer's folder may not be written to."), _("Ask its owner.")),
    ("no matching distribution|could not find a version", _("No fitting build was found there."), _("See the log.")),
    (
        "resolutionimpossible|conflicting dependencies",
        _("The packages found do not fit together, or the configuration of pip on this computer excludes them."),
        _("The log names the versions."),
    ),
)  # fmt: skip


def installed(name: str) -> str:
    """The version of a package, found without importing it; empty if it is not there."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def missing() -> list[str]:
    """The packages that are not installed or too old."""
    oldest = {"torch": _numbers(TORCH.split(",")[0]), "safetensors": _numbers(SAFETENSORS)}
    return [name for name in oldest if _numbers(installed(name)) < oldest[name]]


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version.partition("+")[0])[:3]]


def steps(packages: list[str], wheels: str = "") -> list[list[str]]:
    """The arguments of the interpreter, call after call. `wheels`: a folder to take everything from, offline."""
    if wheels:
        wanted = [{"torch": TORCH, "safetensors": SAFETENSORS}[name] for name in packages]
        return [["-m", "pip", "install", "--isolated", "--no-index", "--find-links", wheels, *wanted]]
    calls = []
    if "torch" in packages:
        if not installed("light-the-torch"):
            calls.append(["-m", "pip", "install", LIGHT_THE_TORCH])
        calls.append(["-m", "light_the_torch", "install", TORCH])
    if "safetensors" in packages:
        calls.append(["-m", "pip", "install", SAFETENSORS])
    return calls


def environmentFor(arguments: list[str]) -> dict[str, str]:
    """The environment of such a call. An isolated one sees none of pip's settings on this computer: `--isolated` alone
    would still read the configuration files of the system and of the interpreter.
    """
    if "--isolated" not in arguments:
        return dict(os.environ)
    own = {name: value for name, value in os.environ.items() if not name.upper().startswith("PIP_")}
    return {**own, "PIP_CONFIG_FILE": os.devnull}


def explain(log: str) -> str:
    """Why an installation failed, and what may be done."""
    for signs, fault, remedy in _FAULTS:
        if re.search(signs, log.lower()):
            return f"{fault} {remedy}"
    return _("The installation failed; the log tells more.")


def gpuPresent() -> bool:
    """Whether the computer seems to have an NVIDIA GPU, whatever PyTorch thinks."""
    return Path("/proc/driver/nvidia/version").exists() or bool(shutil.which("nvidia-smi"))


def torchIsForCpu() -> bool:
    """Whether PyTorch was built without GPU support, as far as its version tells."""
    return installed("torch").endswith("+cpu")


class Installation:
    """Runs `calls` one after the other; `onEnd(sentence)` with an empty sentence when all went well."""

    def __init__(self, calls: list[list[str]], log: WorkLog, onEnd: Callable[[str], None]) -> None:
        self._calls, self._log, self._onEnd = list(calls), log, onEnd
        self._process, self._cancelled = None, False
        qt.QTimer.singleShot(0, self._next)

    def cancel(self) -> None:
        self._cancelled = True
        if self._process is not None:
            endTree(int(self._process.processId()))
            self._process.kill()

    def _next(self, code: int = 0) -> None:
        """Goes on after a call that ended with `code`."""
        self._process = None
        if self._cancelled:
            self._onEnd(_("The installation was cancelled."))
        elif code:
            self._onEnd(explain(self._log.text))
        elif not self._calls:
            self._onEnd("")
        else:
            self._run(self._calls.pop(0))

    def _run(self, arguments: list[str]) -> None:
        process = self._process = qt.QProcess()
        process.setProcessChannelMode(qt.QProcess.MergedChannels)
        environment = qt.QProcessEnvironment()
        for name, value in environmentFor(arguments).items():
            environment.insert(name, value)
        process.setProcessEnvironment(environment)
        process.readyReadStandardOutput.connect(
            lambda: self._log.append(process.readAllStandardOutput().data().decode("utf-8", "replace"))
        )
        process.connect(
            "finished(int,QProcess::ExitStatus)",
            lambda code, status: self._next(code if status == qt.QProcess.NormalExit else -1),
        )
        process.connect("errorOccurred(QProcess::ProcessError)", self._onProcessError)
        self._log.append(" ".join(["python", *arguments]))
        process.start(findPython(), ["-P", *arguments])

    def _onProcessError(self, error) -> None:
        if error == qt.QProcess.FailedToStart:
            self._onEnd(_("Slicer's Python could not be started: {program}").format(program=findPython() or "?"))
