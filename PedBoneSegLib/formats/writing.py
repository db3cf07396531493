"""Label maps and 8-bit maps out, on exactly the grid they are given; a file appears whole or not at all."""

import tempfile
from pathlib import Path

import numpy as np

from ..anatomy import JointTable
from ..errors import BadInput
from ..files import whole_file
from ..volume import Grid
from .names import SEGMENTATION_SUFFIX, split_name
from .registry import Content, format_of, written_suffixes
from .segments import segment_keys


def write_labels(path: str | Path, labels: np.ndarray, grid: Grid, table: JointTable, side: str | None = None) -> None:
    """Writes a label map [i, j, k], uint8. `.seg.nrrd` carries names, colors, terminology and laterality for Slicer."""
    keys = segment_keys(labels, table, side) if split_name(path)[1] == SEGMENTATION_SUFFIX else {}
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
    suffix = split_name(path)[1]
    if components.dtype != np.uint8 or components.shape[1:] != grid.size or suffix not in written_suffixes():
        raise ValueError(f"{components.dtype} {components.shape} does not fit {path.name} on a grid of {grid.size}")
    with whole_file(path) as temporary, open(temporary, "wb") as stream:
        format_of(suffix).write(stream, Content(components, grid, note, keys), suffix)
