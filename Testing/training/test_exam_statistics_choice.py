"""How much of an exam's own statistics a domain gets: the rule by hand, and the part of the export."""

from dataclasses import replace

import numpy as np
import pytest
from PedBoneSegTraining.data.dataset import LoadedCase
from PedBoneSegTraining.models import exam_statistics
from PedBoneSegTraining.models.card import model_card
from PedBoneSegTraining.models.draft import Draft, Exams
from PedBoneSegTraining.models.exam_statistics import (
    best_share,
    choose_exam_statistics,
    domain_statistics_alone,
    mean_dice,
)
from tiny import random_network, tiny_config, tiny_manifest

from PedBoneSegLib.anatomy import joint_table
from PedBoneSegLib.inference.predictor import Predictor
from PedBoneSegLib.volume import Grid, Volume

NAN = float("nan")


@pytest.mark.parametrize(
    "as_they_are, degraded, share",
    [
        ([0.9, 0.9, 0.9, 0.9], [0.5, 0.5, 0.5, 0.5], 0.0),  # equal: the smallest
        ([0.9, 0.899, 0.899, 0.8], [0.5, 0.6, 0.7, 0.9], 0.4),  # 0.6 loses too much on the exams as they are
        ([0.9, 0.91, 0.9, 0.9], [0.5, 0.5, 0.5, 0.5], 0.2),
        ([0.9, 0.899, 0.899, 0.899], [0.5, 0.5, 0.5, 0.5], 0.0),  # a loss without a gain
    ],
)
def test_the_rule_by_hand(as_they_are, degraded, share):
    dice = np.array([[as_they_are, degraded], [[NAN] * 4, [NAN] * 4]])
    assert best_share(dice) == share


def test_mean_dice_counts_bones_in_view_that_are_labelled():
    table, labels, truth = joint_table("knee"), np.zeros((2, 2, 2), np.uint8), np.zeros((2, 2, 2), np.uint8)
    truth[0], labels[0, 0] = 1, 1  # 2 of 4 voxels: 2·2/(4+2)
    truth[1, 0] = 2  # missed
    known = np.ones(1 + len(table.bones), bool)
    case = LoadedCase("a", None, truth, known)
    assert mean_dice(labels, case, table) == pytest.approx((2 / 3 + 0) / 2)
    known[2] = False
    assert mean_dice(labels, case, table) == pytest.approx(2 / 3)
    assert np.isnan(mean_dice(labels, replace(case, labels=np.zeros_like(truth)), table))


def load(number):
    random = np.random.default_rng(number)
    array = random.normal(20, 3, (6, 40, 40)).astype(np.float32)
    array[:, 8:32, 8:32] += 300
    axes = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    labels = np.zeros(array.shape, np.uint8)
    labels[:, 14:26, 14:26] = 1
    volume = Volume(array, Grid(array.shape, (4.0, 1.0, 1.0), (0.0, 0.0, 0.0), axes))
    return LoadedCase(f"{number}", volume, labels, np.ones(1 + len(joint_table("knee").bones), bool))


def test_the_export_takes_the_share_whose_labels_are_best(monkeypatch):
    """The true labels are made with a share of 0.4, so every other share must lose."""
    config = tiny_config(("knee", "ankle"), architecture="efficientnet-lite0")
    network = random_network(config)
    manifest = tiny_manifest(config, provenance={})
    cards = tuple(replace(card, exam_statistics=0.4) for card in manifest.domains)
    truthful = Predictor.for_network(network, cards, "cpu")
    monkeypatch.setattr(exam_statistics, "MOST", 2)
    monkeypatch.setattr(
        exam_statistics,
        "mean_dice",
        lambda labels, case, table: float((labels == truthful.segment(case.volume, "knee").labels).mean()),
    )
    monkeypatch.setattr(exam_statistics, "apply", lambda change, kind, case, number: case)
    knees = Exams(reserved=tuple(lambda number=number: load(number) for number in range(8)))
    draft = choose_exam_statistics(
        Draft(network, manifest, {"knee": knees, "ankle": Exams(reserved=knees.reserved[:7])})
    )
    assert [card.exam_statistics for card in draft.manifest.domains] == [0.4, 0.0]  # 7 exams are too few
    assert "40 %" in model_card(draft.manifest, 0.999) and "statistics" not in model_card(manifest, 0.999)
    assert domain_statistics_alone(draft.manifest) == manifest
