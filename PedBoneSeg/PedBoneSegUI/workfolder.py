"""The panel's own temporary folder: file names that tell nothing, gone at exit, and after a kill at the next start."""

import os
import re
import secrets
import shutil
import tempfile
from pathlib import Path

from PedBoneSegLib.files import is_running

_NAME = re.compile(r"^PedBoneSeg-(\d+)-")


class WorkFolder:
    """Made on first use, readable by this user alone."""

    def __init__(self, parent: str | Path | None = None) -> None:
        self._parent = Path(parent or tempfile.gettempdir())
        self._path: Path | None = None

    @property
    def path(self) -> Path:
        if self._path is None or not self._path.is_dir():
            self._parent.mkdir(parents=True, exist_ok=True)
            self._path = Path(tempfile.mkdtemp(prefix=f"PedBoneSeg-{os.getpid()}-", dir=self._parent))
        return self._path

    def newFile(self, suffix: str) -> Path:
        """A path that does not exist yet, under a name that is a pseudonym."""
        return self.path / f"case-{secrets.token_hex(6)}{suffix}"

    def sweep(self) -> list[Path]:
        """Removes the folders of processes that no longer run; returns what was removed."""
        removed = []
        if not self._parent.is_dir():
            return removed
        for entry in self._parent.iterdir():
            match = _NAME.match(entry.name)
            if match and entry.is_dir() and not entry.is_symlink() and not is_running(int(match.group(1))):
                shutil.rmtree(entry, ignore_errors=True)
                removed.append(entry)
        return removed

    def remove(self) -> None:
        if self._path is not None:
            shutil.rmtree(self._path, ignore_errors=True)
            self._path = None
