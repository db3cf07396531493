"""Ends child processes together with everything that they started."""

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path


def endTree(pid: int) -> None:
    """Kills `pid` and everything below it; a process that is gone already is no error.

    PythonSlicer is a launcher: the interpreter is its child and would go on. Slicer does not come with psutil.
    """
    if pid <= 0:
        return
    if os.name == "nt":
        command = ["taskkill", "/F", "/T", "/PID", str(pid)]
        silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.Popen(command, creationflags=subprocess.CREATE_NO_WINDOW, **silent)
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
    for process in tree:
        tree += [child for child, parent in parents.items() if parent == process]
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
