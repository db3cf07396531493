"""Which files are opened at all: regular ones, and of those that a header names only its neighbors."""

import os
import stat
from pathlib import Path
from typing import BinaryIO

from ..errors import BadInput

_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)


def open_regular(path: Path) -> BinaryIO:
    """The file, open for reading. A pipe, a device or a folder raises BadInput and is not waited for."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise BadInput(f"{path.name} is not a regular file", "give a file, or a folder of DICOM images")
        descriptor = os.open(path, _FLAGS)  # it may be another file by now: that is why it does not block
        stream = open(descriptor, "rb")
    except FileNotFoundError:
        raise BadInput(f"{path}: there is no such file", "check the path") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise BadInput(f"{path} cannot be read: {reason(error)}", "check the path and its rights") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        stream.close()
        raise BadInput(f"{path.name} is not a regular file", "give a file, or a folder of DICOM images")
    return stream


def data_file(header: Path, name: str) -> Path:
    """The file of voxels that a header names: one file, in the header's folder or below it, links followed.

    A name that is a pattern, a list, standard input or leads anywhere else raises BadInput.
    """
    remedy = "save the image again as one file, or put the voxels beside the header"
    if not name or "%" in name or name == "-" or name.split()[:1] == ["LIST"] or not name.isprintable():
        raise BadInput(f"{header.name} does not name one file with its voxels", remedy)
    try:
        folder = header.parent.resolve()
        path = (folder / name).resolve()
        is_file = path.is_file()
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: links in a circle
        raise BadInput(f"{header.name} names a file that cannot be read: {reason(error)}", remedy) from error
    if not path.is_relative_to(folder) or path == folder:
        raise BadInput(f"{header.name} names a file outside its own folder", remedy)
    if not is_file:
        raise BadInput(f"{header.name} names {path.name}, and there is no such file beside it", remedy)
    return path


def reason(error: Exception) -> str:
    """What the system says, without the path."""
    return getattr(error, "strerror", None) or str(error)
