"""Cross-validation by its command: paired folds, every exam scored once, killed and resumed, on a cluster."""

import csv
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from block_exams import write_blocks
from exam_phantoms import toml
from PedBoneSegTraining.crossval.study import CrossValidation

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """Three exams of one joint, two of the other."""
    root = tmp_path_factory.mktemp("crossval")
    domains = {}
    for joint, exams in (("first", 3), ("second", 2)):
        folder = write_blocks(root / joint, joint, exams, seed=exams)
        domains[joint] = {"datasets": [str(folder)], "table": str(folder / "table.csv")}
    path = root / "blocks.toml"
    path.write_text(
        toml(
            {
                "domains": domains,
                "slices": {"pixel_mm": 2.0},
                "network": {"architecture": "unet", "width": 4},
                "data": {"patch": [64, 64], "validation": 0.0, "reserved": 0.0},
                "training": {"steps": 12, "batch": 2, "learning_rate": 1e-2},
                "run": {"checkpoint_every": 4, "picture_every": 0, "device": "cpu"},
            }
        )
    )
    return path


def command(config, folder, *more):
    return [sys.executable, "-m", "PedBoneSegTraining", "crossval", str(config), "-o", str(folder), *map(str, more)]


def crossval(config, folder, *more):
    return subprocess.run(command(config, folder, *more), env=ENVIRONMENT, capture_output=True, text=True)


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    done = crossval(config, folder)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def rows(path: Path) -> list[dict]:
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


def test_every_exam_is_scored_by_the_fold_that_has_not_seen_it(whole):
    folder, printed = whole
    found = {(row["domain"], row["exam"], row["bone"]): row for row in rows(folder / "scores.csv")}
    assert len(found) == len(rows(folder / "scores.csv")) == (3 + 2) * 2
    assert {(domain, exam): row["fold"] for (domain, exam, _), row in found.items()} == {
        **{("first", f"exam{number}"): str(number) for number in range(3)},
        **{("second", f"exam{number}"): str(number) for number in range(2)},
    }
    study = CrossValidation.open(folder)
    for number in range(3):
        assert study.labels_file(number, "first", f"exam{number}").exists()
    assert "3 of 3 folds are done" in printed and "first: upper bone" in printed


def test_a_joint_without_the_exam_trains_on_all_of_its_own(whole):
    config = CrossValidation.open(whole[0]).fold_config(2)
    assert config.domains["first"].hold_out == ("exam2",) and config.domains["second"].hold_out == ()


def test_what_is_done_is_not_done_again(config, whole):
    folder, printed = whole
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("folds/**/*") if path.is_file()}
    assert crossval(config, folder).stdout == printed.split("fold 2: done\n")[1]
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("folds/**/*") if path.is_file()}


def test_another_configuration_is_refused(config, whole):
    done = crossval(config, whole[0], "--set", "training.steps=13")
    assert done.returncode == 2 and "training.steps was 12, now 13" in done.stderr
    done = crossval(config, whole[0], "--folds", "2")
    assert done.returncode == 2 and "the folds or the exams changed" in done.stderr


@pytest.mark.timeout(300)
def test_killed_at_random_it_ends_with_the_same_tables(config, whole, tmp_path):
    """The whole process group is killed when the next file of the run appears, three times; then it may finish."""
    folder, moment = tmp_path / "killed", random.Random(7)
    for _ in range(3):
        before = sum(1 for _ in folder.rglob("*"))
        process = subprocess.Popen(
            command(config, folder), env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        wanted = before + moment.randint(3, 20)
        while process.poll() is None and sum(1 for _ in folder.rglob("*")) < wanted:
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    done = crossval(config, folder)
    assert done.returncode == 0, done.stderr
    for name in ("scores.csv", "summary.csv"):
        assert (folder / name).read_text() == (whole[0] / name).read_text()
