"""An image with its place in the patient.

Arrays are indexed [i, j, k], the file's own axes (i runs fastest in the file). The world is LPS: millimeters towards
the patient's left, posterior and superior, as in DICOM and ITK.
"""

from dataclasses import dataclass, field

import numpy as np

from .errors import BadInput

_NOT_ORTHOGONAL = 2e-3  # cosine between two axes beyond which a grid counts as sheared (0.1 degree)

# What no scan of a patient comes near. Beyond these bounds the slices of a small file would take hours or all memory.
_SPACING_MM = (0.01, 100.0)
_MOST_ANISOTROPIC = 250.0  # the coarsest spacing, in units of the finest
_MOST_ALONG_AXIS = 1_000_000
_LONGEST_MM = 3000.0  # along an axis
_FARTHEST_MM = 1e5  # from the scanner's center

Vector = tuple[float, float, float]


@dataclass(frozen=True)
class Notice:
    """Something the user should know about a result: an entry of the JSON's `warnings`."""

    code: str
    message: str


@dataclass(frozen=True)
class NiftiGeometry:
    """The header fields by which a NIfTI file places itself. They are written back untouched, so that every reader,
    whichever of the fields it prefers, places the result exactly as it places the input."""

    pixdim: tuple[float, ...]  # 8 numbers, the first is the handedness of the quaternion form
    units: int
    qform_code: int
    sform_code: int
    quaternion: tuple[float, ...]  # b, c, d and the three offsets
    rows: tuple[float, ...]  # the sform's 12 numbers


@dataclass(frozen=True)
class Grid:
    """Where the voxels are: `direction` holds the axes' unit vectors in LPS as its columns, `origin` is the center of
    the first voxel, `spacing` in mm. The axes may be permuted, flipped, oblique and left-handed."""

    size: tuple[int, int, int]
    spacing: Vector
    origin: Vector
    direction: tuple[Vector, Vector, Vector]
    nifti: NiftiGeometry | None = field(default=None, compare=False, repr=False)

    @property
    def affine(self) -> np.ndarray:
        """4×4, from voxel indices (i, j, k, 1) to LPS mm."""
        affine = np.eye(4)
        affine[:3, :3] = np.asarray(self.direction) * np.asarray(self.spacing)
        affine[:3, 3] = self.origin
        return affine

    @property
    def voxel_ml(self) -> float:
        return float(np.prod(self.spacing)) / 1000

    @classmethod
    def from_affine(cls, size: tuple[int, ...], affine: np.ndarray, nifti: NiftiGeometry | None = None) -> "Grid":
        """`affine` is 3×4 or 4×4, voxel indices to LPS mm. Nothing is checked: call `check`."""
        affine = np.asarray(affine, np.float64)
        with np.errstate(all="ignore"):
            spacing = np.sqrt((affine[:3, :3] ** 2).sum(0))
            direction = affine[:3, :3] / spacing
        rows = _floats(direction[0]), _floats(direction[1]), _floats(direction[2])
        extent = int(size[0]), int(size[1]), int(size[2])
        return cls(extent, _floats(spacing), _floats(affine[:3, 3]), rows, nifti)

    def check(self, name: str = "the image") -> "Grid":
        """Raises BadInput where no honest result can be given: an empty, flat, sheared or undefined grid."""
        if min(self.size) < 1:
            raise BadInput(f"{name} has no voxels (size {self.size})", "export the image again")
        if max(self.size) > _MOST_ALONG_AXIS:
            raise BadInput(f"{name} says it has more than {_MOST_ALONG_AXIS:,} voxels along an axis", "export it again")
        numbers, axes = np.hstack([self.spacing, self.origin, *self.direction]), np.array(self.direction)
        if min(self.spacing) == 0:
            fault = f"has a voxel spacing of zero ({_short(self.spacing)} mm)"
        elif not np.isfinite(numbers).all():
            fault = "has a geometry that is not a number (NaN or infinite)"
        elif min(self.spacing) < _SPACING_MM[0] or max(self.spacing) > _SPACING_MM[1]:
            fault = f"has an impossible voxel spacing ({_short(self.spacing)} mm)"
        elif max(self.spacing) > _MOST_ANISOTROPIC * min(self.spacing):
            fault = f"has voxels far longer than wide ({_short(self.spacing)} mm)"
        elif max(lengths := np.multiply(self.size, self.spacing)) > _LONGEST_MM:
            fault = f"is larger than any patient ({_short(lengths)} mm)"
        elif np.abs(self.origin).max() > _FARTHEST_MM:
            fault = f"lies far outside any scanner (its first voxel at {_short(self.origin)} mm)"
        elif np.abs(axes.T @ axes - np.eye(3)).max() > _NOT_ORTHOGONAL:
            fault = "is sheared: its axes are not at right angles"
        else:
            return self
        raise BadInput(f"{name} {fault}", "resample it to a regular grid, or export it again from the scanner's files")


@dataclass
class Volume:
    """An image, `array` [i, j, k] of any real type. What the source does not tell is None."""

    array: np.ndarray
    grid: Grid
    name: str = "image"
    side: str | None = None  # "left" or "right"
    modality: str | None = None  # as DICOM says it: "MR"
    sequence: str | None = None  # the scanner's name of the pulse sequence
    warnings: list[Notice] = field(default_factory=list)


def _floats(numbers: np.ndarray) -> Vector:
    first, second, third = map(float, numbers)
    return first, second, third


def _short(numbers: Vector | np.ndarray) -> str:
    return " × ".join(f"{number:g}" for number in numbers)
