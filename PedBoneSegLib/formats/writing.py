"""Label maps and 8-bit maps out, on exactly the grid they are given; a file appears whole or not at all."""

import tempfile
import zlib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np

from ..anatomy import JointTable
from ..errors import BadInput
from ..files import whole_file
from ..volume import Grid
from . import nifti, nrrd
from .names import OUTPUT_SUFFIXES, split_name
from .segments import segment_keys

_LEVEL = 4  # labels shrink to some percent at any level; the higher ones only take longer
_SLAB = 16  # slices that are brought into file order at once


def write_labels(path: str | Path, labels: np.ndarray, grid: Grid, table: JointTable, side: str | None = None) -> None:
    """Writes a label map [i, j, k], uint8. `.seg.nrrd` carries names, colors, terminology and laterality for Slicer."""
    keys = segment_keys(labels, table, side) if split_name(path)[1] == ".seg.nrrd" else {}
    _write(Path(path), labels[None], grid, keys, "labels " + " ".join(table.names))


def write_map(path: str | Path, components: np.ndarray, grid: Grid, names: tuple[str, ...]) -> None:
    """Writes an 8-bit map with a component a bone: `components` is uint8 [component, i, j, k], maybe on disk."""
    keys = {f"Component{index}": name for index, name in enumerate(names)}
    _write(Path(path), components, grid, keys, " ".join(names))


def disk_array(folder: str | Path, shape: tuple[int, ...]) -> np.ndarray:
    """An array of zeros (uint8) that lies in an unnamed file in `folder` and vanishes with the array or the process.

    Its space on the disk is taken at once: a full disk is an error here, not a crash at a later access.
    """
    try:
        with tempfile.TemporaryFile(prefix=".pedboneseg-", dir=folder) as stream:
            left, block = int(np.prod(shape, dtype=object)), bytes(1 << 20)
            while left > 0:
                left -= stream.write(block[:left])
            stream.flush()
            return np.memmap(stream, np.uint8, "r+", shape=shape)
    except OSError as error:
        fault = f"{folder} cannot hold the work in progress: {error.strerror or error}"
        raise BadInput(fault, "free some space, or write elsewhere with -o") from error


def _write(path: Path, components: np.ndarray, grid: Grid, keys: dict[str, str], note: str) -> None:
    if components.dtype != np.uint8 or components.shape[1:] != grid.size or split_name(path)[1] not in OUTPUT_SUFFIXES:
        raise ValueError(f"{components.dtype} {components.shape} does not fit {path.name} on a grid of {grid.size}")
    suffix, count = split_name(path)[1], len(components)
    is_nifti = suffix.startswith(".nii")
    header = nifti.encode(grid, count, note) if is_nifti else nrrd.encode(grid, count, keys)
    packer = zlib.compressobj(_LEVEL, wbits=31) if suffix != ".nii" else None  # gzip
    with whole_file(path) as temporary, open(temporary, "wb") as stream:
        if not is_nifti:  # its header stays readable
            stream.write(header)
        for block in chain([header] if is_nifti else [], _blocks(components, interleaved=not is_nifti)):
            stream.write(packer.compress(block) if packer else block)
        stream.write(packer.flush() if packer else b"")


def _blocks(components: np.ndarray, interleaved: bool) -> Iterator[bytes]:
    """The voxels in file order: i fastest, then j, k; the component before them (`interleaved`) or after them."""
    for part in [components] if interleaved else components[:, None]:
        for start in range(0, part.shape[3], _SLAB):
            yield part[..., start : start + _SLAB].transpose(3, 2, 1, 0).tobytes()
