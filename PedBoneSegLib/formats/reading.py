"""Files and folders in, a checked `Volume` out."""

import bz2
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..errors import BadInput
from ..volume import Notice, Volume
from . import dicom, metaimage, nifti, nrrd
from .header import Header, choose_frame
from .names import INPUT_SUFFIXES, OUTPUT_TAG, split_name

_CHUNK = 1 << 20
_PARSERS = {".nii": nifti, ".nii.gz": nifti, ".nrrd": nrrd, ".seg.nrrd": nrrd, ".nhdr": nrrd} | dict.fromkeys(
    (".mha", ".mhd"), metaimage
)
_MOST_DEFLATED = 1040  # zlib cannot shrink anything further than 1:1032


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
    return [
        entry
        for entry in sorted(Path(folder).iterdir())
        if not entry.name.startswith(".") and (_is_volume_file(entry) if entry.is_file() else is_dicom_series(entry))
    ]


def read_header(path: Path) -> Header:
    """The checked header of a NIfTI, NRRD or MetaImage file, the format told by its name."""
    try:
        if path.stat().st_size == 0:
            raise BadInput(f"{path.name} is empty", "copy or export it again")
        header = _PARSERS[split_name(path)[1]].parse(path)
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror or error}", "check the path and its rights") from error
    except (struct.error, zlib.error, ValueError, KeyError, IndexError, OverflowError, MemoryError) as error:
        raise BadInput(f"{path.name} has a damaged header ({error})", "copy or export it again") from error
    if header.frames < 1:
        raise BadInput(f"{path.name} has no voxels", "export the image again")
    header.grid.check(path.name)
    return header


def read_voxels(path: Path, header: Header, frame: int = 0) -> np.ndarray:
    """One frame's voxels [i, j, k] in the machine's byte order, scaled where the header says so."""
    count = int(np.prod(header.grid.size, dtype=object)) * (header.frames if header.interleaved else 1)
    wanted = count * header.dtype.itemsize
    skip = header.skip + (0 if header.interleaved else frame * wanted)
    try:
        size = header.data.stat().st_size
        start = size - wanted * (1 if header.interleaved else header.frames) if header.start < 0 else header.start
        limit = size - start if header.codec == "raw" else size * _MOST_DEFLATED
        if start < 0 or (skip + wanted > limit and header.codec != "bzip2"):
            raise EOFError
        buffer = bytearray(wanted)
        with open(header.data, "rb") as stream:
            stream.seek(start)
            if header.codec == "deflate":
                _inflate(stream, skip, memoryview(buffer), last=frame == header.frames - 1)
            else:
                plain = bz2.open(stream) if header.codec == "bzip2" else stream
                plain.seek(skip + (start if plain is stream else 0))
                if plain.readinto(buffer) < wanted:
                    raise EOFError
    except EOFError:
        raise BadInput(f"{path.name} is truncated: voxels are missing", "copy or export it again") from None
    except zlib.error as error:
        raise BadInput(f"{path.name} is damaged ({error})", "copy or export it again") from error
    except OSError as error:
        fault = f"{path.name}: the voxels in {header.data.name} cannot be read: {error.strerror or error}"
        raise BadInput(fault, "copy or export it again") from error
    except (MemoryError, OverflowError):
        raise BadInput(f"{path.name} says it holds {wanted:,} bytes, more than fits", "crop or resample it") from None
    array = np.frombuffer(buffer, header.dtype)
    if header.interleaved:
        array = array.reshape((header.frames, *header.grid.size), order="F")[frame]
    array = array.reshape(header.grid.size, order="F").astype(header.dtype.newbyteorder("="), order="F", copy=False)
    if (header.slope, header.intercept) != (1.0, 0.0):
        array = array.astype(np.float64 if array.dtype.itemsize > 2 else np.float32, order="F")
        array *= header.slope
        array += header.intercept
    return array


def _inflate(stream: BinaryIO, skip: int, view: memoryview, last: bool) -> None:
    """Fills `view` from zlib or gzip data (of any number of members) after `skip` bytes; checks the checksum at the
    end of the `last` frame."""
    engine, pending = zlib.decompressobj(47), b""
    while True:
        pending = pending or stream.read(_CHUNK)
        if engine.eof:
            if not view:
                return
            engine = zlib.decompressobj(47)
        piece = engine.decompress(pending, _CHUNK)
        if not piece and not pending and not engine.eof:
            raise EOFError
        pending = engine.unused_data if engine.eof else engine.unconsumed_tail
        piece, skip = piece[skip:], max(0, skip - len(piece))
        taken = min(len(piece), len(view))
        view[:taken] = piece[:taken]
        view = view[taken:]
        if not view and (not last or len(piece) > taken):
            return


def _replace_non_finite(volume: Volume, name: str) -> None:
    if volume.array.dtype.kind != "f":
        return
    finite = np.isfinite(volume.array)
    count = finite.size - np.count_nonzero(finite)
    if count == finite.size:
        raise BadInput(f"{name} holds no finite voxel", "export the image again")
    if count:
        volume.array = np.where(finite, volume.array, volume.array.min(where=finite, initial=np.inf))
        message = f"{count} voxels of {name} are not finite (NaN or infinite) and were read as the darkest value"
        volume.warnings.append(Notice("non-finite", message))


def _is_volume_file(path: Path) -> bool:
    stem, suffix = split_name(path)
    return suffix in INPUT_SUFFIXES and suffix != ".seg.nrrd" and not stem.endswith(OUTPUT_TAG)
