import resource
import subprocess
import sys

import numpy as np
import pytest
from grids import make_grid, rotation

from PedBoneSegLib.anatomy import joint_table
from PedBoneSegLib.errors import BadInput
from PedBoneSegLib.results.surfaces import surface, write_surface, write_surfaces

vtk = pytest.importorskip("vtk")
KNEE = joint_table("knee")
SEMIAXES = np.array([14.0, 9.0, 7.0])


def ellipsoid(grid, center):
    places = np.indices(grid.size).reshape(3, -1).T @ grid.affine[:3, :3].T + grid.origin - center
    return (((places / SEMIAXES) ** 2).sum(1) <= 1).reshape(grid.size)


def example(left_handed=False):
    direction = rotation(5) * [1, 1, -1 if left_handed else 1]
    grid = make_grid((80, 70, 30), (0.5, 0.6, 1.5), (10, 20, 30), direction)
    center = grid.affine[:3] @ [40, 35, 15, 1]
    return ellipsoid(grid, center), grid, center


def mass(mesh):
    properties = vtk.vtkMassProperties()
    properties.SetInputData(mesh)
    properties.Update()
    return properties.GetVolume(), properties.GetSurfaceArea()


def open_edges(mesh):
    edges = vtk.vtkFeatureEdges()
    edges.SetInputData(mesh)
    edges.FeatureEdgesOff()
    edges.ManifoldEdgesOff()
    edges.Update()
    return edges.GetOutput().GetNumberOfCells()


def outward(mesh, center):
    """The share of triangles that turn their outer side to the outside."""
    from vtk.util.numpy_support import vtk_to_numpy

    points = vtk_to_numpy(mesh.GetPoints().GetData())
    corners = points[vtk_to_numpy(mesh.GetPolys().GetConnectivityArray()).reshape(-1, 3)]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    return (((corners.mean(1) - center) * normals).sum(1) > 0).mean()


@pytest.mark.parametrize("left_handed", [False, True])
def test_a_surface_lies_in_the_patient_closed_smooth_and_right_side_out(left_handed):
    mask, grid, center = example(left_handed)
    mesh = surface(mask, grid)
    volume, area = mass(mesh)
    assert volume == pytest.approx(4 / 3 * np.pi * SEMIAXES.prod(), rel=0.02)
    assert area == pytest.approx(1215, rel=0.05)  # Thomsen's formula; the mask's own faces have half as much again
    bounds = np.reshape(mesh.GetBounds(), (3, 2))
    np.testing.assert_allclose(bounds, np.stack([center - SEMIAXES, center + SEMIAXES], 1), atol=1)
    assert open_edges(mesh) == 0
    assert outward(mesh, center) > 0.999


def test_a_bone_that_reaches_the_border_is_closed_there():
    mask, grid, _ = example()
    for axis in range(3):
        half = np.take(mask, range(mask.shape[axis] // 2), axis)
        assert half.any() and open_edges(surface(half, grid)) == 0
    assert open_edges(surface(np.ones((3, 9, 1), bool), make_grid((3, 9, 1)))) == 0


def test_a_file_a_bone_that_is_there(tmp_path):
    mask, grid, center = example()
    files = write_surfaces(tmp_path, np.asfortranarray(mask * np.uint8(2)), grid, KNEE, "right")
    assert files == {"tibia": tmp_path / "Right tibia.stl"}
    assert list(tmp_path.iterdir()) == [files["tibia"]]
    reader = vtk.vtkSTLReader()
    reader.SetFileName(str(files["tibia"]))
    reader.Update()
    np.testing.assert_allclose(reader.GetOutput().GetCenter(), center, atol=0.5)
    assert mass(reader.GetOutput())[0] == pytest.approx(mass(surface(mask, grid))[0], rel=1e-4)
    assert b"SPACE=LPS" in files["tibia"].read_bytes()[:80]  # Slicer looks for it
    assert outward(reader.GetOutput(), center) > 0.999


def test_what_cannot_be_written_is_refused(tmp_path, capfd):
    mesh = surface(np.ones((2, 2, 2), bool), make_grid((2, 2, 2)))
    (tmp_path / "file").write_text("x")
    with pytest.raises(BadInput, match="could not be written"):
        write_surface(tmp_path / "file" / "a.stl", mesh)
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
    assert capfd.readouterr().err == ""


def test_a_full_disk_leaves_no_file(tmp_path):
    code = f"""
import numpy as np
from PedBoneSegLib.errors import BadInput
from PedBoneSegLib.results.surfaces import surface, write_surface
from PedBoneSegLib.volume import Grid
grid = Grid((60, 60, 60), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)))
try:
    write_surface({str(tmp_path / "a.stl")!r}, surface(np.ones(grid.size, bool), grid))
except BadInput as error:
    print(error)
"""
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
    )
    assert "could not be written" in result.stdout and result.stderr == ""
    assert not list(tmp_path.iterdir())


def test_without_vtk_it_says_what_to_install(tmp_path, monkeypatch):
    grid = make_grid((4, 4, 4), (1, 1, 1), (0, 0, 0))
    monkeypatch.setitem(sys.modules, "vtk", None)  # as if it were not installed
    with pytest.raises(BadInput, match=r"pedboneseg\[surfaces\]"):
        write_surfaces(tmp_path, np.ones(grid.size, np.uint8), grid, KNEE)
