"""Synthetic exams in memory, in the size that training sees, one by one or made ahead by other processes."""

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from functools import partial

import numpy as np

from ..data.dataset import LoadedCase
from .anatomy import JOINTS
from .cohort import COHORTS, Recipe
from .source import STACK_VOXELS
from .workers import pool

UNSEEN_SEQUENCE = "STIR"  # of every fourth reserved exam; training never draws it


def exam(recipe: Recipe, i: int) -> LoadedCase:
    """Exam i of the recipe, of at most as many voxels as a stack in training has."""
    recipe = replace(recipe, most_voxels=STACK_VOXELS)
    rendering = recipe.acquire(i, 0, recipe.body(i))
    known = np.ones(1 + len(JOINTS[recipe.joint].BONES), bool)
    return LoadedCase(rendering.volume.name, rendering.volume, rendering.labels, known)


def held_out(joint: str, i: int) -> LoadedCase:
    """Exam i of the frozen cohort `held-out`."""
    return exam(COHORTS["held-out"].recipe(joint), i)


def reserved(joint: str, i: int) -> LoadedCase:
    """Exam i of the frozen cohort `reserved`. Every fourth is in a sequence that training never draws, so that a
    threshold knows how far honest data may lie."""
    recipe = COHORTS["reserved"].recipe(joint)
    return exam(replace(recipe, preset=UNSEEN_SEQUENCE) if i % 4 == 3 else recipe, i)


def loaders(make: Callable[[int], LoadedCase], count: int, jobs: int = 1) -> tuple[Callable[[], LoadedCase], ...]:
    """Exam 0 … `count` − 1, each made when it is asked for, by `jobs` processes that run ahead."""
    ahead = _Ahead(make, count, jobs)
    return tuple(partial(ahead.load, i) for i in range(count))


class _Ahead:
    def __init__(self, make: Callable[[int], LoadedCase], count: int, jobs: int):
        self.make, self.count, self.jobs, self.pool = make, count, jobs, None
        self.made: dict[int, Future] = {}

    def load(self, i: int) -> LoadedCase:
        if self.jobs < 2:
            return self.make(i)
        self.pool = self.pool or pool(self.jobs)
        for number in range(i, min(self.count, i + 2 * self.jobs)):
            if number not in self.made:
                self.made[number] = self.pool.submit(self.make, number)
        case = self.made.pop(i).result()
        if i == self.count - 1:
            self.pool.shutdown()
            self.pool = None
        return case
