"""A knee of boxes, and a grid that no axis of the world is parallel to."""

import numpy as np
import vtk
from PedBoneSegUI import bonewriting, labelmaps, segmentations
from PedBoneSegUI.tasks import runToEnd

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


# ---- the panel's own steps, all at once


def fill(segmentation, volume, labels, table, side) -> None:
    runToEnd(bonewriting.filling(segmentation, volume, labels, table, side))


def refill(segmentation, volume, labels, table, side, kept, axis) -> None:
    runToEnd(bonewriting.replacing(segmentation, volume, labels, table, side, kept, axis))


def record(segmentation, volume, edited, **more) -> None:
    fingerprints = runToEnd(labelmaps.fingerprinting(segmentation, KNEE, volume, 2))
    segmentations.recordWritten(segmentation, KNEE, 2, fingerprints, edited, **more)


def edits(segmentation, table, volume, axis) -> list[int]:
    return runToEnd(labelmaps.findingEdits(segmentation, table, volume, axis))
