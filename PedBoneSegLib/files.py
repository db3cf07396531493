"""Files that appear whole or not at all: written to a temporary file in the same folder, then renamed.

A killed process leaves its temporary file behind; the next one that writes to the folder removes it. The writer holds
a lock on its temporary file while it works, so that a file in use is never removed. A lock may not reach across
machines: the name says which machine wrote it, and another machine's file goes only when nobody has touched it for a
day.
"""

import errno
import os
import re
import socket
import stat
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from .errors import BadInput

_MACHINE = f"{zlib.crc32(socket.gethostname().encode('utf-8', 'surrogateescape')):08x}"
_PARTIAL = re.compile(r"\.pedboneseg-(\w+)-.+\.partial(\.\w+)*")
_ENDING = re.compile(r"(\.\w{1,8}){0,2}$")  # by which a writer may choose the format
_ABANDONED_SECONDS = 24 * 3600
LONGEST_TEXT = 64_000_000  # bytes


class _Partial(NamedTuple):
    descriptor: int  # of the temporary file, locked
    target: Path  # whose place it will take


_changes = threading.Lock()  # held while a temporary file is made, and for good by `discard_partials`
_swept: set[Path] = set()  # the folders that this process has written to, and looked for temporary files before that
_partials: dict[Path, _Partial] = {}  # the temporary files that this process is writing


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives the path of a temporary file to write; it takes the place of `path` when the block ends without error.

    The temporary file lies in the same folder and has the same ending (`.nii.gz`). On any error it is removed and
    `path` is as it was; an OSError becomes BadInput. Within another block for the same temporary file, that file is
    written directly: the outer block decides when it takes its place.
    """
    path = Path(path)
    if path in _partials:
        with _naming(_partials[path].target):
            yield path
        return
    if path.parent not in _swept:
        _swept.add(path.parent)
        sweep_partials(path.parent)
    with _naming(path):
        temporary = _create(path)
        try:
            yield temporary
            # safetensors, for one, puts a file of its own in the place of ours, closed to others
            os.chmod(temporary, stat.S_IMODE(os.fstat(_partials[temporary].descriptor).st_mode))
            with open(temporary, "rb+") as stream:
                os.fsync(stream.fileno())
            if os.name == "nt":  # an open file cannot be renamed there
                os.close(_partials.pop(temporary).descriptor)
            os.replace(temporary, path)
        finally:
            _forget(temporary)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """A text file in UTF-8, whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_text(path: str | os.PathLike[str]) -> str:
    """A text file in UTF-8. OSError for a pipe or a device, which might never end, and for one of more than 64 MB."""
    with open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as stream:
        status = os.fstat(stream.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_size > LONGEST_TEXT:
            raise OSError(errno.EINVAL, "it is not a plain file, or too large for a text", str(path))
        return stream.read().decode("utf-8")


def sweep_partials(folder: str | os.PathLike[str]) -> None:
    """Removes the temporary files in `folder` (not below it) that no running process is writing.

    Only plain files; a folder or a link of such a name, and what belongs to another user, stays.
    """
    with suppress(OSError):
        for entry in os.scandir(folder):
            name = _PARTIAL.fullmatch(entry.name)
            if name and Path(entry) not in _partials and entry.is_file(follow_symlinks=False):
                with suppress(OSError):
                    _remove_if_unused(entry.path, name[1] == _MACHINE)


def discard_partials() -> None:
    """Removes this process's temporary files and lets it make no more: for a process that is about to end."""
    _changes.acquire(timeout=0.5)  # whoever holds it makes or removes a file, which takes no longer unless a disk hangs
    for path in list(_partials):
        with suppress(OSError):
            path.unlink()


@contextmanager
def as_private_as(source: str | os.PathLike[str]) -> Iterator[None]:
    """Within the block, new files are closed to everyone to whom `source` is closed: a file, or a folder and the files
    in it. The rights that files are made with belong to the whole process; other threads must not make any meanwhile.
    """
    closed = 0
    with suppress(OSError):  # what cannot be looked at cannot be read either
        for entry in [source, *(os.scandir(source) if os.path.isdir(source) else ())]:
            closed |= ~os.stat(entry).st_mode & 0o066
    before = os.umask(0o077)
    os.umask(before | closed)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """An OSError within the block becomes BadInput that names the file."""
    try:
        yield
    except OSError as error:
        remedy = "free some space, close the programs that use it, or write elsewhere"
        raise BadInput(f"{path} could not be written: {error.strerror or error}", remedy) from error


def _create(path: Path) -> Path:
    """An empty file beside `path` that did not exist before, under a name that nobody can guess, locked."""
    ending = _ENDING.search(path.name)
    while True:
        name = f".pedboneseg-{_MACHINE}-{os.urandom(8).hex()}.partial{ending[0] if ending else ''}"
        temporary = path.with_name(name)
        with _changes:
            descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
            if not _in_use(descriptor) and os.fstat(descriptor).st_nlink:
                _partials[temporary] = _Partial(descriptor, path)
                return temporary
        os.close(descriptor)  # another process swept it in the moment before it was locked


def _forget(temporary: Path) -> None:
    """Removes the temporary file, if it is still there, and gives up its lock."""
    with _changes:
        partial = _partials.pop(temporary, None)
        if partial and os.name == "nt":  # an open file cannot be removed there
            os.close(partial.descriptor)
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if partial and os.name != "nt":
            os.close(partial.descriptor)


def _remove_if_unused(path: str, written_here: bool) -> None:
    descriptor = os.open(path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    try:
        in_use, age = _in_use(descriptor), time.time() - os.fstat(descriptor).st_mtime
    finally:
        if os.name == "nt":
            os.close(descriptor)
    try:
        if in_use is False and written_here or in_use is not True and age > _ABANDONED_SECONDS:
            os.unlink(path)
    finally:
        if os.name != "nt":
            os.close(descriptor)


def _in_use(descriptor: int) -> bool | None:
    """Locks an open temporary file: False. True where another process has it locked, None where there are no locks."""
    if os.name == "nt":
        return False  # an open file cannot be removed there: that is the lock
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    return False
