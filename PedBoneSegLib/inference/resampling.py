"""One axis of a slice: the input's pixels against the network's."""

import numpy as np

SHAPE_MULTIPLE = 32  # what five halvings of an encoder need


def linear_matrix(points: np.ndarray, step: float, size: int) -> np.ndarray:
    """Weights [len(points), size] that read a line of `size` samples at `points` (in samples, 0 is the first's center).

    Linear interpolation; where the points are further apart than the samples (step > 1) the kernel widens by as much,
    which averages what would alias. More than half a sample (or half the kernel) beyond either end all weights are 0.
    """
    reach = 0.5 + max(0.0, step - 1.0) / 2 + 1e-6
    weights = np.maximum(0.0, 1.0 - np.abs(points[:, None] - np.arange(size)) / max(1.0, step))
    weights[(points < -reach) | (points > size - 1 + reach)] = 0.0
    total = weights.sum(axis=1, keepdims=True)
    return (weights / np.where(total > 0, total, 1.0)).astype(np.float32)


class Line:
    """One in-plane axis: `size` pixels of `spacing` mm, of which [start, stop) are the crop, against `count` network
    pixels of `pixel_mm`. Pixel edges of the two meet at `start`, so that equal pixel sizes are a copy, not a blur."""

    def __init__(self, size: int, spacing: float, start: int, stop: int, pixel_mm: float):
        self.start, self.stop, self.ratio = start, stop, pixel_mm / spacing  # network pixel in input pixels
        self.used = int(np.ceil((stop - start) / self.ratio - 1e-6))  # network pixels that cover the crop
        self.count = max(1, -(-self.used // SHAPE_MULTIPLE)) * SHAPE_MULTIPLE
        self.pad = (self.count - self.used) // 2
        centers = np.arange(self.count) + 0.5 - self.pad
        points = start - 0.5 + centers * self.ratio  # the network's pixels on the input's axis
        self.forward = linear_matrix(points, self.ratio, size)
        seen = np.flatnonzero(self.forward.any(axis=0))
        self.seen = slice(int(seen[0]), int(seen[-1]) + 1)  # input pixels that any network pixel reads
        self.forward = np.ascontiguousarray(self.forward[:, self.seen])
        nearest = np.floor(points + 0.5).astype(int)
        self.inside = (nearest >= 0) & (nearest < size)
        self.nearest = np.clip(nearest, 0, size - 1)
