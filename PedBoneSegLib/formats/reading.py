"""Files and folders in, a checked `Volume` out."""

import struct
import zlib
from gzip import BadGzipFile
from pathlib import Path

import numpy as np

from ..errors import BadInput
from ..volume import Notice, Volume
from . import dicom, metaimage, nifti, nrrd
from .header import Header, choose_frame
from .names import INPUT_SUFFIXES, OUTPUT_TAG, split_name

_PARSERS = {".nii": nifti, ".nii.gz": nifti, ".nrrd": nrrd, ".seg.nrrd": nrrd, ".nhdr": nrrd} | dict.fromkeys(
    (".mha", ".mhd"), metaimage
)


def read_volume(path: str | Path, series: str | None = None, frame: int | None = None) -> Volume:
    """Reads a file, or a folder that is a DICOM series; whatever gives no single plain volume raises BadInput.

    `series` is the UID of one of several DICOM series, `frame` counts from 0 and is needed where there are several.
    NaN and infinite voxels become the darkest value, with a warning.
    """
    path = Path(path)
    if not path.exists():
        raise BadInput(f"{path}: there is no such file or folder", "check the path")
    suffix = split_name(path)[1]
    if path.is_dir():
        volume = dicom.read_series(path, series, frame)
    elif suffix in INPUT_SUFFIXES:
        if series is not None:
            raise BadInput(f"{path.name} is no DICOM folder", "leave out --series")
        header = read_header(path)
        chosen = choose_frame(path.name, header.frames, frame)
        volume = Volume(read_voxels(path, header, chosen), header.grid, split_name(path)[0])
    elif dicom.is_dicom(path):
        volume = dicom.read_series(path, series, frame)
    elif path.stat().st_size == 0:
        raise BadInput(f"{path.name} is empty", "copy or export it again")
    else:
        raise BadInput(f"{path.name} is not a volume", "give a NIfTI, NRRD or MetaImage file or a DICOM folder")
    _replace_non_finite(volume, path.name)
    return volume


def is_dicom_series(folder: str | Path) -> bool:
    """Is this folder one input (it holds DICOM images itself), rather than a batch of inputs?"""
    folder = Path(folder)
    return folder.is_dir() and any(dicom.is_dicom(entry) for entry in sorted(folder.iterdir()))


def find_inputs(folder: str | Path) -> list[Path]:
    """A batch folder's inputs by name: the volumes in it and its subfolders of DICOM images; results are left out."""
    return [entry for entry in sorted(Path(folder).iterdir()) if not entry.name.startswith(".") and _is_input(entry)]


def read_header(path: Path) -> Header | nrrd.Nrrd:
    """The checked header of a NIfTI, NRRD or MetaImage file, the format told by its name."""
    try:
        if path.stat().st_size == 0:
            raise BadInput(f"{path.name} is empty", "copy or export it again")
        header = _PARSERS[split_name(path)[1]].parse(path)
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror or error}", "check the path and its rights") from error
    except (struct.error, zlib.error, ValueError, LookupError, OverflowError, MemoryError) as error:
        raise BadInput(f"{path.name} has a damaged header ({error})", "copy or export it again") from error
    if header.frames < 1:
        raise BadInput(f"{path.name} has no voxels", "export the image again")
    header.grid.check(path.name)
    return header


def read_voxels(path: Path, header: Header | nrrd.Nrrd, frame: int = 0) -> np.ndarray:
    """One frame's voxels [i, j, k] in the machine's byte order, scaled where the header says so."""
    try:
        return header.voxels(frame)
    except EOFError:
        raise BadInput(f"{path.name} is truncated: voxels are missing", "copy or export it again") from None
    except (zlib.error, BadGzipFile, RuntimeError) as error:
        fault = nrrd.reason(error) if isinstance(error, RuntimeError) else error
        raise BadInput(f"{path.name} is damaged or truncated ({fault})", "copy or export it again") from error
    except OSError as error:
        fault = f"{path.name}: the voxels in {header.data.name} cannot be read: {error.strerror or error}"
        raise BadInput(fault, "copy or export it again") from error
    except (MemoryError, OverflowError):
        raise BadInput(f"{path.name} says it holds more than fits into memory", "crop or resample it") from None


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
    except OSError:  # a folder that may not be read: its fault is told when it is that input's turn
        return True


def _is_volume_file(path: Path) -> bool:
    stem, suffix = split_name(path)
    return suffix in INPUT_SUFFIXES and suffix != ".seg.nrrd" and not stem.endswith(OUTPUT_TAG)
