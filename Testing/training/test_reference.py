"""Signatures, thresholds and what an export makes of its reserve."""

from dataclasses import replace

import numpy as np
import pytest
from exam_phantoms import phantom
from PedBoneSegTraining.data.dataset import LoadedCase
from PedBoneSegTraining.models import reference
from PedBoneSegTraining.models.draft import Draft, Exams
from PedBoneSegTraining.models.reference import add_reference_data, left_out, make_signature
from tiny import random_network, tiny_config, tiny_manifest

from PedBoneSegLib.anatomy import joint_table
from PedBoneSegLib.inference.predictor import Predictor
from PedBoneSegLib.models.bundle import Bundle, write_bundle
from PedBoneSegLib.volume import Grid, Volume

EYE = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
JOINTS = ("ankle", "knee")


def case(joint: str, seed: int, known: bool = True) -> LoadedCase:
    image, labels = phantom(joint, seed)
    volume = Volume(image, Grid(image.shape, (5.0, 2.0, 2.0), (0.0, 0.0, 0.0), EYE), f"{joint} {seed}")
    return LoadedCase(volume.name, volume, labels, np.array([True] * len(joint_table(joint).bones) + [known]))


def draft_with(reserved: dict[str, int], known: bool = True) -> Draft:
    config = tiny_config(JOINTS)
    network = random_network(config)
    exams = {
        joint: Exams(reserved=tuple(lambda joint=joint, seed=seed: case(joint, seed, known) for seed in range(count)))
        for joint, count in reserved.items()
    }
    return Draft(network, tiny_manifest(config), exams)


def test_each_exam_is_measured_to_the_others():
    rows = np.array([[0.0], [1.0], [3.0], [7.0]])
    nearest = left_out(rows, lambda rest: lambda row: float(np.abs(rest - row).min()))
    np.testing.assert_array_equal(nearest, [1, 1, 2, 4])


def test_the_threshold_passes_95_percent():
    signatures = np.zeros((41, 3))
    signatures[:, 0] = np.arange(41) * 1.0  # neighbours 1 apart
    signatures[-1, 0] = 100  # and one exam far away: 61 to the next
    entry, tensors = make_signature("knee", 2, signatures)
    assert entry == {"layer": 2, "threshold": 1.0, "references": 41}
    assert tensors["signatures.knee"].shape == (41, 3) and tensors["signatures.knee"].dtype == np.float32
    with pytest.raises(ValueError, match="too few"):
        make_signature("knee", 2, signatures[:7])


def test_all_distances_together_pass_95_percent():
    random = np.random.default_rng(0)
    signatures, pooled = random.normal(size=(200, 6)), random.normal(size=(200, 4))
    others = random.normal(size=(100, 4)) + 6
    alone, _ = make_signature("knee", 1, signatures)
    entry, tensors = make_signature("knee", 1, signatures, 3, pooled, others)
    assert set(tensors) == {"signatures.knee", "pooled.knee", "others.knee"}
    assert entry["threshold"] > alone["threshold"]  # three chances to be out, so each threshold is wider
    assert entry["pooled"]["layer"] == 3 and entry["pooled"]["others"] == 100
    without, tensors = make_signature("knee", 1, signatures, 3, pooled)
    assert without["pooled"]["others"] == 0 and "others.knee" not in tensors


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Nine reserved knees, three ankles; written and opened again."""
    draft = add_reference_data(draft_with({"knee": 9, "ankle": 3}))
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    write_bundle(path, draft.manifest, draft.all_tensors())
    return Bundle.load(path)


def test_three_exams_are_too_few_and_the_card_says_so(made):
    ankle = made.manifest.domain("ankle")
    assert ankle.temperature == 1 and ankle.signature is None and "ankle" not in made.manifest.review
    assert "3 exams were kept from training: too few" in ankle.note


def test_nine_exams_give_all_of_it(made):
    knee = made.manifest.domain("knee")
    assert knee.signature["references"] == 9 and knee.signature["layer"] == reference.LAYER
    assert knee.temperature != 1 and knee.note == "" and made.manifest.review["knee"]["exams"] == 9
    result = Predictor(made, "cpu").segment(case("knee", 4).volume, "knee")
    assert result.review.slices and result.detection.scores["knee"] <= 1.001
    assert "uncalibrated" not in [notice.code for notice in result.warnings]


def test_the_expected_errors_are_those_that_were_made(made):
    """Over the exams that it was fitted on, expected and true numbers of wrong voxels agree."""
    predictor, expected, true = Predictor(made, "cpu"), 0.0, 0
    for seed in range(9):
        exam = case("knee", seed)
        result = predictor.segment(exam.volume, "knee")
        expected += sum(entry.score for entry in result.review.slices)
        seen = [entry.index for entry in result.review.slices]
        true += int((result.labels != exam.labels)[seen].sum())
    assert expected == pytest.approx(true, rel=0.1)


def test_two_joints_are_told_apart():
    draft = add_reference_data(draft_with({"knee": 10, "ankle": 10}))
    assert draft.manifest.domain("knee").signature["pooled"]["others"] == 10
    predictor, right = Predictor(draft.bundle(), "cpu"), 0
    for joint in JOINTS:
        for seed in range(20, 24):
            scores = predictor.detect(case(joint, seed).volume).scores
            right += min(scores, key=scores.get) == joint
    assert right >= 7  # random weights, phantoms that differ in brightness: nearly always


def test_exams_with_unlabelled_bones_give_signatures_alone():
    card = add_reference_data(draft_with({"knee": 8, "ankle": 0}, known=False)).manifest.domain("knee")
    assert card.signature["references"] == 8 and card.temperature == 1 and "0 fully labelled exams" in card.note


def test_only_the_adapted_domain_is_measured():
    draft = draft_with({"knee": 8})
    signed = replace(draft, only=("knee",)).with_card("ankle", temperature=2.0)
    after = add_reference_data(signed).manifest
    assert after.domain("ankle").temperature == 2.0 and after.domain("ankle").note == ""
    assert after.domain("knee").signature["pooled"]["others"] == 0
