"""Where the parts of the extension lie, in the source tree and in an installation alike, and its temporary files."""

import os
import re
import secrets
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .processes import isRunning

MODULE_FOLDER = Path(__file__).resolve().parents[1]
PSEUDONYM = re.compile(r"case-[0-9a-f]{12}(\.\w+)?")  # of a temporary file


def findRoot(moduleFolder: Path = MODULE_FOLDER) -> Path:
    """The folder that holds PedBoneSegLib and Training: the module's own once installed, its parent in the sources."""
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


class WorkFolder:
    """The panel's own temporary folder, for this user alone: file names that tell nothing, gone at exit."""

    def __init__(self, parent: str | Path) -> None:
        self._parent = Path(parent)
        self._path: Path | None = None

    @property
    def path(self) -> Path:
        """Made when it is first asked for."""
        if self._path is None or not self._path.is_dir():
            self._parent.mkdir(parents=True, exist_ok=True)
            self._path = Path(tempfile.mkdtemp(prefix=f"PedBoneSeg-{os.getpid()}-", dir=self._parent))
        return self._path

    def newFile(self, suffix: str) -> Path:
        """A path that does not exist yet, under a name that is a pseudonym."""
        return self.path / f"case-{secrets.token_hex(6)}{suffix}"

    @contextmanager
    def files(self, *suffixes: str) -> Iterator[list[Path]]:
        """New files for the block; they go at its end."""
        paths = [self.newFile(suffix) for suffix in suffixes]
        try:
            yield paths
        finally:
            for path in paths:
                with suppress(OSError):  # Windows keeps a file that a dying worker still holds; the folder goes later
                    path.unlink(missing_ok=True)

    def sweep(self) -> None:
        """Removes what killed applications left behind."""
        for folder in self._parent.glob("PedBoneSeg-*"):
            owner = re.match(r"PedBoneSeg-(\d+)-", folder.name)
            if owner and not folder.is_symlink() and not isRunning(int(owner[1])):
                shutil.rmtree(folder, ignore_errors=True)

    def remove(self) -> None:
        if self._path is not None:
            shutil.rmtree(self._path, ignore_errors=True)
            self._path = None
