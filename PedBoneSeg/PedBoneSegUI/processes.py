"""Child processes: ended with everything that they started, and what they wrote, kept without names."""

import os
import re
import signal
import subprocess
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

# An absolute path on any system, quoted or not. Blanks end an unquoted one; what must never show is hidden by name.
_PATH = re.compile(
    r"""(?<=["'])(?:[A-Za-z]:[\\/]|\\\\|/)[^"'\n]+(?=["'])|(?:\b[A-Za-z]:[\\/]|\\\\|(?<![\w.>])/)[^\s"'<>|;,]+"""
)


def endTree(pid: int) -> None:
    """Kills `pid` and everything below it; a process that is gone already is no error.

    PythonSlicer is a launcher: the interpreter is its child, and would go on. psutil is no part of Slicer.
    """
    if pid <= 0:
        return
    if os.name == "nt":
        command = ["taskkill", "/F", "/T", "/PID", str(pid)]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.Popen(command, creationflags=subprocess.CREATE_NO_WINDOW, **quiet)
        return
    for process in [pid, *descendants(pid)]:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(process, signal.SIGKILL)


def isRunning(pid: int) -> bool:
    """Whether a process of that number runs on this machine."""
    if os.name == "nt":  # there, os.kill would kill
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


def descendants(pid: int) -> list[int]:
    """All running processes below `pid`, parents before their children. Not on Windows."""
    parents, tree = _parents(), [pid]
    for one in tree:
        tree += [child for child, parent in parents.items() if parent == one]
    return tree[1:]


def _parents() -> dict[int, int]:
    """Every running process and its parent; from /proc where there is one, for Linux need not have ps."""
    rows = []
    if Path("/proc/self/stat").exists():
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):  # it has ended meanwhile
                # The name in parentheses may hold blanks and parentheses; the fields begin after the last one.
                rows.append((stat.parent.name, stat.read_text(errors="replace").rpartition(")")[2].split()[1]))
    else:
        listing = subprocess.run(["ps", "-axo", "pid=,ppid="], capture_output=True, text=True, check=False).stdout
        rows = [line.split() for line in listing.splitlines()]
    return {int(pid): int(parent) for pid, parent in rows}


class WorkLog:
    """The last lines that child processes wrote, for a report: without paths, and without the names to hide."""

    LONGEST_LINE = 2000  # characters; a longer line is cut

    def __init__(self, lines: int = 2000) -> None:
        self._lines: deque[str] = deque(maxlen=lines)
        self._secrets: set[str] = set()
        self.onLine: Callable[[str], None] = lambda line: None

    def hide(self, *texts: str) -> None:
        """Texts that must never show; they go from what is there already, too."""
        self._secrets |= {text for text in texts if len(text) > 1}
        self._lines = deque(map(self._clean, self._lines), self._lines.maxlen)

    def append(self, text: str) -> None:
        for line in filter(str.strip, text.splitlines()):
            self._lines.append(self._clean(line[: self.LONGEST_LINE]))
            self.onLine(self._lines[-1])

    @property
    def text(self) -> str:
        return "\n".join(self._lines)

    def _clean(self, line: str) -> str:
        for secret in sorted(self._secrets, key=len, reverse=True):
            line = line.replace(secret, "<hidden>")
        return _PATH.sub("<path>", line)
