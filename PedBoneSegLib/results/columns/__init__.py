"""The measurements of a bone: each is a `Column` that says how it is computed and what it is called.

To add one, put one file into this folder; nothing else has to change. The command line, the JSON, the CSV and the
panel's table show it. For example, `elongation.py`:

    from . import BoneShape, Column

    def elongation(bone: BoneShape) -> float:
        longest, _, shortest = bone.lengths
        return longest / shortest

    COLUMNS = (Column("elongation", elongation, titles=("Elongation",)),)

Code outside this package calls `register(Column(...))`. The columns of `standard.py` come first and keep their order,
since the contract names them; the other files follow in alphabetical order, registered columns last.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:  # numpy is imported where it is used, so that the front door can import this file without waiting
    import numpy as np

    from ...volume import Grid

# A number, a list of numbers, or a list of lists; None where a bone that is not there has no value.
Value: TypeAlias = "float | list[float] | list[list[float]] | None"


@dataclass(frozen=True)
class BoneShape:
    """One bone of a label map, in the patient's space (LPS, mm): what a column computes from.

    `mask` is the bone in its bounding box [i, j, k], `start` the box's first voxel, `grid` that of the whole image.
    """

    mask: "np.ndarray"
    start: tuple[int, int, int]
    grid: "Grid"

    @cached_property
    def steps(self) -> "np.ndarray":
        """3×3: each column is the way from a voxel to the next one along i, j or k."""
        steps: np.ndarray = self.grid.affine[:3, :3]
        return steps

    @cached_property
    def points(self) -> "np.ndarray":
        """The centers of the bone's voxels [n, 3]."""
        import numpy as np

        points: np.ndarray = (np.argwhere(self.mask) + self.start) @ self.steps.T + self.grid.origin
        return points

    @cached_property
    def center(self) -> "np.ndarray":
        """The center of mass."""
        center: np.ndarray = self.points.mean(0)
        return center

    @cached_property
    def offsets(self) -> "np.ndarray":
        """`points` from the center."""
        offsets: np.ndarray = self.points - self.center
        return offsets

    @cached_property
    def axes(self) -> "np.ndarray":
        """The principal axes as rows: unit vectors, the direction of the greatest spread first, each pointing towards
        left, posterior or superior. A single voxel or slice has axes too, since the spread within a voxel counts."""
        import numpy as np

        within = self.steps @ self.steps.T / 12
        spread, axes = np.linalg.eigh(self.offsets.T @ self.offsets / len(self.points) + within)
        axes = axes[:, np.argsort(-spread, kind="stable")].T
        axes *= np.sign(np.take_along_axis(axes, np.abs(axes).argmax(1)[:, None], 1))
        return axes

    @property
    def lengths(self) -> "np.ndarray":
        """The extents along the principal axes."""
        return self.extents(self.axes)

    def extents(self, directions: "np.ndarray") -> "np.ndarray":
        """The extents along each row of `directions` [n, 3], the width of a voxel in that direction included."""
        import numpy as np

        heights = self.offsets @ directions.T
        extents: np.ndarray = np.ptp(heights, axis=0) + np.sqrt(((directions @ self.steps) ** 2).sum(1))
        return extents


@dataclass(frozen=True)
class Column:
    """One measurement.

    key      its name in JSON and CSV, with the unit at the end: "volume_ml". In CSV a list takes a column for each
             entry: "extent_mm_1", "extent_mm_2", …
    compute  called with the bone's shape; returns a number, a list of numbers or a list of lists
    titles   the headings in the panel's table, one for each entry; empty where the panel does not show it
    absent   the value for a bone that is not there
    """

    key: str
    compute: "Callable[[BoneShape], Value]"
    titles: tuple[str, ...] = ()
    absent: "Value" = None


@dataclass(frozen=True)
class Measurement(Mapping[str, "Value"]):
    """The measurements of one bone by the columns' keys: `measurement["volume_ml"]`."""

    label: int
    entries: "Mapping[str, Value]"

    def __getitem__(self, key: str) -> "Value":
        return self.entries[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)


@dataclass
class Measurements(Mapping[str, Measurement]):
    """The measurements of all bones of a segmentation by name: `measurements["femur"]["volume_ml"]`.

    `side` is "left", "right" or None; `surfaces` are the mesh files by bone, where they were asked for.
    """

    joint: str
    side: str | None
    bones: Mapping[str, Measurement]
    surfaces: "Mapping[str, Path] | None" = field(default=None)

    def __getitem__(self, bone: str) -> Measurement:
        return self.bones[bone]

    def __iter__(self) -> Iterator[str]:
        return iter(self.bones)

    def __len__(self) -> int:
        return len(self.bones)


_registered: list[Column] = []


def register(column: Column) -> None:
    """Adds a column from outside this package. ValueError if its key is taken."""
    if column.key in {existing.key for existing in columns()}:
        raise ValueError(f"there is already a measurement {column.key!r}")
    _registered.append(column)


def columns() -> tuple[Column, ...]:
    """All columns, in the order in which they are shown."""
    return (*_in_this_folder(), *_registered)


def titles() -> dict[str, str]:
    """The headings of the panel's table by the names of the CSV's columns: {"extent_mm_1": "Right–left (mm)", …}."""
    return {
        column.key if len(column.titles) == 1 else f"{column.key}_{number}": title
        for column in columns()
        for number, title in enumerate(column.titles, start=1)
    }


@cache
def _in_this_folder() -> tuple[Column, ...]:
    names = sorted((module.name for module in iter_modules(__path__)), key=lambda name: (name != "standard", name))
    return tuple(column for name in names for column in import_module(f".{name}", __package__).COLUMNS)
