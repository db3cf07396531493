"""The elements of a DICOM file that matter to a volume.

Our own walk goes from element to element as far as the pixels, keeps the few that are wanted, and passes over all
others, the patient's name among them. Depth, number and lengths are bounded, of unwanted and private ones too.
"""

import os
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from ...errors import BadInput
from ..opening import open_regular

_TAGS = {
    0x00020010: "syntax", 0x00080060: "modality", 0x0020000E: "series", 0x00180024: "sequence",
    0x00189005: "pulse_sequence", 0x00200060: "laterality", 0x00200062: "image_laterality",
    0x00209072: "frame_laterality", 0x00200013: "instance", 0x00200032: "position", 0x00200037: "orientation",
    0x00280030: "spacing", 0x00180050: "thickness", 0x00180088: "gap", 0x00280010: "rows", 0x00280011: "columns",
    0x00280008: "frames", 0x00280002: "samples", 0x00280004: "photometric", 0x00280100: "allocated",
    0x00280101: "stored", 0x00280102: "high_bit", 0x00280103: "signed", 0x00281052: "intercept", 0x00281053: "slope",
}  # fmt: skip
_NESTED = {
    0x52009229: "shared", 0x52009230: "per_frame", 0x00209113: "plane_position", 0x00209116: "plane_orientation",
    0x00289110: "pixel_measures", 0x00209071: "frame_anatomy", 0x00289145: "pixel_transformation",
}  # fmt: skip
_SHORTS = {"rows", "columns", "samples", "allocated", "stored", "high_bit", "signed"}  # 16-bit numbers, not text
_PIXELS, _FLOAT_PIXELS = 0x7FE00010, 0x7FE00008
_ITEM, _END_OF_ITEM, _END_OF_SEQUENCE, _UNDEFINED = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD, 0xFFFFFFFF
_LONG = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}

_DEEPEST = 32  # sequences within sequences; an MR image has four
_MOST_ELEMENTS = 2_000_000  # an enhanced MR image of 10,000 frames has a third
_LONGEST_VALUE = 4096  # bytes of a wanted element

IMPLICIT, EXPLICIT, BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
_DEFLATED = "1.2.840.10008.1.2.1.99"

Elements = dict[str, "bytes | list[Elements]"]


@dataclass
class DicomFile:
    """The wanted elements of one file by our own names: bytes, or a list of such dictionaries for a nested one; and
    where its pixels are, in one piece or, compressed, in several."""

    path: Path
    syntax: str = IMPLICIT
    elements: Elements = field(default_factory=dict)
    shared: Elements = field(default_factory=dict)  # the functional groups of all frames, those within them included
    per_frame: list[Elements] = field(default_factory=list)
    pieces: list[tuple[int, int]] = field(default_factory=list)  # first byte and length
    offsets: tuple[int, ...] = ()  # of each frame's first piece, from the first one; maybe not given

    @property
    def order(self) -> str:
        return ">" if self.syntax == BIG_ENDIAN else "<"

    @property
    def is_compressed(self) -> bool:
        return self.syntax not in (IMPLICIT, EXPLICIT, BIG_ENDIAN)

    def frame(self, index: int) -> Elements:
        """What holds for one frame: its own elements, before those of all frames, before the file's."""
        return {**self.elements, **self.shared, **(self.per_frame[index] if index < len(self.per_frame) else {})}

    def numbers(self, key: str, default: list[float], elements: Elements | None = None) -> list[float]:
        """The numbers of an element; the default where it is absent or empty. ValueError where it holds others."""
        raw = value_of(self.elements if elements is None else elements, key)
        if key in _SHORTS:
            return [float(struct.unpack(self.order + "H", raw)[0])] if raw else default
        return [float(part) for part in text_of({key: raw}, key).split("\\") if part.strip()] or default


def is_dicom(path: Path) -> bool:
    try:
        with open_regular(path) as stream:
            return stream.read(132)[128:] == b"DICM"
    except (BadInput, OSError):
        return False


def read_elements(path: Path) -> DicomFile:
    """Walks through a file. BadInput for one that is damaged, or stored in a way that is not read."""
    with open_regular(path) as stream:
        try:
            return _read(path, stream)
        except (struct.error, ValueError, OverflowError, OSError, zlib.error) as error:
            raise BadInput(f"{path.name} is a damaged DICOM file ({error})", "copy or export it again") from error


def text_of(elements: Elements, *keys: str) -> str:
    """The first of these that is there; empty where none is."""
    texts = (value_of(elements, key).decode("latin-1").strip("\0 ") for key in keys)
    return next((text for text in texts if text), "")


def value_of(elements: Elements, key: str) -> bytes:
    value = elements.get(key, b"")
    return value if isinstance(value, bytes) else b""


# ---- the walk --------------------------------------------------------------------------------------------------------


def _read(path: Path, stream: BinaryIO) -> DicomFile:
    size = os.fstat(stream.fileno()).st_size
    stream.seek(132)
    head = stream.read(12)
    meta = _Walk(stream, "<", explicit=True)
    if head[:4] == b"\2\0\0\0":  # the length of the file's meta information, which is always explicit
        start = 144 + struct.unpack("<I", head[8:12])[0]
        if start > size:
            raise ValueError("it is truncated")
        found = DicomFile(path, text_of(meta.elements(132, start)[0], "syntax"))
    else:
        start, found = 132, DicomFile(path)
    if found.syntax == _DEFLATED:
        raise BadInput(f"{path.name} is stored in a way that is not read ({found.syntax})", "export it uncompressed")
    walk = _Walk(stream, found.order, explicit=found.syntax != IMPLICIT)
    found.elements, _ = walk.elements(start, size)
    found.pieces, found.offsets = walk.pieces, walk.offsets
    groups = {key: found.elements.pop(key, []) for key in ("shared", "per_frame")}
    shared, per_frame = ([_flat(item) for item in items if isinstance(item, dict)] for items in groups.values())
    found.shared, found.per_frame = (shared or [{}])[0], per_frame
    return found


class _Walk:
    """Reads elements and counts them; what is behind the bounds ends it with ValueError."""

    def __init__(self, stream: BinaryIO, order: str, explicit: bool) -> None:
        self._stream, self._order, self._explicit = stream, order, explicit
        self._left = _MOST_ELEMENTS
        self.pieces: list[tuple[int, int]] = []
        self.offsets: tuple[int, ...] = ()

    def elements(self, at: int, end: int, explicit: bool | None = None, depth: int = 0) -> tuple[Elements, int]:
        """The wanted elements from `at` to `end`, or to the end of an item; and the byte after them."""
        explicit = self._explicit if explicit is None else explicit
        found: Elements = {}
        if depth > _DEEPEST:
            raise ValueError("its sequences are nested too deep")
        while at + 8 <= end:
            tag, kind, length, at = self._head(at, explicit)
            if tag == _END_OF_ITEM and depth:
                return found, at
            if tag >> 16 == 0xFFFE:
                raise ValueError("an item is out of place")
            name = _TAGS.get(tag) or _NESTED.get(tag)
            if name in found:
                raise ValueError(f"{name} stands there twice")
            stop = end if length == _UNDEFINED else at + length
            if stop > end:
                raise ValueError("it is truncated")
            if tag >= _FLOAT_PIXELS and not depth:  # the pixels are the last to be looked at
                if tag == _PIXELS and length == _UNDEFINED:
                    self.pieces, self.offsets, at = self._compressed(at, end)
                elif tag == _PIXELS:
                    self.pieces = [(at, length)]
                return found, at
            if tag == _PIXELS and length == _UNDEFINED:  # an icon's
                at = self._compressed(at, end)[-1]
                continue
            if tag in _NESTED or length == _UNDEFINED:
                # what is unknown (UN) is stored implicitly, whatever is around it
                items, at = self._items(at, stop, explicit and kind != b"UN", depth, length == _UNDEFINED)
                if tag in _NESTED:
                    found[_NESTED[tag]] = items
                continue
            if tag in _TAGS:
                if length > _LONGEST_VALUE:
                    raise ValueError(f"{name} is too long")
                found[_TAGS[tag]] = self._bytes(at, length)
            at = stop
        if depth and at != end:
            raise ValueError("an item is cut off")
        return found, at

    def _head(self, at: int, explicit: bool) -> tuple[int, bytes, int, int]:
        """Tag, kind of value, length, and the byte after them."""
        self._left -= 1
        if self._left < 0:
            raise ValueError("it has too many elements")
        raw = self._bytes(at, 8)
        group, element, length = struct.unpack(self._order + "HHI", raw)
        if not explicit or group == 0xFFFE:
            return group << 16 | element, b"", length, at + 8
        kind = raw[4:6]
        if kind in _LONG:
            return group << 16 | element, kind, struct.unpack(self._order + "I", self._bytes(at + 8, 4))[0], at + 12
        return group << 16 | element, kind, struct.unpack(self._order + "H", raw[6:])[0], at + 8

    def _items(self, at: int, end: int, explicit: bool, depth: int, is_open: bool) -> tuple[list[Elements], int]:
        """A sequence's items. One without a length (`is_open`) ends with a delimiter."""
        items: list[Elements] = []
        while at + 8 <= end:
            tag, _, length, at = self._head(at, False)
            if tag == _END_OF_SEQUENCE and is_open:
                return items, at
            if tag != _ITEM:
                raise ValueError("a sequence has something other than items")
            stop = end if length == _UNDEFINED else at + length
            if stop > end:
                raise ValueError("an item is longer than its sequence")
            item, after = self.elements(at, stop, explicit, depth + 1)
            if length != _UNDEFINED and after != stop:
                raise ValueError("an item ends before its length does")
            items.append(item)
            at = after
        if is_open or at != end:
            raise ValueError("a sequence is cut off")
        return items, at

    def _compressed(self, at: int, end: int) -> tuple[list[tuple[int, int]], tuple[int, ...], int]:
        """The pieces of compressed pixels, the table of their frames, and the byte after them."""
        table: tuple[int, ...] | None = None  # the first item says where each frame begins, or is empty
        pieces: list[tuple[int, int]] = []
        while at + 8 <= end:
            tag, _, length, at = self._head(at, False)
            if tag == _END_OF_SEQUENCE:
                return pieces, table or (), at
            if tag != _ITEM or at + length > end or (table is None and length > 4 * _MOST_ELEMENTS):
                break
            if table is None:
                table = struct.unpack(f"{self._order}{length // 4}I", self._bytes(at, length // 4 * 4))
            else:
                pieces.append((at, length))
            at += length
        raise ValueError("its compressed pixels are cut off")

    def _bytes(self, at: int, count: int) -> bytes:
        self._stream.seek(at)
        data = self._stream.read(count)
        if len(data) < count:
            raise ValueError("it is truncated")
        return data


def _flat(item: Elements) -> Elements:
    """A functional group's elements, those of its nested sequences (of one item each) included."""
    flat: Elements = {}
    for key, value in item.items():
        if isinstance(value, list):
            flat |= _flat(value[0]) if value else {}
        elif value:
            flat[key] = value
    return flat
