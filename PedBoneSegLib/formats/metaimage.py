"""MetaImage headers, with the voxels in the same file (.mha) or in another (.mhd)."""

import os
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..errors import BadInput
from ..volume import Grid
from .header import Header, padded_grid, refuse_channels, refuse_color, refuse_type, text_lines

_TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4", "MET_UINT": "u4",
    "MET_LONG": "i4", "MET_ULONG": "u4", "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}  # fmt: skip


def parse(path: Path) -> Header:
    lines, start = text_lines(path, b"", end=b"ElementDataFile")
    pairs = {key.strip(): value.strip() for key, separator, value in (line.partition("=") for line in lines)}
    if start is None or "NDims" not in pairs:
        raise BadInput(f"{path.name} is not a MetaImage", "give a NIfTI, NRRD or MetaImage file or a DICOM folder")
    count = int(pairs["NDims"])
    sizes = [int(size) for size in pairs["DimSize"].split()]
    channels = int(pairs.get("ElementNumberOfChannels", 1))
    element = pairs["ElementType"].removesuffix("_ARRAY")
    if not 2 <= count <= 4 or len(sizes) != count:
        raise BadInput(f"{path.name} has {count} dimensions", "export one plain 3-D volume")
    if channels in (3, 4) and element == "MET_UCHAR":
        refuse_color(path)
    if channels != 1:
        refuse_channels(path, channels)
    if element not in _TYPES:
        refuse_type(path, f"MetaImage type {element!r}")
    data = pairs["ElementDataFile"]
    if data.startswith("LIST") or "%" in data or not _is_true(pairs.get("BinaryData", "True")):
        raise BadInput(f"{path.name} stores its voxels in an unusual way", "save it again as one .mha file")
    spacing = [float(value) for value in (pairs.get("ElementSpacing") or pairs.get("ElementSize") or "1 1 1 1").split()]
    origin = _first(pairs, "Offset", "Position", "Origin") or "0 0 0 0"
    matrix = _first(pairs, "TransformMatrix", "Rotation", "Orientation")
    axes = np.reshape([float(value) for value in matrix.split()], (count, count)) if matrix else np.eye(count)
    steps = [list(axis[:3] * step) for axis, step in zip(axes[:3], spacing, strict=False)]
    big = _is_true(_first(pairs, "BinaryDataByteOrderMSB", "ElementByteOrderMSB") or "False")
    local = data.upper() == "LOCAL"
    skip = int(pairs.get("HeaderSize", 0))
    return Header(
        padded_grid(sizes[:3], steps, [float(value) for value in origin.split()], (1, 1)),
        np.dtype((">" if big else "<") + _TYPES[element]),
        path if local else path.parent / data,
        -1 if skip < 0 else start if local else skip,
        "deflate" if _is_true(pairs.get("CompressedData", "False")) else "raw",
        frames=sizes[3] if count == 4 else 1,
    )


def _first(pairs: dict[str, str], *keys: str) -> str | None:
    return next((pairs[key] for key in keys if key in pairs), None)


def _is_true(text: str) -> bool:
    return text.lower() in ("true", "1")


def encode(grid: Grid, components: int, note: str) -> bytes:
    """A header for zlib-packed 8-bit voxels in the same file, components fastest."""
    lines = [
        "ObjectType = Image",
        "NDims = 3",
        f"Comment = {note}",
        "BinaryData = True",
        "BinaryDataByteOrderMSB = False",
        "CompressedData = True",
        f"CompressedDataSize = {'0' * 12}",  # MetaIO insists on it; `patch` puts it in
        "TransformMatrix = " + " ".join(repr(part) for column in zip(*grid.direction, strict=True) for part in column),
        "Offset = " + " ".join(map(repr, grid.origin)),
        "ElementSpacing = " + " ".join(map(repr, grid.spacing)),
        "DimSize = " + " ".join(map(str, grid.size)),
        f"ElementNumberOfChannels = {components}",
        "ElementType = MET_UCHAR",
        "ElementDataFile = LOCAL",
    ]
    return ("\n".join(lines) + "\n").encode()


def patch(stream: BinaryIO, header: bytes) -> None:
    """Enters the size of the packed voxels that have been written behind `header`."""
    size = stream.seek(0, os.SEEK_END) - len(header)
    stream.seek(header.index(b"0" * 12))
    stream.write(b"%012d" % size)
