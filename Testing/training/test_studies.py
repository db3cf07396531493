"""The studies' arithmetic by hand-worked cases, and one of them from end to end."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PedBoneSegTraining.data import degraded
from PedBoneSegTraining.data.dataset import LoadedCase
from PedBoneSegTraining.studies import detection, exams, held_out, review, tables
from PedBoneSegTraining.synthesis import ahead

from PedBoneSegLib.errors import BadInput
from PedBoneSegLib.inference.result import ReviewSlice
from PedBoneSegLib.volume import Grid, Volume

EYE = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


def case() -> LoadedCase:
    array = np.zeros((6, 40, 40), np.int16)
    array[:, 8:32, 8:32] = 100
    labels = np.zeros(array.shape, np.uint8)
    labels[2:4, 14:26, 14:26] = 1
    array[labels > 0] = 300
    return LoadedCase(
        "a", Volume(array, Grid(array.shape, (4.0, 1.0, 1.0), (0.0, 0.0, 0.0), EYE), "a"), labels, np.ones(2, bool)
    )


def test_ranks_by_hand():
    assert tables.auroc([1, 2, 3], [4, 5]) == 1 and tables.auroc([1, 2], [2]) == 0.75
    assert tables.auroc([3, 4], [1, 2]) == 0 and np.isnan(tables.auroc([], [1]))
    inside = list(range(1, 101))  # 95 % of these are at most 95.05
    assert tables.missed_at_95(inside, [10, 95, 96, 200]) == 0.5


def test_a_table_goes_between_its_marks_alone():
    text = "a\n<!-- x -->\nold\n<!-- /x -->\nb <!-- y --><!-- /y -->"
    assert tables.spliced(text, "x", r"| \1 |") == "a\n<!-- x -->\n| \\1 |\n<!-- /x -->\nb <!-- y --><!-- /y -->"
    with pytest.raises(BadInput, match="no marks"):
        tables.spliced(text, "z", "")


def test_commands_are_kept_without_folders():
    words = [
        "--cache",
        "/home/someone/cache",
        "--models",
        "joint=/secret/joint.safetensors",
        "--exams",
        "3",
        "knee=/secret/knee.nrrd#femur=5,side=left",
    ]
    kept = " ".join(tables._private(word) for word in words)
    assert kept == "--cache cache --models joint=joint.safetensors --exams 3 knee=knee.nrrd#femur=5,side=left"


def test_shares_of_wrong_voxels_by_hand():
    wrong = np.array([0, 1, 0, 6, 0, 0, 2, 0, 1, 0])
    listed = [ReviewSlice(index, 2.5, 0.0) for index in (3, 8, 1, 6)]
    answer = review.found(listed, wrong)
    assert answer["shares"]["0.1"] == {"model": 0.6, "natural": 0.0, "random": 0.1, "best": 0.6}
    assert answer["shares"]["0.3"] == {"model": 0.8, "natural": 0.1, "random": 0.3, "best": 0.9}
    assert (answer["wrong"], answer["expected"], answer["slices"]) == (10, 10.0, 10)


@pytest.mark.parametrize("changes", [exams.FOREIGN, degraded.DEGRADED])
def test_changes_are_functions_of_their_name_and_number(changes):
    for what, change in changes.items():
        one, again, other = (degraded.apply(change, what, case(), number).volume.array for number in (3, 3, 4))
        np.testing.assert_array_equal(one, again)
        assert one.shape == case().volume.array.shape and np.isfinite(one).all()
        assert not np.array_equal(one, case().volume.array)
        if what in ("CT-like", "heavy noise", "noise only", "noise", "shading"):
            assert not np.array_equal(one, other)


def test_contrasts_are_what_their_names_say():
    one = case()
    image = degraded.apply(exams.inverted, "inverted", one, 0).volume.array
    assert image[3, 20, 20] < image[0, 20, 20] < image[0, 0, 0]  # bone darkest, air brightest
    image = degraded.apply(exams.ct_like, "CT-like", one, 0).volume.array
    assert image[2, 14, 20] > 1.5 * image[0, 20, 20] > 5 * abs(image[0, 0, 0])  # shell, soft tissue, air
    image = degraded.apply(exams.upside_down, "upside down", one, 0).volume.array
    np.testing.assert_array_equal(image, one.volume.array[:, :, ::-1])


def test_what_is_said_of_honest_and_foreign_images():
    def row(group, joint, detected, verdict, score):
        return {
            "group": group,
            "joint": joint,
            "detected": detected,
            "verdict": verdict,
            **dict.fromkeys(detection.METHODS, score),
        }

    rows = [
        row("held-out", "knee", "knee", "joint", 0.5), row("held-out", "knee", "ankle", "joint", 0.6),
        row("held-out", "knee", "knee", "unlike", 1.2), row("held-out", "knee", "knee", "ambiguous", 0.9),
        row("hip", None, "knee", "unlike", 2.0), row("hip", None, "knee", "joint", 0.1),
    ]  # fmt: skip
    assert "| held-out, knee | 4 | 0.750 | 0.250 | 0.250 | 0.250 |" in detection.honest(rows)
    assert "| hip | 2 | 0.500 | 0.500 (50 %) |" in detection.foreign(rows)


def test_a_cohort_comes_back_from_its_cache_as_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(ahead, "STACK_VOXELS", 60_000)
    made, again = (next(exams.cohort("not-a-joint", "elbow", 1, tmp_path)) for _ in range(2))
    np.testing.assert_array_equal(made.volume.array, again.volume.array)
    np.testing.assert_array_equal(made.labels, again.labels)
    assert made.volume.grid == again.volume.grid and len(list(tmp_path.iterdir())) == 1


def test_a_study_from_end_to_end(tmp_path, monkeypatch):
    from PedBoneSegTraining.studies import calibration
    from tiny import make_tiny_bundle

    model = make_tiny_bundle(tmp_path / "tiny.safetensors")
    document = tmp_path / "study.md"
    document.write_text("<!-- calibration -->\n<!-- /calibration -->")
    monkeypatch.setattr(
        sys,
        "argv",
        [
            "calibration",
            "--models",
            f"tiny={model}",
            "-o",
            str(tmp_path / "out"),
            "--document",
            str(document),
            "--exams",
            "1",
            "--device",
            "cpu",
        ],
    )
    one = case()
    knee = LoadedCase("a", one.volume, one.labels, np.ones(5, bool))
    monkeypatch.setattr(calibration, "cohort", lambda name, joint, count, cache: [knee] * (joint == "knee"))
    calibration.main()
    kept = json.loads((tmp_path / "out" / "calibration.json").read_text())
    assert kept["calibration"][0]["joint"] == "knee" and 0 <= kept["calibration"][0]["ece"] <= 1
    assert "| tiny | knee | 1.000 |" in document.read_text() and (tmp_path / "out" / "calibration.png").exists()
    assert str(tmp_path) not in (tmp_path / "out" / "calibration.json").read_text()


def test_the_families_of_held_out_exams_differ(tmp_path, monkeypatch):
    monkeypatch.setattr(ahead, "STACK_VOXELS", 60_000)
    args = SimpleNamespace(exams=1, cache=tmp_path, shapes=["knee=" + str(tmp_path)])
    families = held_out.families("ankle", args)
    assert list(families) == ["held-out", "unseen sequence", "degraded"]
    assert list(held_out.families("knee", args))[3:] == ["meshes"]
    first, unseen, degraded = (next(iter(cases())) for cases in families.values())
    assert unseen.volume.sequence == "STIR" != first.volume.sequence
    np.testing.assert_array_equal(degraded.labels, first.labels)
    assert (degraded.volume.array != first.volume.array).mean() > 0.5
    args.shapes = ["meshes"]
    with pytest.raises(BadInput, match="JOINT=PATH"):
        held_out.families("knee", args)


def test_a_table_of_families_by_hand():
    bone = {"exams": 4, "missing": 1, "dice": 0.6254}
    domains = {"knee": {"held-out": {"bones": {"femur": bone}}, "meshes": {"bones": {"femur": {**bone, "exams": 0}}}}}
    assert held_out.summary(domains).splitlines()[-1] == "| knee: femur | 0.625 (4, 1) | – |"
