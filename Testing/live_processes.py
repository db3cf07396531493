"""Real processes in tests: whose children they are, whether they still run, and waiting for it."""

import os
import time
from collections.abc import Callable
from pathlib import Path

SECONDS = 300  # a limit for what would never happen; a busy machine may take its time


def children(pid: int) -> list[int]:
    """Linux alone."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_alive(pid: int) -> bool:
    """A process that has ended and that nobody has asked about yet (a zombie) is not alive."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    try:
        return not Path("/proc/self/stat").exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:  # it ended meanwhile
        return False


def wait_until(condition: Callable[[], object], seconds: float = SECONDS) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"it did not happen within {seconds:.0f} s"
        time.sleep(0.02)
