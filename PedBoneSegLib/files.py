"""Files that appear whole or not at all: written beside their place, then renamed.

A partial file carries the number of the process that writes it, so that whatever a kill left behind can be told
from what another process is writing just now.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import BadInput

_PARTIAL = re.compile(r"^\.pedboneseg-(\d+)-.*\.partial(\..+)?$")


@contextmanager
def whole_file(path: str | os.PathLike) -> Iterator[Path]:
    """Gives the path of a temporary file to write; it takes the place of `path` when the block ends without error.

    The temporary file lies in the same folder and ends in the same suffixes, so that writers which choose a format
    by suffix work on it. On any error it is removed and `path` is as it was; an OSError becomes BadInput.
    """
    path = Path(path)
    suffixes = "".join(path.suffixes[-2:])
    temporary = path.with_name(f".pedboneseg-{os.getpid()}-{path.name}.partial{suffixes}")
    try:
        yield temporary
        with open(temporary, "rb+") as stream:
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except OSError as error:
        remedy = "free some space, close the programs that use it, or write elsewhere"
        raise BadInput(f"{path} could not be written: {error.strerror or error}", remedy) from error
    finally:
        with suppress(OSError):  # its folder may be a file
            temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike, text: str) -> None:
    """A text file in UTF-8, whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def sweep_partials(folder: str | os.PathLike) -> None:
    """Removes the partial files in `folder` (not below it) whose writer no longer runs."""
    folder = Path(folder)
    for entry in folder.iterdir() if folder.is_dir() else ():
        match = _PARTIAL.match(entry.name)
        if match and not is_running(int(match.group(1))):
            entry.unlink(missing_ok=True)


def is_running(pid: int) -> bool:
    if pid == os.getpid():
        return True
    if os.name != "posix":  # there, os.kill would kill
        import ctypes

        handle = ctypes.windll.kernel32.OpenProcess(0x00100000, False, pid)  # SYNCHRONIZE
        return bool(handle and ctypes.windll.kernel32.CloseHandle(handle))
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        pass
    return True
