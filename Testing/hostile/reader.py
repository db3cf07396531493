"""Reads files in a child process under limits of memory and time, and says what came of each.

The child is kept from file to file, so that a case takes milliseconds; when it dies or hangs, that is the case's
fault and the next case gets a new one. It is Linux's /proc that tells the peak of memory.
"""

import ctypes
import hashlib
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from threading import Timer

SECONDS = 60.0  # a file that takes longer is a fault, on a busy machine too
CPU_SECONDS = 10.0  # and one that computes for so long
ADDRESS_SPACE = 8 << 30  # bytes that the child may ask for
REFUSED_BYTES = 500_000_000  # the most that a refused file may take beyond the idle program
BYTES_PER_VOXEL = 24  # and an accepted one beyond that
POISONS = (0x00, 0x5A, 0xC3)  # what fresh memory is filled with; an image that depends on it was never in the file


class Reader:
    """The child process, started when it is first needed. `script` is the program that answers, this file or one that
    does the like with other files."""

    def __init__(self, script: Path = Path(__file__), seconds: float = SECONDS) -> None:
        self._script, self._seconds = script.resolve(), seconds
        self._child: subprocess.Popen[bytes] | None = None

    def __call__(self, path: Path, op: str = "read") -> dict:
        """What reading `path` came to: its label, and the fault if there is one. `op` is read or segmentation."""
        child = self._child = self._child or subprocess.Popen(
            [sys.executable, "-P", "-W", "error", str(self._script)], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={**os.environ, "MALLOC_ARENA_MAX": "1"},
        )  # fmt: skip
        assert child.stdin and child.stdout
        guard = Timer(self._seconds, child.kill)
        guard.start()
        try:
            child.stdin.write(json.dumps({"path": str(path), "op": op}).encode() + b"\n")
            child.stdin.flush()
            answer = child.stdout.readline()
        except BrokenPipeError:
            answer = b""
        finally:
            fired = guard.finished.is_set()
            guard.cancel()
        if answer:
            return json.loads(answer)
        self._child = None
        child.kill()
        code = child.wait()
        ended = f"took more than {self._seconds:g} s" if fired else f"ended the process (code {code})"
        return {"label": "dead", "fault": f"reading it {ended}"}


def _child() -> None:
    """Answers every line on stdin, {"path", "op"}, with one on stdout."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, resource.RLIM_INFINITY))
    stdout, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        print(json.dumps(_examine(**json.loads(line))), file=stdout, flush=True)


def _examine(path: str, op: str) -> dict:
    import numpy as np

    from PedBoneSegLib.errors import BadInput

    poisoned, plain = ctypes.CDLL(None).mallopt, np.empty
    start, before = time.process_time(), _memory()
    try:
        array, _ = _read(path, op)
    except BadInput as error:
        label, message, size, peak = "refused", str(error), 0, _peak() - before
    except BaseException as error:
        return {"label": "bug", "fault": f"{type(error).__name__}: {error}"}
    else:
        label, message, size, peak = "accepted", "", array.size, _peak() - before
        del array
    seconds = time.process_time() - start
    if seconds > CPU_SECONDS:
        return {"label": label, "fault": f"it took {seconds:.0f} s of computing, {label} {message}"}
    if peak > REFUSED_BYTES + BYTES_PER_VOXEL * size:
        return {"label": label, "fault": f"{peak / 1e6:.0f} MB for {size} voxels, {label} {message}"}
    if "\n" in message or any(not char.isprintable() for char in message):
        return {"label": label, "fault": f"a message that is no plain line: {message!r}"}
    if label == "accepted":  # what is in memory that was never written to must not show
        digests = set()
        for value in POISONS:
            poisoned(-6, value)  # M_PERTURB: what malloc gives and free leaves is filled
            np.empty = lambda *args, fill=value, **more: _filled(plain(*args, **more), fill)
            try:
                digests.add(_digest(*_read(path, op)))
            except BaseException as error:
                return {"label": "bug", "fault": f"read once, and then {type(error).__name__}: {error}"}
            finally:
                np.empty = plain
                poisoned(-6, 0)
        if len(digests) > 1:
            return {"label": label, "fault": "its voxels change with what was in memory before"}
    return {"label": label, "fault": "", "message": message, "seconds": seconds, "peak": peak, "voxels": size}


def _read(path: str, op: str) -> tuple:
    """The voxels, and what else is told, as text."""
    from PedBoneSegLib.formats.reading import read_volume
    from PedBoneSegLib.formats.segments import read_segmentation

    if op == "segmentation":
        array, grid, table, side = read_segmentation(path)
        told = repr((grid, table, side))
    else:
        volume = read_volume(path)
        array, grid, told = volume.array, volume.grid, repr((volume.grid, volume.side))
    assert array.shape == grid.size, f"{array.shape} voxels on a grid of {grid.size}"
    grid.check()
    return array, told


def _digest(array, told: str) -> str:
    import numpy as np

    assert np.isfinite(array).all(), "voxels that are not finite"
    digest = hashlib.sha256(told.encode())
    digest.update(np.ascontiguousarray(array.T))
    return digest.hexdigest()


def _filled(array, value: int):
    if array.dtype.hasobject:
        return array
    array.T.reshape(-1, order="A").view("u1")[:] = value
    return array


def _memory() -> int:
    """Bytes in use now; the peak counts anew from here."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _peak() -> int:
    return _status("VmHWM")


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(key)))


if __name__ == "__main__":
    _child()
