"""The program of the decoding process: DICOM files with one frame on stdin, pixels on stdout.

It is started by `decoder`, isolated, and imports nothing but SimpleITK and numpy from the folders it is told. A request
is a length (8 bytes) and that many bytes; an answer is numpy's name of the type (8 bytes, empty: it cannot be decoded),
a length and the pixels.

It works in a private folder, its current one, and removes it when its parent ends, even where the parent was killed
and even in the middle of a frame.
"""

import importlib
import json
import os
import shutil
import struct
import sys
import threading
import time
from typing import Any

MEMORY = 2 << 30  # bytes of address space; the libraries take a third of it, the largest frame less than another


def main() -> None:
    threading.Thread(target=_follow, args=(os.getppid(),), daemon=True).start()
    sys.path += json.loads(sys.argv[1])
    if os.name == "posix":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sitk: Any = importlib.import_module("SimpleITK")
    sitk.ProcessObject.GlobalWarningDisplayOff()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    while len(head := requests.read(8)) == 8:
        document = requests.read(struct.unpack("<Q", head)[0])
        kind, pixels = decoded(document, sitk)
        answers.write(struct.pack("<8sQ", kind, len(pixels)))
        answers.write(pixels)
        answers.flush()
    _end()


def _follow(parent: int) -> None:
    """Ends the process once it has another parent."""
    while os.getppid() == parent:
        time.sleep(0.2)
    _end()


def _end() -> None:
    shutil.rmtree(os.getcwd(), ignore_errors=True)
    os._exit(0)


def decoded(document: bytes, sitk: Any) -> tuple[bytes, bytes]:
    """Type and pixels of the frame, both empty where there are none. The file lives no longer than its reading."""
    path = "frame.dcm"
    try:
        with open(path, "wb") as stream:
            stream.write(document)
        reader = sitk.ImageFileReader()
        reader.SetImageIO("GDCMImageIO")
        reader.SetFileName(path)
        array = sitk.GetArrayFromImage(reader.Execute())  # a copy: a view would not keep the image alive
        return array.dtype.str.encode(), array.tobytes()
    except (RuntimeError, MemoryError, OSError):
        return b"", b""
    finally:
        if os.path.exists(path):
            os.unlink(path)


if __name__ == "__main__":
    main()
