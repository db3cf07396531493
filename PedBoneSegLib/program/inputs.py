"""What identifies an input: its name, and a hash that changes when it does."""

import hashlib
import os
from pathlib import Path

from ..formats.names import split_name


def case_name(source: Path) -> str:
    """An input's name without the ending of its format; for a DICOM folder the folder's name."""
    place = Path(os.path.realpath(source))
    stem, suffix = split_name(place)
    return stem if suffix else place.stem


def input_identity(source: Path) -> str:
    """A hash of the names, sizes and times of an input's files. It changes when the input does, and reveals no name."""
    files = sorted(path for path in source.iterdir() if path.is_file()) if source.is_dir() else [source]
    digest = hashlib.sha256()
    for path in files:
        stat = path.stat()
        digest.update(f"{path.name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
