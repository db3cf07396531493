"""A knee of boxes, and a grid that no axis of the world is parallel to."""

import numpy as np
import vtk

from PedBoneSegLib.anatomy import joint_table

KNEE = joint_table("knee")
SIZE = (8, 20, 24)  # [k, j, i]


def oblique() -> np.ndarray:
    """A left-handed, rotated, anisotropic grid: IJK to RAS."""
    turn = vtk.vtkTransform()
    turn.RotateX(23)
    turn.RotateZ(-31)
    rotation = np.array([[turn.GetMatrix().GetElement(r, c) for c in range(3)] for r in range(3)])
    matrix = np.eye(4)
    matrix[:3, :3] = rotation @ np.diag([0.6, -0.8, 3.5])
    matrix[:3, 3] = 12.5, -40, 7
    return matrix


def blocks() -> np.ndarray:
    """Femur, tibia, fibula and patella as boxes that touch; one voxel apart from the rest at the grid's corner."""
    labels = np.zeros(SIZE, np.uint8)
    labels[1:7, 2:9, 3:15] = 1
    labels[1:7, 9:17, 3:15] = 2
    labels[3, 9:17, 15:18] = 3
    labels[2:4, 2:6, 18:22] = 4
    labels[7, 19, 23] = 4
    return labels
