"""What the header of a NIfTI, NRRD or MetaImage file says, and what the three readers of them share.

Geometry is taken from our own look at the header, not from a library: libraries differ (ITK prefers NIfTI's pixdim,
nibabel the sform), and some let a sheared or undefined geometry through. What is not one real number per voxel is
refused here too.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import BadInput
from ..volume import Grid

_LONGEST_TEXT_HEADER = 1 << 24


@dataclass(frozen=True)
class Header:
    """What a file says of itself; the voxels lie in `data`, from byte `start`, the first axis of `grid` fastest."""

    grid: Grid
    dtype: np.dtype  # in the file's byte order
    data: Path
    start: int  # in the file; -1: the voxels are its last bytes
    codec: str = "raw"  # or "deflate" (zlib and gzip), "bzip2"
    skip: int = 0  # bytes to pass over after decompression
    frames: int = 1
    interleaved: bool = False  # a voxel's frames lie side by side; otherwise frame follows frame
    slope: float = 1.0
    intercept: float = 0.0
    fields: dict[str, str] = field(default_factory=dict)  # a text header's own key-value pairs


def choose_frame(name: str, frames: int, frame: int | None) -> int:
    """The frame to read; a choice that is missing or impossible raises BadInput."""
    if frame is None and frames > 1:
        raise BadInput(f"{name} holds {frames} frames", f"choose one with --frame, 0 to {frames - 1}")
    if frame is not None and not 0 <= frame < frames:
        raise BadInput(f"{name} has no frame {frame}", f"--frame may be 0 to {frames - 1}")
    return frame or 0


def text_lines(path: Path, magic: bytes, end: bytes = b"") -> tuple[list[str], int | None]:
    """The lines of a text header and the position behind it; None where the file ends before the header does.

    The header ends with an empty line, or with the line that starts with `end`.
    """
    lines: list[str] = []
    with open(path, "rb") as stream:
        if stream.read(len(magic)) != magic:
            raise BadInput(f"{path.name} is not an image of its kind", "give a NIfTI, NRRD or MetaImage file")
        stream.seek(0)
        while stream.tell() < _LONGEST_TEXT_HEADER and (line := stream.readline(_LONGEST_TEXT_HEADER)):
            text = line.rstrip(b"\r\n")
            if not end and not text:
                return lines, stream.tell()
            lines.append(text.decode("utf-8", "replace"))
            if end and text.startswith(end):
                return lines, stream.tell()
    return lines, None


def padded_grid(sizes: list[int], steps: list[list[float]], origin: list[float], signs: tuple[int, int]) -> Grid:
    """A grid from two or three axes in a space of two or three dimensions or more; a missing axis has one voxel."""
    affine = np.eye(4)
    for axis, step in enumerate(steps):
        affine[:3, axis] = (step + [0.0, 0.0])[:3]
    if len(steps) == 2:
        normal = np.cross(affine[:3, 0], affine[:3, 1])
        affine[:3, 2] = normal / (np.sqrt(normal @ normal) or 1.0)
    affine[:3, 3] = (origin + [0.0, 0.0])[:3]
    affine[:2] *= np.array(signs)[:, None]
    return Grid.from_affine((*sizes, 1)[:3], affine)


def refuse_color(path: Path) -> None:
    raise BadInput(f"{path.name} is a color image", "give the gray-level MR image itself, not a rendering of it")


def refuse_channels(path: Path, count: int) -> None:
    raise BadInput(f"{path.name} has {count} channels per voxel", "give one channel as a file of its own")


def refuse_type(path: Path, what: str) -> None:
    raise BadInput(f"{path.name} holds voxels that are no real numbers ({what})", "save it as integers or floats")
