"""MetaImage headers, with the voxels in the same file (.mha) or in another (.mhd)."""

from pathlib import Path

import numpy as np

from ..errors import BadInput
from ..volume import Grid
from .header import Header, refuse_channels, refuse_type

_TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4", "MET_UINT": "u4",
    "MET_LONG": "i4", "MET_ULONG": "u4", "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}  # fmt: skip


_LONGEST_HEADER = 1 << 16


def parse(path: Path) -> Header:
    pairs: dict[str, str] = {}
    with open(path, "rb") as stream:
        while "ElementDataFile" not in pairs and (line := stream.readline(_LONGEST_HEADER)):
            key, _, value = line.decode("utf-8", "replace").partition("=")
            pairs[key.strip()] = value.strip()
        start = stream.tell()
    if not {"ElementDataFile", "NDims"} <= pairs.keys():
        raise BadInput(f"{path.name} is not a MetaImage", "give a NIfTI, NRRD or MetaImage file or a DICOM folder")

    def first(*keys: str, default: str = "") -> str:
        return next((pairs[key] for key in keys if key in pairs), default)

    def numbers(*keys: str, default: str) -> list[float]:
        return [float(value) for value in first(*keys, default=default).split()]

    count, size = int(pairs["NDims"]), [int(size) for size in pairs["DimSize"].split()]
    channels, element = int(first("ElementNumberOfChannels", default="1")), pairs["ElementType"].removesuffix("_ARRAY")
    if not 2 <= count <= 4 or len(size) != count:
        raise BadInput(f"{path.name} has {count} dimensions", "export one plain 3-D volume")
    if channels != 1:
        refuse_channels(path, channels, channels in (3, 4) and element == "MET_UCHAR")
    if element not in _TYPES:
        refuse_type(path, f"MetaImage type {element!r}")
    data = pairs["ElementDataFile"]
    if data.startswith("LIST") or "%" in data or not _is_true(first("BinaryData", default="True")):
        raise BadInput(f"{path.name} stores its voxels in an unusual way", "save it again as one .mha file")
    axes, affine = np.eye(max(3, count)), np.eye(4)
    if matrix := numbers("TransformMatrix", "Rotation", "Orientation", default=""):
        axes[:count, :count] = np.reshape(matrix, (count, count))
    spacing = [*numbers("ElementSpacing", "ElementSize", default="1 1 1"), 1.0]
    affine[:3, :3] = axes[:3, :3].T * spacing[:3]
    affine[:3, 3] = (numbers("Offset", "Position", "Origin", default="0 0 0") + [0.0])[:3]
    big = _is_true(first("BinaryDataByteOrderMSB", "ElementByteOrderMSB"))
    local, skip = data.upper() == "LOCAL", int(first("HeaderSize", default="0"))
    return Header(
        Grid.from_affine((*size[:3], 1)[:3], affine),
        np.dtype((">" if big else "<") + _TYPES[element]),
        path if local else path.parent / data,
        -1 if skip < 0 else start if local else skip,
        "zlib" if _is_true(first("CompressedData")) else "raw",
        size[3] if count == 4 else 1,
    )


def _is_true(text: str) -> bool:
    return text.lower() in ("true", "1")
