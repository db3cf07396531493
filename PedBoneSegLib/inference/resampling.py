"""Resampling along one axis of a slice, between the input's pixels and the network's."""

import numpy as np

SHAPE_MULTIPLE = 32  # an encoder halves the size five times


def linear_matrix(points: np.ndarray, step: float, size: int) -> np.ndarray:
    """Weights [len(points), size] that interpolate a line of `size` samples at `points` (0 is the first one's center).

    Linear interpolation. If the points are further apart than the samples (step > 1), the kernel is widened by that
    factor, which averages what would otherwise alias. Points that lie more than half a sample (or half the kernel)
    beyond either end have weights of 0.
    """
    reach = 0.5 + max(0.0, step - 1.0) / 2 + 1e-6
    weights = np.maximum(0.0, 1.0 - np.abs(points[:, None] - np.arange(size)) / max(1.0, step))
    weights[(points < -reach) | (points > size - 1 + reach)] = 0.0
    total = weights.sum(axis=1, keepdims=True)
    return (weights / np.where(total > 0, total, 1.0)).astype(np.float32)


class SliceAxis:
    """One in-plane axis: `size` pixels of `spacing` mm, of which [start, stop) are the crop, and `count` network pixels
    of `pixel_mm`. Both grids have a pixel edge at `start`, so equal pixel sizes give an exact copy without blur."""

    def __init__(self, size: int, spacing: float, start: int, stop: int, pixel_mm: float) -> None:
        self.start, self.stop, self.ratio = start, stop, pixel_mm / spacing  # network pixel in input pixels
        self.used = int(np.ceil((stop - start) / self.ratio - 1e-6))  # network pixels that cover the crop
        self.count = max(1, -(-self.used // SHAPE_MULTIPLE)) * SHAPE_MULTIPLE
        self.pad = (self.count - self.used) // 2
        centers = np.arange(self.count) + 0.5 - self.pad
        points = start - 0.5 + centers * self.ratio  # the network's pixels on the input's axis
        self.forward = linear_matrix(points, self.ratio, size)
        seen = np.flatnonzero(self.forward.any(axis=0))
        self.seen = slice(int(seen[0]), int(seen[-1]) + 1)  # input pixels that contribute to a network pixel
        self.forward = np.ascontiguousarray(self.forward[:, self.seen])
        self.edges = start + (np.arange(self.count + 1) - self.pad) * self.ratio  # of the network's pixels


def largest_share(label_map: np.ndarray, rows: SliceAxis, columns: SliceAxis) -> np.ndarray:
    """A slice of labels [rows, columns] at the network's pixels: each gets the label that fills most of its area.

    What lies outside the slice is background (0). Where a bone covers exactly half of a pixel the bone wins, and of two
    equal bones the lower label, so the result does not depend on the direction in which an axis is read.
    """
    best = np.zeros((rows.count, columns.count), label_map.dtype)
    largest, covered = np.zeros(best.shape), np.zeros(best.shape)
    for label in np.unique(label_map[label_map > 0]):
        mask = label_map == label
        part = tuple(slice(*(np.flatnonzero(mask.any(axis=1 - number))[[0, -1]] + (0, 1))) for number in (0, 1))
        down, across = (
            _overlap(axis.edges, seen.start, seen.stop) / axis.ratio
            for axis, seen in zip((rows, columns), part, strict=True)
        )
        share = down @ mask[part].astype(np.float32) @ across.T
        covered += share
        wins = share > largest + 1e-5
        best[wins], largest[wins] = label, share[wins]
    best[largest + 1e-5 < 1 - covered] = 0
    return best


def _overlap(edges: np.ndarray, start: int, stop: int) -> np.ndarray:
    """Length [pixels, stop − start] that the pixels between `edges` share with the samples from `start` to `stop`."""
    sample = np.arange(start, stop)
    shared = np.minimum(edges[1:, None], sample + 1) - np.maximum(edges[:-1, None], sample)
    return np.asarray(np.maximum(shared, 0), np.float32)
