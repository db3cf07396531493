"""What a file says of itself, how its voxels are read, and what every reader refuses.

Geometry is taken from our own look at the header, not from a library: libraries differ (ITK prefers NIfTI's pixdim,
nibabel the sform), and some let damaged voxels through.
"""

import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BadInput
from ..volume import Grid
from .opening import open_regular
from .unpacking import Unpacker, unpacked_limit

MAX_VOXELS = 1 << 28  # that are read or unpacked for one volume, unless another limit is given
_CHECKED_FIRST = 400_000_000  # bytes; larger packed ones are unpacked to their end before any is kept
_BLOCK = 1 << 20  # bytes that are read at once where frames are interleaved


@dataclass(frozen=True)
class Header:
    """Where the voxels are and what they mean. The first axis of `grid` is the fastest in the file."""

    grid: Grid
    dtype: np.dtype[Any]  # in the file's byte order
    data: Path  # the file with the voxels
    start: int = 0  # the byte where they begin, packed or not; -1: they are the file's last bytes
    codec: str = "raw"  # raw, gzip, zlib or bzip2
    skip: int = 0  # bytes to pass over after unpacking
    frames: int = 1
    frame_axis: int = 3  # the frames' place among the file's axes, the fastest being 0
    slope: float = 1.0
    intercept: float = 0.0
    fields: dict[str, str] = field(default_factory=dict)  # the file's own key-value pairs

    def read(self, name: str, frame: int | None = None, max_voxels: int = MAX_VOXELS) -> np.ndarray:
        """One frame [i, j, k], or all of them [i, j, k, frame] where `frame` is None, in the machine's byte order,
        scaled where the header says so. BadInput for voxels that are missing, damaged or too many."""
        chosen = range(self.frames) if frame is None else range(frame, frame + 1)
        inner, outer = math.prod(self.grid.size[: self.frame_axis]), math.prod(self.grid.size[self.frame_axis :])
        unpacked = inner * outer * (chosen.stop if outer == 1 else self.frames)
        check_voxels(name, inner * len(chosen) if self.codec == "raw" and outer == 1 else unpacked, max_voxels)
        try:
            array = np.empty((inner, len(chosen), outer), self.dtype, order="F")
            self._fill(array, chosen, unpacked)
        except EOFError:
            raise BadInput(f"{name} is truncated: voxels are missing", "copy or export it again") from None
        except (ValueError, OSError) as error:  # damaged data are ValueError (zlib) or OSError (bzip2, and the disk)
            raise BadInput(f"{name} is damaged or truncated ({error})", "copy or export it again") from error
        except MemoryError:
            raise BadInput(f"{name} holds more than fits into memory", "crop or resample it") from None
        if not self.dtype.isnative:
            array = array.byteswap(inplace=True).view(self.dtype.newbyteorder("="))
        array = self._scaled(array)
        size = self.grid.size
        if frame is not None:
            return array.reshape(size, order="F")
        array = array.reshape((*size[: self.frame_axis], self.frames, *size[self.frame_axis :]), order="F")
        return np.moveaxis(array, self.frame_axis, -1)

    def _fill(self, array: np.ndarray, chosen: range, unpacked: int) -> None:
        """Every byte of `array` [inner, chosen, outer] comes from the file, or EOFError is raised."""
        inner, count, outer = array.shape
        with open_regular(self.data) as stream:
            size = os.fstat(stream.fileno()).st_size
            total = inner * outer * self.frames * self.dtype.itemsize
            start = size - total if self.start < 0 else self.start
            if not 0 <= start <= size or self.skip + unpacked * self.dtype.itemsize > unpacked_limit(
                size - start, self.codec
            ):
                raise EOFError
            stream.seek(start)
            unpacker = Unpacker(stream, self.codec)
            if self.codec != "raw" and unpacked * self.dtype.itemsize > _CHECKED_FIRST:
                unpacker.skip(self.skip + unpacked * self.dtype.itemsize)
                unpacker.finish()
                stream.seek(start)
                unpacker = Unpacker(stream, self.codec)
            if count == self.frames or outer == 1:
                unpacker.skip(self.skip + inner * chosen.start * self.dtype.itemsize)
                unpacker.read_into(_bytes_of(array))
            else:
                unpacker.skip(self.skip)
                step = max(1, _BLOCK // (inner * self.frames * self.dtype.itemsize))
                for first in range(0, outer, step):
                    part = array[:, :, first : first + step]
                    block = np.empty((inner, self.frames, part.shape[2]), self.dtype, order="F")
                    unpacker.read_into(_bytes_of(block))
                    part[:] = block[:, chosen.start : chosen.stop]
            if chosen.stop == self.frames:
                unpacker.finish()

    def _scaled(self, array: np.ndarray) -> np.ndarray:
        if (self.slope, self.intercept) == (1.0, 0.0):
            return array
        array = array.astype(np.float64 if array.dtype.itemsize > 2 else np.float32, order="F")
        array *= self.slope
        array += self.intercept
        return array


def _bytes_of(array: np.ndarray) -> memoryview:
    """The memory of an array in Fortran order, to be written to."""
    return array.T.reshape(-1).view(np.uint8).data


def check_voxels(name: str, count: int, max_voxels: int) -> None:
    """Raises BadInput for more voxels than are read without being asked to."""
    if count > max_voxels:
        fault = f"{name} says it holds {count:,} voxels, more than the limit of {max_voxels:,}"
        raise BadInput(fault, "if that is right, crop or resample it, or raise the limit with --max-voxels")


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
