"""Cross-validation by its command: paired folds, every exam scored once, killed and resumed, on a cluster."""

import csv
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from block_exams import write_block_study
from PedBoneSegTraining.crossval.study import CrossValidation

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """Three exams of one joint, two of the other."""
    folder = tmp_path_factory.mktemp("crossval")
    return write_block_study(folder, {"first": 3, "second": 2}, steps=12, checkpoint_every=4)


def command(config, folder, *more):
    return [sys.executable, "-m", "PedBoneSegTraining", "crossval", str(config), "-o", str(folder), *map(str, more)]


def crossval(config, folder, *more):
    return subprocess.run(command(config, folder, *more), env=ENVIRONMENT, capture_output=True, encoding="utf-8")


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


@pytest.mark.timeout(400)
def test_killed_at_random_it_ends_with_the_same_tables(config, whole, tmp_path):
    """The whole process group is killed once some files of the run have appeared; then it may finish."""
    folder, wanted = tmp_path / "killed", random.Random(7).randint(8, 16)
    process = subprocess.Popen(
        command(config, folder), env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    while process.poll() is None and sum(1 for _ in folder.rglob("*")) < wanted:
        time.sleep(0.01)
    assert process.poll() is None
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = crossval(config, folder)
    assert done.returncode == 0, done.stderr
    for name in ("scores.csv", "summary.csv"):
        assert (folder / name).read_text() == (whole[0] / name).read_text()


# -------------------------------------------------------------------------------------------------------- the report


@pytest.fixture(scope="module")
def report(whole, tmp_path_factory):
    """Two runs side by side; the second is a copy whose Dice of the first bone is 0.1 lower in every exam."""
    folder = tmp_path_factory.mktemp("report")
    worse = folder / "worse"
    shutil.copytree(whole[0], worse)
    for path in worse.glob("folds/*/scores.csv"):
        changed = [{**row, "dice": str(max(0, float(row["dice"]) - 0.1))} for row in rows(path)]
        with open(path, "w", newline="") as stream:
            writer = csv.DictWriter(stream, changed[0])
            writer.writeheader()
            writer.writerows(changed)
    done = subprocess.run(
        [sys.executable, "-m", "PedBoneSegTraining", "report", str(whole[0]), str(worse), "-o", str(folder / "page")],
        env=ENVIRONMENT, capture_output=True, encoding="utf-8",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder / "page"


def test_the_report_compares_exam_by_exam(report):
    (dice,) = [
        row
        for row in rows(report / "comparisons.csv")
        if (row["domain"], row["bone"], row["measure"]) == ("first", "upper bone", "dice")
    ]
    assert dice["pairs"] == "3" and float(dice["wilcoxon"]) == 0.25  # the smallest that three pairs can reach
    assert float(dice["mean_difference"]) == pytest.approx(-0.1, abs=1e-6) and dice["effect"] == "-1"


def test_the_page_asks_nothing_of_the_network(report):
    page = (report / "index.html").read_text()
    assert page.count('<figure class="exam">') == 6  # best, median and worst of two joints
    assert not re.search(r"(src|href|url\()\s*=?\s*[\"']?(https?:)?//", page)


def test_a_real_browser_opens_the_page_and_steps_through_an_exam(report, tmp_path):
    """The page as it is, and a script at its end that moves the first slider as a hand would."""
    moved = tmp_path / "moved.html"
    move = "const s = document.querySelector('.exam input'); s.value = 0; s.dispatchEvent(new Event('input'));"
    page = (report / "index.html").read_text().replace("</body>", f"<script>{move}</script></body>")
    moved.write_text(page)
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    done = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
         "--enable-logging=stderr", "--dump-dom", moved.as_uri()],
        capture_output=True, encoding="utf-8", timeout=120,
    )  # fmt: skip
    assert re.search(r"<output>slice 1 of \d+</output>", done.stdout), done.stderr[-2000:]
    assert "CONSOLE" not in done.stderr, done.stderr
