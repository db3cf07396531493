"""Grids and label maps for tests: any permutation, flip, oblique or left-handed direction, any spacing, thin ones."""

import itertools

import numpy as np
from hypothesis import strategies as st

from PedBoneSegLib.volume import Grid

AXES = [
    np.eye(3)[list(order)] * signs
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]


def rotation(seed: int) -> np.ndarray:
    """A proper rotation, the same for the same seed."""
    matrix, triangle = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    matrix = matrix * np.sign(np.diag(triangle))
    return matrix * np.sign(np.linalg.det(matrix))


def make_grid(size=(3, 9, 7), spacing=(0.5, 0.75, 3.0), origin=(-10.5, 20.25, 33.0), direction=None) -> Grid:
    direction = np.eye(3) if direction is None else direction
    return Grid(tuple(size), tuple(spacing), tuple(origin), tuple(map(tuple, np.asarray(direction, float).tolist())))


@st.composite
def grids(draw) -> Grid:
    """All 48 orders and flips of the axes, half of them left-handed, straight or turned by any angle."""
    direction = draw(st.sampled_from(AXES))
    if draw(st.booleans()):
        direction = rotation(draw(st.integers(0, 10_000))) @ direction
    size = draw(st.one_of(st.just((3, 9, 7)), st.tuples(*[st.integers(1, 9)] * 3)))
    spacing = draw(st.tuples(*[st.floats(0.05, 12)] * 3))
    origin = draw(st.tuples(*[st.floats(-500, 500)] * 3))
    return make_grid(size, spacing, origin, direction)


def random_labels(size: tuple[int, ...], highest: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, highest + 1, size).astype(np.uint8)
