"""The picture in 3-D: what stands where, in which color and in front of what."""

import numpy as np
import pytest

from PedBoneSegLib.anatomy import joint_table
from PedBoneSegLib.results.rendering import render_bones
from PedBoneSegLib.volume import Grid

TABLE = joint_table("knee")
FEMUR, TIBIA = (np.array(TABLE.bone(name).color) for name in ("femur", "tibia"))
FROM_THE_FRONT = (0.0, 1.0, 0.0)
PLAIN = np.eye(3)


def balls(*centers, affine=PLAIN, size=(60, 60, 60), radius=12.0):
    """Balls with the labels 1, 2, … around `centers` (LPS mm)."""
    grid = Grid.from_affine(size, np.c_[affine, -affine @ (np.array(size) - 1) / 2])
    places = np.moveaxis(np.indices(size), 0, -1) @ affine.T + grid.origin
    labels = np.zeros(size, np.uint8)
    for label, center in enumerate(centers, start=1):
        labels[((places - center) ** 2).sum(-1) < radius**2] = label
    return labels, grid


def middle(picture, color):
    """The mean row and column, from the picture's middle, of the pixels whose hue is that of `color`."""
    hue = picture / np.maximum(picture.max(-1, keepdims=True), 1)
    same = (np.abs(hue - color / color.max()) < 0.02).all(-1)
    return np.argwhere(same).mean(0) - (np.array(picture.shape[:2]) - 1) / 2


def test_a_ball_is_a_disk_of_its_size_brightest_in_the_middle():
    picture = render_bones(*balls((0, 0, 0)), TABLE, direction=FROM_THE_FRONT, size=106)
    disk = (picture < 250).any(-1)
    # 24 voxels of 1 mm and a margin of 6 %: 25.44 mm across
    assert disk.sum() == pytest.approx(np.pi * (106 * 12 / 25.44) ** 2, rel=0.03)
    np.testing.assert_allclose(picture[53, 53], FEMUR, atol=3)  # it faces the viewer: full color
    rim = picture[53, np.flatnonzero(disk[53])[2]]
    assert 0.3 * FEMUR.sum() < rim.sum() < 0.7 * FEMUR.sum()
    assert (picture[0, 0] == 255).all()


def test_up_is_up_and_left_is_on_the_right():
    picture = render_bones(*balls((12, 0, 12), (-12, 0, -12)), TABLE, direction=FROM_THE_FRONT, size=120)
    femur, tibia = middle(picture, FEMUR), middle(picture, TIBIA)
    np.testing.assert_allclose(femur, (-28, 28), atol=3)  # the patient's left and above: rows up, columns right
    np.testing.assert_allclose(tibia, (28, -28), atol=3)


@pytest.mark.parametrize("front", [-10, 10])
def test_what_is_nearer_hides_what_is_behind(front):
    picture = render_bones(*balls((0, front, 0), (0, -front, 0)), TABLE, direction=FROM_THE_FRONT, size=60)
    np.testing.assert_allclose(picture[30, 30], FEMUR if front < 0 else TIBIA, atol=6)  # P is negative in front


def test_the_grid_changes_nothing():
    """A left-handed, oblique, anisotropic grid shows the same as a plain one."""
    angle = np.radians(20)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    oblique = turn @ np.diag([-1.0, 0.8, 2.0])[:, [2, 0, 1]]
    there = (10, 0, 12), (-12, 0, -8)
    plain = render_bones(*balls(*there), TABLE, size=80)
    turned = render_bones(*balls(*there, affine=oblique, size=(44, 90, 100)), TABLE, size=80)
    for color in (FEMUR, TIBIA):  # the frame follows the voxels' axes, so by a pixel or two
        np.testing.assert_allclose(middle(turned, color), middle(plain, color), atol=2)


def test_nothing_to_see_is_white():
    labels, grid = balls()
    assert (render_bones(labels, grid, TABLE, size=20) == 255).all()
