import numpy as np
import pytest
from grids import grids, make_grid, rotation
from hypothesis import given

from PedBoneSegLib.errors import BadInput
from PedBoneSegLib.volume import Grid

NAN = float("nan")


def test_the_affine_takes_indices_to_millimeters():
    grid = make_grid(spacing=(2, 3, 5), origin=(10, 20, 30), direction=[[0, 0, 1], [1, 0, 0], [0, -1, 0]])
    assert (grid.affine @ [1, 0, 0, 1]).tolist() == [10, 22, 30, 1]
    assert (grid.affine @ [0, 1, 0, 1]).tolist() == [10, 20, 27, 1]
    assert (grid.affine @ [0, 0, 1, 1]).tolist() == [15, 20, 30, 1]
    assert grid.voxel_ml == pytest.approx(0.030)


@given(grids())
def test_a_grid_and_its_affine_say_the_same(grid):
    again = Grid.from_affine(grid.size, grid.affine).check()
    assert again.size == grid.size and again.origin == grid.origin
    np.testing.assert_allclose(again.spacing, grid.spacing, rtol=1e-14)
    np.testing.assert_allclose(again.direction, grid.direction, atol=1e-14)


def sheared(angle):
    direction = np.eye(3)
    direction[:, 1] = np.sin(angle), np.cos(angle), 0
    return rotation(3) @ direction


@pytest.mark.parametrize(
    "change, fault",
    [
        ({"size": (3, 0, 7)}, "no voxels"),
        ({"spacing": (1, 0, 1)}, "spacing of zero"),
        ({"spacing": (1, NAN, 1)}, "not a number"),
        ({"spacing": (1, 1e-9, 1)}, "impossible voxel spacing"),
        ({"spacing": (1, 0.001, 1)}, "impossible voxel spacing"),
        ({"spacing": (1, 1, 5000)}, "impossible voxel spacing"),
        ({"spacing": (0.02, 1, 9)}, "far longer than wide"),
        ({"size": (512, 512, 40), "spacing": (6, 6, 6)}, "larger than any patient"),
        ({"size": (10**30, 1, 1)}, "more than 1,000,000 voxels along an axis"),
        ({"origin": (0, 0, 1e6)}, "far outside any scanner"),
        ({"origin": (0, 0, float("inf"))}, "not a number"),
        ({"direction": np.full((3, 3), NAN)}, "not a number"),
        ({"direction": sheared(0.01)}, "sheared"),
        ({"direction": np.zeros((3, 3))}, "sheared"),
    ],
)
def test_a_grid_without_an_honest_answer_is_refused(change, fault):
    with pytest.raises(BadInput, match=f"knee.nii .*{fault}"):
        make_grid(**change).check("knee.nii")


def test_rounding_is_not_taken_for_shear():
    make_grid(direction=np.round(rotation(5), 3)).check()
