"""The panel's temporary folder: its files have names that say nothing about the patient."""

import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .processes import isRunning

PSEUDONYM = re.compile(r"case-[0-9a-f]{12}(\.\w+)?")  # the name of a temporary file


class WorkFolder:
    """A folder that only this user can read; it is made when first needed and removed at exit."""

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
        """A path that does not exist yet, with a pseudonym as its name."""
        return self.path / f"case-{secrets.token_hex(6)}{suffix}"

    @contextmanager
    def files(self, *suffixes: str) -> Iterator[list[Path]]:
        """Paths for temporary files, which are removed at the end of the block."""
        paths = [self.newFile(suffix) for suffix in suffixes]
        try:
            yield paths
        finally:
            for path in paths:
                with suppress(OSError):  # Windows keeps a file that a dying worker still holds; the folder goes later
                    path.unlink(missing_ok=True)

    def sweep(self) -> None:
        """Removes the folders of applications that were killed."""
        for folder in self._parent.glob("PedBoneSeg-*"):
            owner = re.match(r"PedBoneSeg-(\d+)-", folder.name)
            if owner and not folder.is_symlink() and not isRunning(int(owner[1])):
                shutil.rmtree(folder, ignore_errors=True)

    def remove(self) -> None:
        if self._path is not None:
            shutil.rmtree(self._path, ignore_errors=True)
            self._path = None
