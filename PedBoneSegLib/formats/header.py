"""What the header of a NIfTI or MetaImage file says, how its voxels are read, and what every reader refuses.

Geometry is taken from our own look at the header, not from a library: libraries differ (ITK prefers NIfTI's pixdim,
nibabel the sform), and some let damaged voxels through.
"""

import gzip
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..errors import BadInput
from ..volume import Grid

_MOST_DEFLATED = 1040  # zlib cannot shrink anything further than 1:1032


@dataclass(frozen=True)
class Header:
    """What a file says of itself; frame follows frame in `data`, from byte `start` (of what gzip unpacks, where that
    is the codec), the first axis of `grid` fastest."""

    grid: Grid
    dtype: np.dtype  # in the file's byte order
    data: Path
    start: int  # -1: the voxels are the file's last bytes
    codec: str = "raw"  # or "gzip", "zlib"
    frames: int = 1
    slope: float = 1.0
    intercept: float = 0.0
    fields: dict[str, str] = field(default_factory=dict)  # a segmentation's own; these formats have none

    def voxels(self, frame: int) -> np.ndarray:
        """One frame [i, j, k] in the machine's byte order, scaled where the header says so."""
        wanted = int(np.prod(self.grid.size, dtype=object)) * self.dtype.itemsize
        size = self.data.stat().st_size
        start = size - wanted * self.frames if self.start < 0 else self.start
        if start < 0 or start + (frame + 1) * wanted > size * (1 if self.codec == "raw" else _MOST_DEFLATED):
            raise EOFError
        start += frame * wanted if self.codec != "zlib" else 0
        with open(self.data, "rb") as stream:
            if self.codec == "gzip":
                buffer = _gunzip(stream, start + wanted)[start:]
            elif self.codec == "zlib":
                stream.seek(start)
                buffer = zlib.decompress(stream.read())[frame * wanted : (frame + 1) * wanted]
            else:
                stream.seek(start)
                buffer = stream.read(wanted)
        if len(buffer) < wanted:
            raise EOFError
        array = np.frombuffer(buffer, self.dtype).reshape(self.grid.size, order="F")
        array = array.astype(self.dtype.newbyteorder("="), order="F", copy=False)
        if (self.slope, self.intercept) != (1.0, 0.0):
            array = array.astype(np.float64 if array.dtype.itemsize > 2 else np.float32, order="F")
            array *= self.slope
            array += self.intercept
        return array


def _gunzip(stream: BinaryIO, size: int) -> memoryview:
    """The first `size` bytes of what was packed; faster than Python's own gzip, which takes over where the file has
    several members, or is cut off (EOFError)."""
    engine = zlib.decompressobj(31)
    data = engine.decompress(stream.read(), size)
    engine.decompress(engine.unconsumed_tail, 1)  # if that was all, its checksum is looked at here
    if len(data) < size or not (engine.eof or engine.unconsumed_tail):
        stream.seek(0)
        with gzip.open(stream) as unpacked:
            data = unpacked.read(size)
            unpacked.read(1)
    return memoryview(data)


def choose_frame(name: str, frames: int, frame: int | None) -> int:
    """The frame to read; a choice that is missing or impossible raises BadInput."""
    if frame is None and frames > 1:
        raise BadInput(f"{name} holds {frames} frames", f"choose one with --frame, 0 to {frames - 1}")
    if frame is not None and not 0 <= frame < frames:
        raise BadInput(f"{name} has no frame {frame}", f"--frame may be 0 to {frames - 1}")
    return frame or 0


def refuse_channels(path: Path, count: int, color: bool = False) -> None:
    """Raises BadInput for an image of several channels."""
    if color:
        raise BadInput(f"{path.name} is a color image", "give the gray-level MR image itself, not a rendering of it")
    raise BadInput(f"{path.name} has {count} channels per voxel", "give one channel as a file of its own")


def refuse_type(path: Path, what: str) -> None:
    """Raises BadInput for voxels that are no numbers."""
    raise BadInput(f"{path.name} holds voxels that are no real numbers ({what})", "save it as integers or floats")
