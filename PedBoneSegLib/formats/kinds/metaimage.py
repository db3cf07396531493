"""MetaImage, with the voxels in the same file (.mha) or in another (.mhd)."""

from pathlib import Path
from typing import BinaryIO

import numpy as np

from ...errors import BadInput
from ...volume import Grid
from ..header import Header, refuse_channels, refuse_type
from ..opening import data_file
from ..registry import Content, register

_TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4", "MET_UINT": "u4",
    "MET_LONG": "i4", "MET_ULONG": "u4", "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}  # fmt: skip
_LONGEST_HEADER = 1 << 16  # bytes


class MetaImage:
    """Read only."""

    name = "MetaImage"
    reads: tuple[str, ...] = (".mha", ".mhd")
    writes: tuple[str, ...] = ()

    def read_header(self, path: Path, stream: BinaryIO) -> Header:
        pairs: dict[str, str] = {}
        while "ElementDataFile" not in pairs and (line := stream.readline(_LONGEST_HEADER)):
            key, _, value = line.decode("utf-8", "replace").partition("=")
            pairs[key.strip()] = value.strip()
            if stream.tell() > _LONGEST_HEADER:
                break
        start = stream.tell()
        if not {"ElementDataFile", "NDims"} <= pairs.keys():
            raise BadInput(f"{path.name} is not a MetaImage", "give a NIfTI, NRRD or MetaImage file or a DICOM folder")

        def first(*keys: str, default: str = "") -> str:
            return next((pairs[key] for key in keys if key in pairs), default)

        def numbers(*keys: str, default: str, count: int) -> list[float]:
            values = [float(value) for value in first(*keys, default=default).split()]
            if len(values) not in (0, count) and keys[0] in pairs:
                raise ValueError(f"{keys[0]} has {len(values)} numbers")
            return values

        count, size = int(pairs["NDims"]), [int(size) for size in pairs["DimSize"].split()]
        channels = int(first("ElementNumberOfChannels", default="1"))
        element = pairs["ElementType"].removesuffix("_ARRAY")
        if not 2 <= count <= 4 or len(size) != count:
            raise BadInput(f"{path.name} has {count} dimensions", "export one plain 3-D volume")
        if channels != 1:
            refuse_channels(path, channels, channels in (3, 4) and element == "MET_UCHAR")
        if element not in _TYPES:
            refuse_type(path, f"MetaImage type {element[:40]!r}")
        if not _is_true(first("BinaryData", default="True")):
            raise BadInput(f"{path.name} stores its voxels as text", "save it again as one .mha file")
        axes, affine = np.eye(max(3, count)), np.eye(4)
        if matrix := numbers("TransformMatrix", "Rotation", "Orientation", default="", count=count * count):
            axes[:count, :count] = np.reshape(matrix, (count, count))
        spacing = [*numbers("ElementSpacing", "ElementSize", default="1 1 1", count=count), 1.0]
        affine[:3, :3] = axes[:3, :3].T * spacing[:3]
        affine[:3, 3] = (numbers("Offset", "Position", "Origin", default="0 0 0", count=count) + [0.0])[:3]
        big = _is_true(first("BinaryDataByteOrderMSB", "ElementByteOrderMSB"))
        data, skip = pairs["ElementDataFile"], int(first("HeaderSize", default="0"))
        local = data.upper() == "LOCAL"
        return Header(
            Grid.from_affine((*size[:3], 1)[:3], affine),
            np.dtype((">" if big else "<") + _TYPES[element]),
            path if local else data_file(path, data),
            start=-1 if skip < 0 else start if local else skip,
            codec="zlib" if _is_true(first("CompressedData")) else "raw",
            frames=size[3] if count == 4 else 1,
        )

    def write(self, stream: BinaryIO, content: Content, suffix: str) -> None:
        raise NotImplementedError


def _is_true(text: str) -> bool:
    return text.lower() in ("true", "1")


register(MetaImage())
