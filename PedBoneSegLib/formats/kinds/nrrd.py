"""NRRD, attached (.nrrd) and detached (.nhdr), and Slicer's segmentations (.seg.nrrd), whose key-value pairs
`segments` understands. Places are told as ITK tells them, which is what Slicer shows."""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ...errors import BadInput
from ...volume import Grid
from ..header import Header, refuse_channels, refuse_type
from ..opening import data_file, open_regular
from ..packing import packed_blocks, raw_blocks
from ..registry import Content, register

_LONGEST_HEADER = 4 << 20  # bytes; a segmentation's terminology entries take some hundred each
_MOST_LINES = 100_000
_TYPE_NAMES = {
    "i1": "signed char, int8, int8_t", "u1": "uchar, unsigned char, uint8, uint8_t",
    "i2": "short, short int, signed short, signed short int, int16, int16_t",
    "u2": "ushort, unsigned short, unsigned short int, uint16, uint16_t", "i4": "int, signed int, int32, int32_t",
    "u4": "uint, unsigned int, uint32, uint32_t",
    "i8": "longlong, long long, long long int, signed long long, signed long long int, int64, int64_t",
    "u8": "ulonglong, unsigned long long, unsigned long long int, uint64, uint64_t", "f4": "float", "f8": "double",
}  # fmt: skip
_TYPES = {name: code for code, names in _TYPE_NAMES.items() for name in names.split(", ")}
_CODECS = {"raw": "raw", "gzip": "gzip", "gz": "gzip", "bzip2": "bzip2", "bz2": "bzip2"}
_SPATIAL_KINDS = {"domain", "space", "time", "none", "???"}  # an axis that has no kind is "???"
_FRAME_KINDS = _SPATIAL_KINDS | {"list", "stub"}  # of an axis along which image follows image
_TO_LPS = {"left-posterior-superior": (1, 1, 1), "lps": (1, 1, 1), "right-anterior-superior": (-1, -1, 1),
           "ras": (-1, -1, 1), "left-anterior-superior": (1, -1, 1), "las": (1, -1, 1)}  # fmt: skip


class Nrrd:
    """Of the axes, two or three are in space; one more may count frames."""

    name = "NRRD"
    reads: tuple[str, ...] = (".nrrd", ".seg.nrrd", ".nhdr")
    writes: tuple[str, ...] = (".seg.nrrd", ".nrrd")

    def read_header(self, path: Path, stream: BinaryIO) -> Header:
        fields, keys, start = _read_lines(path, stream)
        count = int(fields["dimension"])
        if not 2 <= count <= 4:
            raise BadInput(f"{path.name} has {count} dimensions", "export one plain 3-D volume")
        axes = _axes(fields, count)
        in_space, frame_axis = _frame_axis(path, axes)
        if (kind := fields["type"].lower()) not in _TYPES:
            refuse_type(path, f"NRRD type {kind[:40]!r}")
        dtype = np.dtype(_TYPES[kind])
        if dtype.itemsize > 1:
            dtype = dtype.newbyteorder({"little": "<", "big": ">"}[fields["endian"].lower()])  # type: ignore[arg-type]
        if (encoding := fields["encoding"].lower()) not in _CODECS:
            raise BadInput(f"{path.name} stores its voxels as {encoding[:40]!r}", "save it with the encoding gzip")
        data = path
        if detached := fields.get("datafile", ""):
            data, start = data_file(path, detached), 0
        elif path.name.lower().endswith(".nhdr"):
            raise BadInput(f"{path.name} does not name the file with its voxels", "save the image again as one .nrrd")
        start = _skip_lines(data, start, int(fields.get("lineskip", "0")))
        skip = int(fields.get("byteskip", "0"))
        packed = _CODECS[encoding] != "raw"
        if skip < (0 if packed else -1):
            raise ValueError(f"byte skip is {skip}")
        return Header(
            _grid(fields, in_space),
            dtype,
            data,
            start=start if packed else -1 if skip < 0 else start + skip,
            codec=_CODECS[encoding],
            skip=skip if packed else 0,
            frames=1 if frame_axis is None else axes[frame_axis].size,
            frame_axis=3 if frame_axis is None else frame_axis,
            fields=keys,
        )

    def write(self, stream: BinaryIO, content: Content, suffix: str) -> None:
        stream.write(encode(content.grid, len(content.components), content.keys))
        for block in packed_blocks(raw_blocks(content.components, interleaved=True)):
            stream.write(block)


def encode(
    grid: Grid, components: int, keys: dict[str, str], kind: str = "unsigned char", encoding: str = "gzip"
) -> bytes:
    """A header for voxels, components fastest and the lowest byte first, as ITK and Slicer write it."""
    many = components > 1
    steps = ["none"] * many + [_vector(step) for step in grid.affine[:3, :3].T]
    lines = [
        "NRRD0004",
        f"type: {kind}",
        f"dimension: {3 + many}",
        "space: left-posterior-superior",
        "sizes: " + " ".join(map(str, [components] * many + list(grid.size))),
        "space directions: " + " ".join(steps),
        "kinds: " + " ".join(["vector"] * many + ["domain"] * 3),
        *["endian: little"] * (kind != "unsigned char"),
        f"encoding: {encoding}",
        "space origin: " + _vector(grid.origin),
        *(f"{key}:={' '.join(value.splitlines())}" for key, value in keys.items()),
    ]
    return ("\n".join(lines) + "\n\n").encode()


def _vector(numbers: np.ndarray | tuple[float, ...]) -> str:
    return "(" + ",".join(repr(float(number)) for number in numbers) + ")"


# ---- reading a header ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Axis:
    size: int
    kind: str
    spacing: float | None
    minimum: float | None
    is_node: bool  # the minimum is the first voxel's center, not its edge
    direction: tuple[float, ...] | None  # one voxel's step in space, where the header has a space and this axis a step


def _read_lines(path: Path, stream: BinaryIO) -> tuple[dict[str, str], dict[str, str], int]:
    """The fields (names in lower case without blanks), the key-value pairs, and the byte after the header."""
    fields: dict[str, str] = {}
    keys: dict[str, str] = {}
    if not re.match(rb"NRRD000[1-6]\s*$", stream.readline(64)):
        raise BadInput(f"{path.name} is not an image of its kind", "give a NIfTI, NRRD or MetaImage file")
    for _ in range(_MOST_LINES):
        line = stream.readline(_LONGEST_HEADER)
        if stream.tell() > _LONGEST_HEADER:
            break
        text = line.decode("utf-8", "replace").rstrip("\r\n")
        if not text:  # the header's end, or the file's
            return fields, keys, stream.tell()
        field, separator, value = text.partition(": ")
        key, pair, words = text.partition(":=")
        if text.startswith("#"):
            continue
        if pair and (not separator or len(key) < len(field)):
            keys[_unescaped(key)] = _unescaped(words)
        elif separator:
            field = field.replace(" ", "").lower()
            if field in fields:
                raise ValueError(f"{field[:40]!r} stands there twice")
            fields[field] = value.strip()
        else:
            raise ValueError(f"a line has no field: {text[:40]!r}")
    raise ValueError("it is too long")


def _unescaped(text: str) -> str:
    if "\\" not in text:
        return text
    return re.sub(r"\\([n\\])", lambda match: {"n": "\n", "\\": "\\"}[match[1]], text)


def _axes(fields: dict[str, str], count: int) -> list[_Axis]:
    """The file's axes, the fastest first."""

    def entries(name: str, default: str) -> list[str]:
        values = fields[name].split() if name in fields else [default] * count
        if len(values) != count:
            raise ValueError(f"{name} has {len(values)} entries for {count} axes")
        return values

    def numbers(name: str) -> list[float | None]:
        values = [float(entry) for entry in entries(name, "nan")]
        return [None if math.isnan(value) else value for value in values]

    if "sizes" not in fields:
        raise ValueError("it has no sizes")
    directions: list[tuple[float, ...] | None] = [None] * count
    if "spacedirections" in fields:
        found = re.findall(r"none|\([^()]*\)", fields["spacedirections"].lower())
        if len(found) != count:
            raise ValueError(f"space directions has {len(found)} entries for {count} axes")
        directions = [None if entry == "none" else _numbers_in(entry) for entry in found]
    rows = zip(
        [int(size) for size in entries("sizes", "")],
        [kind.lower() for kind in entries("kinds", "???")],
        numbers("spacings"),
        numbers("axismins"),
        [center.lower() == "node" for center in entries("centers" if "centers" in fields else "centerings", "???")],
        directions,
        strict=True,
    )
    return [_Axis(*row) for row in rows]


def _numbers_in(vector: str) -> tuple[float, ...]:
    return tuple(float(part) for part in vector.strip("()").split(","))


def _frame_axis(path: Path, axes: list[_Axis]) -> tuple[list[_Axis], int | None]:
    """The axes in space, and the place of the one along which image follows image."""
    oriented = any(axis.direction for axis in axes)
    outside = [
        number
        for number, axis in enumerate(axes)
        if axis.kind not in _SPATIAL_KINDS or (oriented and axis.direction is None)
    ]
    if len(axes) == 4 and not outside:
        outside = [3]
    if len(outside) > 1:
        raise BadInput(f"{path.name} has {len(outside)} axes that are not in space", "export one plain 3-D volume")
    for number in outside:
        if axes[number].size > 1 and axes[number].kind not in _FRAME_KINDS:
            refuse_channels(path, axes[number].size, "color" in axes[number].kind)
    in_space = [axis for number, axis in enumerate(axes) if number not in outside]
    if not 2 <= len(in_space) <= 3:
        raise BadInput(f"{path.name} has {len(in_space)} dimensions", "export one plain 3-D volume")
    return in_space, outside[0] if outside else None


def _grid(fields: dict[str, str], axes: list[_Axis]) -> Grid:
    size = (*(axis.size for axis in axes), 1)[:3]
    affine = np.eye(4)
    flips = _TO_LPS.get(fields.get("space", "").lower().removesuffix("-time"), (1, 1, 1))
    if any(axis.direction for axis in axes):
        for number, axis in enumerate(axes):
            if axis.direction is None or not len(axes) <= len(axis.direction) <= 4:
                raise ValueError("its space directions do not fit its dimensions")
            step = (*axis.direction, 0.0)[:3]
            affine[:3, number] = np.multiply(step, flips)
        if "spaceorigin" in fields:
            affine[:3, 3] = np.multiply((*_numbers_in(fields["spaceorigin"]), 0.0)[:3], flips)
        return Grid.from_affine(size, affine)
    for number, axis in enumerate(axes):
        spacing = 1.0 if axis.spacing is None else axis.spacing
        if spacing <= 0:
            raise ValueError(f"its spacing is {spacing:g}")
        affine[number, number] = spacing
        if all(other.minimum is not None for other in axes):
            affine[number, 3] = (axis.minimum or 0.0) + (0.0 if axis.is_node else spacing / 2)
    return Grid.from_affine(size, affine)


def _skip_lines(path: Path, start: int, count: int) -> int:
    """The byte after `count` lines from `start`."""
    if count == 0:
        return start
    if count < 0:
        raise ValueError(f"line skip is {count}")
    with open_regular(path) as stream:
        stream.seek(start)
        while count and (line := stream.readline(1 << 16)):
            count -= line.endswith(b"\n")
        return stream.tell()


register(Nrrd())
