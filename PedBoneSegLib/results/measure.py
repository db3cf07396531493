"""Measures the bones of a label map. What is measured is in `columns`."""

import numpy as np

from ..anatomy import JointTable
from ..volume import Grid
from .columns import BoneShape, Measurement, columns


def measure_bones(labels: np.ndarray, grid: Grid, table: JointTable) -> dict[str, Measurement]:
    """The measurements of every bone of the table by name; `labels` is [i, j, k]."""
    from scipy import ndimage

    measurements = {}
    for bone, box in zip(table.bones, ndimage.find_objects(labels, len(table.bones)), strict=True):
        if box is None:
            values = {column.key: column.absent for column in columns()}
        else:
            shape = BoneShape(labels[box] == bone.label, tuple(along.start for along in box), grid)
            values = {column.key: column.compute(shape) for column in columns()}
        measurements[bone.name] = Measurement(bone.label, values)
    return measurements
