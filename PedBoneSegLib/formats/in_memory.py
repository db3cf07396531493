"""Images that are in memory already, of SimpleITK, nibabel and numpy: to and from this library's `Volume`."""

from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import BadInput
from ..volume import Grid, Volume

if TYPE_CHECKING:
    import SimpleITK as sitk

_LPS_FROM_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def from_array(array: Any, affine: Any, name: str = "the array") -> Volume:
    """`array` [i, j, k] of real numbers; `affine` 4×4, from voxel indices to RAS millimeters, as nibabel has it."""
    array, affine = np.asarray(array), np.asarray(affine)
    if array.ndim != 3:
        fault = f"{name} has {array.ndim} dimensions (shape {array.shape})"
        raise BadInput(fault, "give three, [i, j, k]; of several frames or channels choose one")
    if array.dtype.kind not in "biuf":
        raise BadInput(f"{name} has the type {array.dtype}", "give real numbers: integers or floats")
    if affine.shape != (4, 4) or affine.dtype.kind not in "iuf":
        fault = f"the affine of {name} has the shape {affine.shape} and the type {affine.dtype}"
        raise BadInput(fault, "give a 4×4 matrix from voxel indices to RAS millimeters, as nibabel has it")
    array = (
        array.astype(np.uint8) if array.dtype.kind == "b" else array.astype(array.dtype.newbyteorder("="), copy=False)
    )
    return Volume(array, Grid.from_affine(array.shape, _LPS_FROM_RAS @ affine).check(name), name)


def from_sitk(image: Any) -> Volume:
    """A SimpleITK image of three dimensions and one channel. The voxels are copied."""
    import SimpleITK as sitk

    name = "the SimpleITK image"
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        size, channels = image.GetSize(), image.GetNumberOfComponentsPerPixel()
        raise BadInput(f"{name} has the size {size} and {channels} channels", "give three dimensions and one channel")
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return from_array(sitk.GetArrayFromImage(image).T, _LPS_FROM_RAS @ affine, name)


def from_nibabel(image: Any) -> Volume:
    """A nibabel image (or anything else with `dataobj` and `affine`), scaled as its header says."""
    return from_array(np.asanyarray(image.dataobj), image.affine, "the nibabel image")


def to_sitk(array: np.ndarray, grid: Grid) -> "sitk.Image":
    """`array` [i, j, k] as a SimpleITK image. The voxels are copied."""
    import SimpleITK as sitk

    image: Any = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    image.SetSpacing(grid.spacing)
    image.SetOrigin(grid.origin)
    image.SetDirection(np.ravel(grid.direction).tolist())
    return image
