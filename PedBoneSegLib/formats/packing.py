"""Voxels into a file: in file order, a few slices at a time, packed by gzip where the format wants that."""

import zlib
from collections.abc import Iterable, Iterator

import numpy as np

_LEVEL = 4  # labels shrink to some percent at any level; the higher ones only take longer
_SLAB = 16  # slices that are brought into file order at once


def raw_blocks(components: np.ndarray, interleaved: bool) -> Iterator[bytes]:
    """[component, i, j, k] in file order: i fastest, then j, k; the component before them (`interleaved`) or after."""
    for part in [components] if interleaved else components[:, None]:
        for start in range(0, part.shape[3], _SLAB):
            yield part[..., start : start + _SLAB].transpose(3, 2, 1, 0).tobytes()


def packed_blocks(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """The blocks as one gzip member without a date, so that the same voxels make the same file."""
    packer = zlib.compressobj(_LEVEL, wbits=31)
    for block in blocks:
        yield packer.compress(block)
    yield packer.flush()
