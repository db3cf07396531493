"""The file formats the program knows, and what a new one has to bring.

A format is one object; registering it is all there is to do. A module in `kinds` is found by itself; code outside the
package calls `register` before it reads or writes:

    class Toy:
        name = "toy image"
        reads = (".toy",)
        writes = ()

        def read_header(self, path, stream):
            columns, rows = stream.read(2)
            grid = Grid((columns, rows, 1), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), IDENTITY)
            return Header(grid, np.dtype("u1"), data=path, start=2)

        def write(self, stream, content, suffix):
            raise NotImplementedError

    register(Toy())
"""

import importlib
import pkgutil
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

if TYPE_CHECKING:  # numpy is not loaded until a format is asked for
    import numpy as np

    from ..volume import Grid
    from .header import Header


@dataclass(frozen=True)
class Content:
    """What is written into one file: 8-bit voxels and what to say of them."""

    components: "np.ndarray"  # uint8 [component, i, j, k], maybe an array on disk; one component is a label map
    grid: "Grid"
    note: str  # a line for formats that have room for no more
    keys: dict[str, str] = field(default_factory=dict)  # key-value pairs, for formats that hold them


class Format(Protocol):
    """A file format. `read_header` and `write` get open files and never open the file itself."""

    name: str  # as shown to the user
    reads: tuple[str, ...]  # endings in lower case, the dot included
    writes: tuple[str, ...]  # those of them that can be written; the first formats' come first in messages

    def read_header(self, path: Path, stream: BinaryIO) -> "Header":
        """What the file says of itself. `stream` is the open file, at its start.

        Read no more than a bounded number of bytes and believe none of them: sizes, offsets and names come from
        strangers. Raise BadInput for a file that is no plain volume, and ValueError, LookupError or struct.error for
        a damaged header, with the fault in a few words. The caller checks the grid and the number of voxels, and
        that the voxels are there; `Header` reads them.
        """
        ...

    def write(self, stream: BinaryIO, content: Content, suffix: str) -> None:
        """Writes the file, as the ending `suffix` (one of `writes`) asks; the caller gives it its name when it is
        whole."""
        ...


_formats: list[Format] = []
_loaded = False
_loading = threading.RLock()  # another thread waits until all are there


def register(new: Format) -> None:
    """Adds a format; an ending that another format has is a bug."""
    taken = {suffix for known in formats() for suffix in known.reads}
    if doubled := taken.intersection(new.reads) or set(new.writes) - set(new.reads):
        raise ValueError(f"{new.name}: the endings {sorted(doubled)} are taken, or written and not read")
    _formats.append(new)
    _formats.sort(key=_place)


def _place(known: Format) -> tuple[bool, str]:
    """Those of the package come first, by module, in whatever order they were imported; then those of others."""
    module = type(known).__module__
    ours = module.startswith(f"{__package__}.kinds.")
    return not ours, module if ours else ""


def formats() -> list[Format]:
    """All formats, those of the package first."""
    global _loaded
    with _loading:
        if not _loaded:
            _loaded = True  # before the modules are imported, since each registers its format
            from . import kinds

            for module in sorted(pkgutil.iter_modules(kinds.__path__), key=lambda module: module.name):
                importlib.import_module(f"{kinds.__name__}.{module.name}")
    return _formats


def read_suffixes() -> tuple[str, ...]:
    """Endings of the files that can be read."""
    return tuple(suffix for known in formats() for suffix in known.reads)


def written_suffixes() -> tuple[str, ...]:
    """Endings of the files that can be written."""
    return tuple(suffix for known in formats() for suffix in known.writes)


def format_of(suffix: str) -> Format:
    """The format with this ending; LookupError where there is none."""
    for known in formats():
        if suffix in known.reads:
            return known
    raise LookupError(f"no format ends in {suffix!r}")
