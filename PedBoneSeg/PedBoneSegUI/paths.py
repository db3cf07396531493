"""Where the parts of the extension lie, in the source tree and in an installation alike, and its command line."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

MODULE_FOLDER = Path(__file__).resolve().parents[1]


def findRoot(moduleFolder: Path = MODULE_FOLDER) -> Path:
    """The folder that holds PedBoneSegLib and Training: the module's own if installed, its parent in the sources."""
    for folder in (moduleFolder, moduleFolder.parent):
        if (folder / "PedBoneSegLib" / "__init__.py").is_file():
            return folder
    raise ImportError(f"PedBoneSegLib lies neither in {moduleFolder} nor beside it; reinstall the extension")


def makeImportable() -> None:
    """Lets `import PedBoneSegLib` work in this process."""
    if str(findRoot()) not in sys.path:
        sys.path.append(str(findRoot()))


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
    command, path = [findPython(), "-P", "-m", "PedBoneSegLib", *arguments], pythonPath(findRoot())
    if os.name == "nt":
        return f'set "PYTHONPATH={path}" && {subprocess.list2cmdline(command)}'
    return f"PYTHONPATH={shlex.quote(path)} {shlex.join(command)}"
