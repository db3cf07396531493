"""The pixels of DICOM frames. What a file says of them is compared with the bytes that are there before any is used:
every pixel that is returned was read from the file.

Uncompressed and run-length encoded frames are read here. JPEG, JPEG-LS and JPEG 2000 are decoded in another process,
which sees nothing of the file but the compressed frame.
"""

import re
import struct
from collections import defaultdict
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from ...errors import BadInput
from ..header import check_voxels
from ..opening import open_regular
from . import decoder
from .elements import BIG_ENDIAN, DicomFile, text_of

_RLE = "1.2.840.10008.1.2.5"
_JPEG_LS = ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81")
_JPEG = tuple(f"1.2.840.10008.1.2.4.{number}" for number in (50, 51, 57, 70))
_JPEG_2000 = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")
_MOST_COMPRESSED = 4096 * 4096  # pixels of a JPEG or JPEG 2000 frame, for which a decoder takes some 200 MB
_MOST_TILES = 4096  # of a JPEG 2000 frame


@dataclass(frozen=True)
class PixelForm:
    """How the pixels of a file are stored."""

    rows: int
    columns: int
    allocated: int  # bits
    stored: int
    high_bit: int
    is_signed: bool
    is_inverted: bool  # the highest number is the darkest

    @property
    def frame_bytes(self) -> int:
        return self.rows * self.columns * self.allocated // 8

    @property
    def limits(self) -> tuple[int, int]:
        """The lowest and the highest number that can be stored."""
        return (-(1 << self.stored - 1), (1 << self.stored - 1) - 1) if self.is_signed else (0, (1 << self.stored) - 1)

    def dtype(self, order: str = "=") -> np.dtype:
        return np.dtype(f"{order}{'i' if self.is_signed else 'u'}{self.allocated // 8}")


def pixel_form(file: DicomFile) -> PixelForm:
    """ValueError where the elements do not fit each other."""
    rows, columns, allocated = (int(file.numbers(key, [0])[0]) for key in ("rows", "columns", "allocated"))
    stored = int(file.numbers("stored", [allocated])[0])
    high_bit, signed = int(file.numbers("high_bit", [stored - 1])[0]), int(file.numbers("signed", [0])[0])
    if allocated not in (8, 16, 32) or not 1 <= stored <= high_bit + 1 <= allocated or signed > 1:
        raise ValueError(f"its pixels have {stored} bits in {allocated}")
    if file.syntax == BIG_ENDIAN and allocated == 8:
        raise ValueError("its pixels are 8-bit numbers, the highest byte first")
    is_inverted = text_of(file.elements, "photometric") == "MONOCHROME1"
    return PixelForm(rows, columns, allocated, stored, high_bit, bool(signed), is_inverted)


def count_frames(file: DicomFile) -> int:
    """The number of frames that the file says it has. ValueError where its pixels cannot be as many."""
    form, count = pixel_form(file), int(file.numbers("frames", [1])[0])
    if not file.pieces:
        raise ValueError("it has no pixels that can be read")
    if file.is_compressed:
        if not 1 <= count <= len(file.pieces):
            raise ValueError(f"it says it has {count} frames and has {len(file.pieces)}")
        return count
    wanted = count * form.frame_bytes
    if len(file.pieces) != 1 or count < 1 or file.pieces[0][1] not in (wanted, wanted + wanted % 2):
        length = sum(length for _, length in file.pieces)
        raise ValueError(f"its pixels are {length} bytes long where {wanted} are expected")
    return count


def read_frames(places: list[tuple[DicomFile, int]], name: str, max_voxels: int) -> np.ndarray:
    """Frames (file, index) of one size as an array [i, j, k] in their order, scaled where the files say so."""
    forms = {id(file): pixel_form(file) for file, _ in places}
    form = forms[id(places[0][0])]
    check_voxels(name, form.columns * form.rows * len(places), max_voxels)
    scales = [_scale(file, index) for file, index in places]
    is_scaled = any(scale != (1.0, 0.0) for scale in scales)
    dtype = np.result_type(*{form.dtype() for form in forms.values()})
    if is_scaled:
        dtype = _scaled_type([forms[id(file)] for file, _ in places], scales)
    by_file: dict[int, list[int]] = defaultdict(list)
    for k, (file, _) in enumerate(places):
        by_file[id(file)].append(k)
    try:
        array = np.empty((form.columns, form.rows, len(places)), dtype, order="F")
        for numbers in by_file.values():
            file = places[numbers[0]][0]
            with open_regular(file.path) as stream:
                for k in numbers:
                    plane = _read_frame(stream, file, places[k][1], forms[id(file)])
                    array[:, :, k] = plane.T if not is_scaled else plane.T * scales[k][0] + scales[k][1]
    except (ValueError, struct.error, OSError) as error:
        fault = f"{file.path.name} of {name} is a damaged DICOM file ({error})"
        raise BadInput(fault, "copy or export it again") from error
    except MemoryError:
        raise BadInput(f"{name} holds more than fits into memory", "crop or resample it") from None
    return array


def _scale(file: DicomFile, index: int) -> tuple[float, float]:
    elements = file.frame(index)
    slope, intercept = (file.numbers(key, [value], elements)[0] for key, value in (("slope", 1.0), ("intercept", 0.0)))
    if not np.isfinite([slope, intercept]).all():
        raise BadInput(f"{file.path.name} has a rescale slope that is not a number", "export it again")
    return slope or 1.0, intercept


def _scaled_type(forms: list[PixelForm], scales: list[tuple[float, float]]) -> np.dtype:
    """Whole numbers stay whole, in the smallest type that holds all that can come out; others are doubles."""
    if not all(number.is_integer() for scale in scales for number in scale):
        return np.dtype(np.float64)
    ends = [value * slope + intercept for form, (slope, intercept) in zip(forms, scales, strict=True)
            for value in form.limits]  # fmt: skip
    for kind in map(np.dtype, ("u2", "i2", "i4")):
        if np.iinfo(kind).min <= min(ends) and max(ends) <= np.iinfo(kind).max:
            return kind
    return np.dtype(np.float64)


def _read_frame(stream: BinaryIO, file: DicomFile, index: int, form: PixelForm) -> np.ndarray:
    """One frame [j, i] in the machine's byte order."""
    if not file.is_compressed:
        data = _bytes(stream, file.pieces[0][0] + index * form.frame_bytes, form.frame_bytes)
        plane = np.frombuffer(data, form.dtype(file.order)).astype(form.dtype())
    else:
        pieces = _pieces_of(file, index)
        data = b"".join(_bytes(stream, at, length) for at, length in pieces)
        if file.syntax == _RLE:
            plane = _run_length_decoded(data, form)
        else:
            _check_compressed(file.syntax, data, form)
            plane = decoder.decode(file.syntax, data, form)
    plane = _stored_bits(plane, form)
    if form.is_inverted:
        plane = ~plane if form.is_signed else plane ^ plane.dtype.type((1 << form.stored) - 1)
    return plane.reshape(form.rows, form.columns)


def _bytes(stream: BinaryIO, at: int, count: int) -> bytes:
    stream.seek(at)
    data = stream.read(count)
    if len(data) < count:
        raise ValueError("it is truncated: pixels are missing")
    return data


def _stored_bits(plane: np.ndarray, form: PixelForm) -> np.ndarray:
    """The pixels without the bits that are not theirs (old overlays), the sign carried on."""
    if form.stored == form.allocated:
        return plane
    return (plane << (form.allocated - 1 - form.high_bit)) >> (form.allocated - form.stored)


def _pieces_of(file: DicomFile, index: int) -> list[tuple[int, int]]:
    """The pieces of one compressed frame. ValueError where it is not told which they are."""
    count = count_frames(file)
    if count == len(file.pieces):
        return [file.pieces[index]]
    if count == 1:
        return file.pieces
    starts = {at - file.pieces[0][0]: number for number, (at, _) in enumerate(file.pieces)}
    if len(file.offsets) != count or not starts.keys() >= set(file.offsets) or file.offsets[0] != 0:
        raise ValueError("it does not say which piece belongs to which frame")
    first = starts[file.offsets[index]]
    after = starts[file.offsets[index + 1]] if index + 1 < count else len(file.pieces)
    if after <= first:
        raise ValueError("its table of frames is out of order")
    return file.pieces[first:after]


# ---- run lengths -----------------------------------------------------------------------------------------------------


def _run_length_decoded(data: bytes, form: PixelForm) -> np.ndarray:
    """A frame of the RLE syntax: a segment for each byte of the pixels, the highest first."""
    size = form.allocated // 8
    count, *offsets = struct.unpack_from("<16I", data)
    if count != size or offsets[0] != 64 or sorted(offsets[:size]) != offsets[:size]:
        raise ValueError("its table of run lengths is damaged")
    planes = np.empty((form.rows * form.columns, size), np.uint8)
    for number, (start, stop) in enumerate(zip(offsets[:size], [*offsets[1:size], len(data)], strict=True)):
        planes[:, number] = np.frombuffer(_runs(data[start:stop], len(planes)), np.uint8)
    return planes.view(form.dtype(">"))[:, 0].astype(form.dtype())


def _runs(segment: bytes, size: int) -> bytearray:
    """`size` bytes out of runs and literals."""
    unpacked, at = bytearray(), 0
    while len(unpacked) < size and at < len(segment):
        head = segment[at]
        if head < 128:
            unpacked += segment[at + 1 : at + 2 + head]
            at += 2 + head
        else:
            unpacked += segment[at + 1 : at + 2] * (257 - head if head > 128 else 0)
            at += 2 if head > 128 else 1
    if len(unpacked) != size:
        raise ValueError(f"its run lengths give {len(unpacked)} bytes where {size} are expected")
    return unpacked


# ---- what is looked at before another process decodes it -------------------------------------------------------------


def _check_compressed(syntax: str, data: bytes, form: PixelForm) -> None:
    """ValueError unless the compressed frame says of itself what the file says of it, and comes to an end."""
    if form.rows * form.columns > _MOST_COMPRESSED:
        raise ValueError(f"its compressed frames are of more than {_MOST_COMPRESSED:,} pixels")
    data = data.rstrip(b"\0")
    if syntax in _JPEG_2000:
        said = _jpeg_2000_form(data)
    elif syntax in (*_JPEG, *_JPEG_LS):
        said = _jpeg_form(data, rb"\xff[\x80-\xcf\xd8-\xfe]" if syntax in _JPEG_LS else rb"\xff[^\x00\xd0-\xd7\xff]")
    else:
        raise ValueError(f"its compression {syntax} is not known")
    rows, columns, bits = said
    if (rows, columns) != (form.rows, form.columns) or not form.stored <= bits <= form.allocated:
        raise ValueError(f"its compressed pixels are {columns} × {rows} of {bits} bits")


def _jpeg_form(data: bytes, marker: bytes) -> tuple[int, int, int]:
    """Rows, columns and bits of a JPEG or JPEG-LS image of one component; `marker` tells a marker among its pixels."""
    at, form = 2, None
    if data[:2] != b"\xff\xd8":
        raise ValueError("its compressed pixels are no JPEG")
    while data[at : at + 2] != b"\xff\xd9":
        if at + 4 > len(data) or data[at] != 0xFF:
            raise ValueError("its compressed pixels are cut off")
        code, length = struct.unpack_from(">xBH", data, at)
        if 0xC0 <= code <= 0xCF and code not in (0xC4, 0xC8, 0xCC) or code == 0xF7:
            bits, rows, columns, components = struct.unpack_from(">BHHB", data, at + 4)
            if form or components != 1:
                raise ValueError("its compressed pixels are no gray-level image")
            form = rows, columns, bits
        at += 2 + length
        if code == 0xDA:  # the pixels follow, up to the next marker
            if not (found := re.compile(marker, re.DOTALL).search(data, at)):
                raise ValueError("its compressed pixels are cut off")
            at = found.start()
    if not form:
        raise ValueError("its compressed pixels have no size")
    return form


def _jpeg_2000_form(data: bytes) -> tuple[int, int, int]:
    """Rows, columns and bits of a JPEG 2000 codestream of one component."""
    if data[:4] != b"\xff\x4f\xff\x51" or data[-2:] != b"\xff\xd9":
        raise ValueError("its compressed pixels are no whole JPEG 2000 codestream")
    right, bottom, left, top, width, height, tiles_left, tiles_top = struct.unpack_from(">8I", data, 8)
    components, depth, across, down = struct.unpack_from(">H3B", data, 40)
    if components != 1 or (across, down) != (1, 1) or not (width and height):
        raise ValueError("its compressed pixels are no gray-level image")
    if -(-(right - tiles_left) // width) * -(-(bottom - tiles_top) // height) > _MOST_TILES:
        raise ValueError("its compressed pixels are in too many tiles")
    return bottom - top, right - left, (depth & 0x7F) + 1
