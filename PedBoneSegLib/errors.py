"""Failures that can be foreseen: each is one line that names the thing, the fault and the remedy.

Any other exception is a bug: its traceback goes to the log and the program ends with exit code 1. Two of Python's own
are foreseeable too, see `foreseen`.
"""

import errno
import os

from .plaintext import one_line, shortened

LONGEST = 1000  # characters of a message; what a file holds may be quoted in it
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE)


class PedBoneSegError(Exception):
    """A foreseeable failure. `message` names the thing and the fault, `hint` the remedy (may be empty)."""

    kind, exit_code = "bug", 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = shortened(one_line(message), LONGEST)
        self.hint = shortened(one_line(hint), LONGEST)

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class BadInput(PedBoneSegError):
    """A file, a folder, an option or a data set that cannot be used as it is."""

    kind, exit_code = "bad-input", 2


class BadModel(PedBoneSegError):
    """A model that is missing, damaged, of an unknown schema, or lacks what was asked of it."""

    kind, exit_code = "bad-model", 3


class OutOfMemory(PedBoneSegError):
    """Neither a smaller batch nor the CPU was small enough."""

    kind, exit_code = "out-of-memory", 4


class Cancelled(PedBoneSegError):
    """The user stopped the work; nothing was written."""

    kind, exit_code = "cancelled", 5

    def __init__(self, message: str = "cancelled", hint: str = "") -> None:
        super().__init__(message, hint)


class Undecided(PedBoneSegError):
    """Joint `auto` met an image that is ambiguous or unlike anything the model knows; nothing was written.

    `scores` maps every domain to its score, the smallest being the likeliest.
    """

    kind, exit_code = "undecided", 6

    def __init__(self, message: str, hint: str, verdict: str, scores: dict[str, float]) -> None:
        super().__init__(message, hint)
        self.verdict = verdict
        self.scores = scores


def foreseen(error: BaseException) -> PedBoneSegError | None:
    """The foreseeable failure that an exception is, or None for a bug.

    Memory that runs out, and whatever the system says of a file: a name too long, a folder that may not be read, a
    loop of links, a full disk, a file that has vanished.
    """
    if isinstance(error, PedBoneSegError):
        return error
    if isinstance(error, MemoryError) or (isinstance(error, ImportError) and "failed to map" in str(error)):
        return OutOfMemory("there is not enough memory", "close other programs, or crop the volume")
    if isinstance(error, OSError) and (error.filename is not None or error.errno in _FULL):
        place = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        return BadInput(f"{place}{error.strerror or error}", "check the path, its rights and the disk")
    return None
