"""Synthetic exams in memory: those of the frozen cohorts, in order, from this process or from others."""

from functools import partial

from PedBoneSegTraining.synthesis import ahead
from PedBoneSegTraining.synthesis.cohort import COHORTS, Frozen, Recipe
from synthetic_phantom import Phantom


def contrasts(name: str, count: int) -> list[str]:
    return [COHORTS[name].recipe("ankle").parameters(i)["image"]["contrast"] for i in range(count)]


def test_reserved_and_held_out_are_the_frozen_cohorts(monkeypatch):
    """With a simple limb for an anatomy, which the sequence of an exam does not depend on."""
    monkeypatch.setattr(
        Frozen, "recipe", lambda self, joint: Recipe(joint, self.seed, (Phantom(),), preset=self.preset)
    )
    monkeypatch.setattr(ahead, "STACK_VOXELS", 60_000)
    made = [ahead.reserved("ankle", i) for i in (1, 3)]
    assert made[0].volume.sequence == contrasts("reserved", 2)[1]
    assert made[1].volume.sequence == ahead.UNSEEN_SEQUENCE != contrasts("reserved", 4)[3]
    assert all(each.labels.any() and each.known.tolist() == [True] * 4 for each in made)
    assert ahead.held_out("ankle", 1).volume.sequence == contrasts("held-out", 2)[1]


def test_loaders_give_every_exam_in_any_order_and_as_often_as_asked():
    for jobs in (1, 2):
        loaders = ahead.loaders(partial(pow, 3), 5, jobs)
        assert [load() for load in loaders] == [1, 3, 9, 27, 81]
        assert loaders[2]() == 9 and loaders[0]() == 1 and loaders[4]() == 81
