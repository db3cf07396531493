"""Surface meshes of bones: closed, smooth, in the patient's space (LPS, mm), for printing and for other software."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..anatomy import JointTable, display_name
from ..errors import BadInput
from ..files import whole_file
from ..volume import Grid

if TYPE_CHECKING:
    from vtk import vtkPolyData

_PASS_BAND = 0.01  # of the windowed sinc filter: the smaller, the smoother
_ITERATIONS = 20
_HEADER = b"PedBoneSeg SPACE=LPS"  # Slicer reads SPACE=LPS from the STL header


def write_surfaces(
    folder: str | Path, labels: np.ndarray, grid: Grid, table: JointTable, side: str | None = None
) -> dict[str, Path]:
    """Writes one STL for each bone present (such as "Right femur.stl"), replacing older files; returns them by bone."""
    from scipy import ndimage

    if importlib.util.find_spec("vtk") is None:
        raise BadInput("surface meshes need VTK, which is not installed", 'run: pip install "pedboneseg[surfaces]"')
    files = {}
    for bone, box in zip(table.bones, ndimage.find_objects(labels, len(table.bones)), strict=True):
        if box is not None:
            files[bone.name] = Path(folder) / f"{display_name(bone, side)}.stl"
            corner = tuple(along.start for along in box)
            write_surface(files[bone.name], surface(labels[box] == bone.label, grid, corner))
    return files


def surface(mask: np.ndarray, grid: Grid, offset: Sequence[int] = (0, 0, 0)) -> "vtkPolyData":
    """The closed surface of a mask [i, j, k] whose first voxel is the grid's voxel `offset`; normals point outward.

    A mask that reaches the image's border is closed there.
    """
    import vtk
    from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

    padded = np.pad(mask, 1).astype(np.uint8)
    image = vtk.vtkImageData()
    image.SetDimensions(padded.shape)
    image.SetSpacing(grid.spacing)  # the filter smooths in mm; place and direction come after it
    scalars = numpy_to_vtk(padded.ravel(order="F"))
    image.GetPointData().SetScalars(scalars)

    contour = vtk.vtkDiscreteFlyingEdges3D()
    contour.SetInputData(image)
    contour.SetValue(0, 1)
    contour.ComputeScalarsOff()
    contour.ComputeNormalsOff()
    contour.ComputeGradientsOff()
    smooth = vtk.vtkWindowedSincPolyDataFilter()
    smooth.SetInputConnection(contour.GetOutputPort())
    smooth.SetNumberOfIterations(_ITERATIONS)
    smooth.SetPassBand(_PASS_BAND)
    smooth.BoundarySmoothingOff()
    smooth.FeatureEdgeSmoothingOff()
    smooth.NonManifoldSmoothingOn()
    smooth.NormalizeCoordinatesOn()

    last = smooth
    if np.linalg.det(grid.direction) < 0:  # a left-handed grid turns the triangles inside out
        last = vtk.vtkReverseSense()
        last.SetInputConnection(smooth.GetOutputPort())
        last.ReverseCellsOn()
    last.Update()
    mesh, corner = last.GetOutput(), grid.affine[:3] @ [*(np.array(offset) - 1), 1]  # the padding's first voxel
    placed = vtk_to_numpy(mesh.GetPoints().GetData()) @ np.transpose(grid.direction) + corner
    mesh.GetPoints().SetData(numpy_to_vtk(placed, deep=True))
    return mesh


def write_surface(path: str | Path, mesh: "vtkPolyData") -> None:
    """Writes a mesh of triangles as binary STL."""
    from vtk.util.numpy_support import vtk_to_numpy

    points = vtk_to_numpy(mesh.GetPoints().GetData())
    triangles = np.zeros(mesh.GetNumberOfPolys(), [("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("more", "<u2")])
    triangles["corners"] = corners = points[vtk_to_numpy(mesh.GetPolys().GetConnectivityArray()).reshape(-1, 3)]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    triangles["normal"] = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-30)
    with whole_file(path) as temporary:
        temporary.write_bytes(_HEADER.ljust(80) + np.uint32(len(triangles)).tobytes() + triangles.tobytes())
