"""JPEG, JPEG-LS and JPEG 2000 frames, decoded by GDCM (in SimpleITK) in a process of its own.

A damaged frame can end that process or hang it; this costs one file, and the next frame gets a new process. The
process is kept from frame to frame, since starting it takes most of a second. It is given one compressed frame in a
DICOM file that is written here, never the user's file.
"""

import atexit
import importlib.util
import json
import os
import struct
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .pixels import PixelForm

SECONDS = 120.0  # the most for one frame; the largest take a few, on a busy machine some ten
_PROGRAM = Path(__file__).with_name("decoding.py")
_UID = "1.2.826.0.1.3680043.2.1143.1"  # names the frame that is being decoded, and nothing else
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


def decode(syntax: str, data: bytes, form: "PixelForm") -> np.ndarray:
    """The pixels of one compressed frame, in a row. ValueError where they cannot be decoded."""
    document = _document(syntax, data, form)
    with _lock:
        answer = _Process.current().ask(document)
    if answer is None:
        raise ValueError("its compressed pixels cannot be decoded")
    dtype, pixels = answer
    if np.dtype(dtype).itemsize != form.allocated // 8 or len(pixels) != form.frame_bytes:
        raise ValueError("its compressed pixels are of another size than it says")
    return np.frombuffer(pixels, dtype).view(form.dtype())


def _document(syntax: str, data: bytes, form: "PixelForm") -> bytes:
    """A DICOM file with this frame alone."""

    def element(tag: int, kind: bytes, value: bytes) -> bytes:
        value += (b"\0" if kind in (b"UI", b"OB") else b" ") * (len(value) % 2)
        return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, kind, len(value)) + value

    def short(tag: int, value: int) -> bytes:
        return element(tag, b"US", struct.pack("<H", value))

    meta = element(0x00020002, b"UI", _SECONDARY_CAPTURE.encode()) + element(0x00020003, b"UI", _UID.encode())
    meta += element(0x00020010, b"UI", syntax.encode()) + element(0x00020012, b"UI", _UID.encode())
    data += b"\0" * (len(data) % 2)
    return b"".join([
        bytes(128), b"DICM", element(0x00020000, b"UL", struct.pack("<I", len(meta))), meta,
        element(0x00080016, b"UI", _SECONDARY_CAPTURE.encode()), element(0x00080018, b"UI", _UID.encode()),
        short(0x00280002, 1), element(0x00280004, b"CS", b"MONOCHROME2"),
        short(0x00280010, form.rows), short(0x00280011, form.columns), short(0x00280100, form.allocated),
        short(0x00280101, form.stored), short(0x00280102, form.high_bit), short(0x00280103, form.is_signed),
        struct.pack("<HH2s2xI", 0x7FE0, 0x0010, b"OB", 0xFFFFFFFF), struct.pack("<HHI", 0xFFFE, 0xE000, 0),
        struct.pack("<HHI", 0xFFFE, 0xE000, len(data)), data, struct.pack("<HHI", 0xFFFE, 0xE0DD, 0),
    ])  # fmt: skip


# ---- the process -----------------------------------------------------------------------------------------------------

_lock = threading.Lock()


class _Process:
    """The decoding process and its private folder."""

    _current: "_Process | None" = None

    @classmethod
    def current(cls) -> "_Process":
        """The one that runs, or a new one. A process that was forked off begins with none."""
        if cls._current is None or cls._current._owner != os.getpid():
            cls._current = cls()
            atexit.register(cls._current.end)
        return cls._current

    def __init__(self) -> None:
        self._owner = os.getpid()
        self._folder = tempfile.TemporaryDirectory(prefix="pedboneseg-")
        libraries = {str(Path(_origin(name)).parents[1]) for name in ("SimpleITK", "numpy")}
        self._child = subprocess.Popen(
            [sys.executable, "-I", str(_PROGRAM), json.dumps(sorted(libraries))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=self._folder.name,
            env=os.environ | _SCRIBBLE, start_new_session=True,
        )  # fmt: skip

    def ask(self, document: bytes) -> tuple[str, bytes] | None:
        """Type and bytes of the pixels; None where the frame cannot be decoded, or ended the process."""
        stdin, stdout = self._child.stdin, self._child.stdout
        assert stdin and stdout
        guard, answered = threading.Timer(SECONDS, self._child.kill), False
        guard.start()
        try:
            stdin.write(struct.pack("<Q", len(document)) + document)
            stdin.flush()
            head = stdout.read(16)
            if len(head) == 16:
                dtype, length = struct.unpack("<8sQ", head)
                pixels = stdout.read(length)
                if len(pixels) == length:
                    answered = True
                    return (dtype.rstrip(b"\0").decode(), pixels) if dtype.strip(b"\0") else None
        except OSError:  # it has ended
            pass
        finally:
            guard.cancel()
            if not answered:  # an interruption too: a late answer must not be taken for the next frame's
                self.end()
        return None

    def end(self) -> None:
        """Ends the process, whatever it does, and removes its folder."""
        if type(self)._current is self:
            type(self)._current = None
        if self._owner != os.getpid():
            return
        self._child.kill()
        self._child.wait()
        for stream in (self._child.stdin, self._child.stdout):
            if stream:
                stream.close()
        self._folder.cleanup()
        atexit.unregister(self.end)


def _origin(name: str) -> str:
    spec = importlib.util.find_spec(name)
    assert spec and spec.origin
    return spec.origin


# The C library fills what it hands out and what it takes back, so that no pixel of an earlier frame can show in one
# that a damaged frame leaves unwritten (glibc's name for it, then macOS's).
_SCRIBBLE = {"MALLOC_PERTURB_": "165", "MallocPreScribble": "1", "MallocScribble": "1"}
