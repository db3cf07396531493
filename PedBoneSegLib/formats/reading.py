"""Files and folders in, a checked `Volume` out."""

import struct
import zlib
from pathlib import Path

import numpy as np

from ..errors import BadInput
from ..volume import Notice, Volume
from . import dicom
from .header import MAX_VOXELS, Header, choose_frame
from .names import OUTPUT_TAG, SEGMENTATION_SUFFIX, split_name
from .opening import open_regular, reason
from .registry import format_of

_MOST_FRAMES = 1_000_000
_LONGEST_SKIP = 1 << 26  # bytes between a packed file's beginning and its voxels: header, extensions


@np.errstate(all="ignore")  # what is not finite is looked at here, and numpy would print lines of its own
def read_volume(
    path: str | Path, series: str | None = None, frame: int | None = None, max_voxels: int | None = None
) -> Volume:
    """Reads a file, or a folder that is a DICOM series; whatever gives no single plain volume raises BadInput.

    `series` is the UID of one of several DICOM series, `frame` counts from 0 and is needed where there are several.
    A volume of more than `max_voxels` voxels (by default `header.MAX_VOXELS`) is refused before its voxels are read.
    NaN and infinite voxels become the darkest value, with a warning.
    """
    path, limit = Path(path), MAX_VOXELS if max_voxels is None else max_voxels
    stem, suffix = split_name(path)
    if _is_folder(path):
        volume = dicom.read_series(path, series, frame, limit)
    elif suffix:
        if series is not None:
            raise BadInput(f"{path.name} is no DICOM folder", "leave out --series")
        header = read_header(path)
        chosen = choose_frame(path.name, header.frames, frame)
        volume = Volume(header.read(path.name, chosen, limit), header.grid, stem)
    elif dicom.is_dicom(path):
        volume = dicom.read_series(path, series, frame, limit)
    else:
        with open_regular(path) as stream:
            if not stream.read(1):
                raise BadInput(f"{path.name} is empty", "copy or export it again")
        raise BadInput(f"{path.name} is not a volume", "give a NIfTI, NRRD or MetaImage file or a DICOM folder")
    _replace_non_finite(volume, path.name)
    return volume


def is_dicom_series(folder: str | Path) -> bool:
    """Is this folder one input (it holds DICOM images itself), rather than a batch of inputs?"""
    folder = Path(folder)
    return folder.is_dir() and any(dicom.is_dicom(entry) for entry in _entries(folder))


def find_inputs(folder: str | Path) -> list[Path]:
    """A batch folder's inputs by name: the volumes in it and its subfolders of DICOM images; results are left out."""
    return [entry for entry in _entries(Path(folder)) if not entry.name.startswith(".") and _is_input(entry)]


def read_header(path: Path) -> Header:
    """The checked header of a file whose name tells its format."""
    with open_regular(path) as stream:
        try:
            if not stream.read(1):
                raise BadInput(f"{path.name} is empty", "copy or export it again")
            stream.seek(0)
            header = format_of(split_name(path)[1]).read_header(path, stream)
        except OSError as error:
            raise BadInput(f"{path} cannot be read: {reason(error)}", "check the path and its rights") from error
        except (struct.error, zlib.error, ValueError, LookupError, OverflowError, MemoryError) as error:
            fault = f"there is no {error}" if isinstance(error, KeyError) else error
            raise BadInput(f"{path.name} has a damaged header ({fault})", "copy or export it again") from error
    if not 1 <= header.frames <= _MOST_FRAMES:
        raise BadInput(f"{path.name} says it has {header.frames} frames", "export the image again")
    if header.skip > _LONGEST_SKIP:
        raise BadInput(f"{path.name} says its voxels begin after {header.skip} bytes", "export the image again")
    header.grid.check(path.name)
    return header


def _is_folder(path: Path) -> bool:
    """Raises BadInput where there is nothing of that name, or where it cannot be told."""
    try:
        if not path.exists():
            raise BadInput(f"{path}: there is no such file or folder", "check the path")
        return path.is_dir()
    except (OSError, RuntimeError, ValueError) as error:  # too long a name, a folder without rights, links in a circle
        raise BadInput(f"{path} cannot be read: {reason(error)}", "check the path and its rights") from error


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise BadInput(f"{folder} cannot be read: {reason(error)}", "check the path and its rights") from error


def _replace_non_finite(volume: Volume, name: str) -> None:
    finite = np.isfinite(volume.array) if volume.array.dtype.kind == "f" else np.True_
    count = finite.size - np.count_nonzero(finite)
    if count == finite.size:
        raise BadInput(f"{name} holds no finite voxel", "export the image again")
    if count:
        volume.array = np.where(finite, volume.array, volume.array.min(where=finite, initial=np.inf))
        message = f"{count} voxels of {name} are not finite (NaN or infinite) and were read as the darkest value"
        volume.warnings.append(Notice("non-finite", message))


def _is_input(entry: Path) -> bool:
    try:
        return _is_volume_file(entry) if entry.is_file() else is_dicom_series(entry)
    except (BadInput, OSError):  # a folder that may not be read: its fault is told when it is that input's turn
        return True


def _is_volume_file(path: Path) -> bool:
    stem, suffix = split_name(path)
    return suffix not in ("", SEGMENTATION_SUFFIX) and not stem.endswith(OUTPUT_TAG)
