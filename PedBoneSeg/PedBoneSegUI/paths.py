"""Where the parts of the extension lie, in the source tree and in an installation alike."""

import os
import shutil
import sys
from pathlib import Path

MODULE_FOLDER = Path(__file__).resolve().parents[1]


def findRoot(moduleFolder: Path = MODULE_FOLDER) -> Path:
    """The folder that holds PedBoneSegLib and Training: the module's own once installed, its parent in the sources."""
    for folder in (moduleFolder, moduleFolder.parent):
        if (folder / "PedBoneSegLib" / "__init__.py").is_file():
            return folder
    raise ImportError(f"PedBoneSegLib lies neither in {moduleFolder} nor beside it; reinstall the extension")


def makeImportable() -> Path:
    """Lets `import PedBoneSegLib` work in this process; returns the root."""
    root = findRoot()
    if str(root) not in sys.path:
        sys.path.append(str(root))
    return root


def samplePath(joint: str) -> Path:
    return findRoot() / "PedBoneSegLib" / "samples" / f"{joint}.nii.gz"


def findPython() -> str:
    """The interpreter for child processes: PythonSlicer in the application (where `sys.executable` is empty)."""
    return shutil.which("PythonSlicer") or sys.executable or ""


def pythonPath(root: Path) -> str:
    """PYTHONPATH of a child process: the runtime, then the training library."""
    return os.pathsep.join((str(root), str(root / "Training")))


def commandLine(arguments: list[str]) -> str:
    """A line to paste into a terminal of this machine that runs `pedboneseg ARGUMENTS` with the extension's parts."""
    command = [findPython(), "-m", "PedBoneSegLib", *arguments]
    if os.name == "nt":
        import subprocess

        return f'set "PYTHONPATH={pythonPath(findRoot())}" && {subprocess.list2cmdline(command)}'
    import shlex

    return f"PYTHONPATH={shlex.quote(pythonPath(findRoot()))} {shlex.join(command)}"


def sha256(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()
