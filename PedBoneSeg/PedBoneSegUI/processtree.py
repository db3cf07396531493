"""Ends a process with everything that it started.

PythonSlicer is a launcher: the interpreter is its child, and killing the launcher alone would leave the network
running. Standard library only; psutil is not part of Slicer.
"""

import os
import signal
import subprocess
from pathlib import Path


def descendants(pid: int) -> list[int]:
    """Numbers of all running processes below `pid`, parents before their children. Not on Windows."""
    children: dict[int, list[int]] = {}
    for process, parent in _parents():
        children.setdefault(parent, []).append(process)
    found, waiting = [], [pid]
    while waiting:
        below = children.get(waiting.pop(0), [])
        found += below
        waiting += below
    return found


def endTree(pid: int) -> None:
    """Kills `pid` and everything below it; a process that is gone already is no error."""
    if pid <= 0:
        return
    if os.name == "nt":
        subprocess.Popen(
            ["taskkill", "/F", "/T", "/PID", str(pid)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            creationflags=subprocess.CREATE_NO_WINDOW,
        )
        return
    tree = [pid, *descendants(pid)]
    for process in tree:
        try:
            os.kill(process, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue


def _parents() -> list[tuple[int, int]]:
    proc = Path("/proc")
    if (proc / "self" / "stat").exists():
        pairs = []
        for entry in proc.iterdir():
            if not entry.name.isdigit():
                continue
            try:
                # The name in parentheses may hold blanks and parentheses; the fields begin after the last one.
                fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
            except OSError:
                continue
            pairs.append((int(entry.name), int(fields[1])))
        return pairs
    listing = subprocess.run(["ps", "-axo", "pid=,ppid="], capture_output=True, text=True, check=False).stdout
    return [tuple(map(int, line.split())) for line in listing.splitlines() if len(line.split()) == 2]
