"""Muscles, tendons, ligaments, vessels and nerves laid along the posed bones."""

import numpy as np

from .draw import Draw
from .model import Frame, Strand
from .tissues import Tissue


class Weaver:
    """Collects strands given as knots (bone, x, y, z, radius) in the bones' own adult millimeters.

    Every strand is moved and swollen a little by the exam's own draw, and becomes a smooth curve of twice the knots.
    """

    def __init__(self, frames: dict[str, Frame], parameters: dict):
        self.frames, self.size = frames, parameters["size"]
        self.bulk = parameters["soft"]["bulk"]
        self.draw = Draw("strands", parameters["soft"]["seed"])
        self.strands: list[Strand] = []

    def strand(self, tissue: Tissue, knots, flat=None, aspect: float = 1.0, loose: float = 0.0, bulk: float = 1.0):
        shift = [self.draw.normal(0, loose) for _ in range(3)] if loose else (0.0, 0.0, 0.0)
        points = np.array([self.frames[k[0]].world(k[1:4]) for k in knots]) + np.array(shift) * self.size
        radii = np.array([k[4] for k in knots]) * self.size * bulk
        path, radii = _smooth(points), _smooth(radii[:, None])[:, 0]
        if flat is not None:
            normal = self.frames[knots[0][0]].rotation @ np.asarray(flat, float)
            flat = tuple(normal / np.linalg.norm(normal))
        self.strands.append(Strand(tissue, path, tuple(float(r) for r in radii), flat, aspect))

    def muscle(self, *knots):
        self.strand(Tissue.MUSCLE, knots, loose=1.5, bulk=self.bulk * self.draw.normal(1, 0.08))

    def tendon(self, *knots, **shape):
        self.strand(Tissue.TENDON, knots, **shape)

    def ligament(self, *knots, **shape):
        self.strand(Tissue.LIGAMENT, knots, **shape)

    def fluid(self, *knots, **shape):
        self.strand(Tissue.FLUID, knots, **shape)

    def fat(self, *knots):
        """Fat that shapes the outline."""
        self.strand(Tissue.FAT, knots)

    def vessel(self, *knots):
        self.strand(Tissue.VESSEL, knots, loose=1.5, bulk=self.draw.uniform(0.7, 1.3))

    def nerve(self, *knots):
        self.strand(Tissue.NERVE, knots, loose=1.0)


def _smooth(values: np.ndarray) -> np.ndarray:
    """Catmull-Rom midpoints between the rows: [n, c] → [2n - 1, c]."""
    padded = np.concatenate([2 * values[:1] - values[1:2], values, 2 * values[-1:] - values[-2:-1]])
    middle = (9 * (padded[1:-2] + padded[2:-1]) - padded[:-3] - padded[3:]) / 16
    result = np.empty((2 * len(values) - 1, values.shape[1]))
    result[::2], result[1::2] = values, middle
    return result
