"""A run that is killed resumes by the same command and ends as if it had not been; what may not change is refused."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from exam_phantoms import describe, tiny_study, toml, write_dataset
from PedBoneSegTraining.configuration import from_dict
from PedBoneSegTraining.loop import checkpoint
from PedBoneSegTraining.loop.distributed import Ranks
from PedBoneSegTraining.loop.runfolder import RunFolder
from PedBoneSegTraining.models.training_run import train

from PedBoneSegLib.errors import BadInput
from PedBoneSegLib.models.bundle import Bundle

ALONE = Ranks(0, 1, torch.device("cpu"))
TERMS = {
    "contrastive": {"weight": 0.1},
    "adversarial": {"weight": 0.01, "width": 4},
    "prior": {"weight": 0.1, "width": 8},
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    return {joint: [write_dataset(root / joint, joint, 3)] for joint in ("ankle", "knee")}


def last(run: Path, stage: str) -> checkpoint.Checkpoint:
    return checkpoint.newest(run / stage / "checkpoints", pytest.fail)


def same(one: checkpoint.Checkpoint, other: checkpoint.Checkpoint) -> bool:
    assert one.tensors.keys() == other.tensors.keys() and one.facts == other.facts
    return all(torch.equal(each, other.tensors[name]) for name, each in one.tensors.items())


def steps_of(run: Path, stage: str) -> list[int]:
    lines = (run / stage / "log.jsonl").read_text().splitlines()
    return [json.loads(line)["step"] for line in lines if "loss" in json.loads(line)]


# The command line in a process that is killed a moment after the first checkpoint that it writes.
KILLED = """
import os, signal, sys, threading
from PedBoneSegTraining.loop import checkpoint
from PedBoneSegTraining.program.commands import main
save = checkpoint.save
def save_and_die(*arguments, **options):
    path = save(*arguments, **options)
    threading.Timer(float(sys.argv[1]), os.kill, (os.getpid(), signal.SIGKILL)).start()
    return path
checkpoint.save = save_and_die
main(sys.argv[2:])
"""


def test_killed_at_any_moment_it_ends_bit_for_bit_as_if_it_had_not_been(folders, tmp_path):
    """All terms, both stages, averaged weights; the same command again and again, killed after random times."""
    table = tiny_study(
        folders,
        loss=TERMS,
        training={"steps": 16, "average": 0.9, "prior_steps": 6, "batch": 2},
        run={"checkpoint_every": 3, "keep": 2, "picture_every": 4},
    )
    torch.set_num_threads(1)
    train(from_dict(table), tmp_path / "whole", ALONE)
    config = tmp_path / "tiny.toml"
    config.write_text(toml(table))
    train_it = ["train", str(config), "-o", str(tmp_path / "killed")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for delay in ("0", "0.02", "0.05"):
        killed = subprocess.run([sys.executable, "-c", KILLED, delay, *train_it], env=environment, capture_output=True)
        assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    subprocess.run([sys.executable, "-m", "PedBoneSegTraining", *train_it], env=environment, check=True)
    for stage in ("prior", "multi-domain"):
        assert same(last(tmp_path / "whole", stage), last(tmp_path / "killed", stage))
        assert steps_of(tmp_path / "killed", stage) == steps_of(tmp_path / "whole", stage)


def begun(folders, run: Path, **training) -> dict:
    table = tiny_study(folders, training={"steps": 2, **training}, run={"checkpoint_every": 1, "keep": 3})
    train(from_dict(table), run, ALONE)
    return table


def test_more_steps_for_a_finished_run_are_the_one_change_allowed(folders, tmp_path):
    table = begun(folders, tmp_path)
    table["training"]["steps"] = 4
    train(from_dict(table), tmp_path, ALONE)
    assert last(tmp_path, "multi-domain").facts["step"] == 4
    assert steps_of(tmp_path, "multi-domain") == [1, 2, 3, 4]
    table["training"]["steps"] = 3
    with pytest.raises(BadInput, match="only a finished run may be given more steps"):
        train(from_dict(table), tmp_path, ALONE)
    for path in checkpoint.checkpoints(tmp_path / "multi-domain" / "checkpoints")[:1]:
        path.unlink()  # now it stands at step 3 of 4
    table["training"]["steps"] = 6
    with pytest.raises(BadInput, match="not finished"):
        train(from_dict(table), tmp_path, ALONE)


def test_a_changed_configuration_is_refused_with_the_key(folders, tmp_path):
    table = begun(folders, tmp_path)
    changes = {
        r"training\.batch was 2, now 3": {"training": {**table["training"], "batch": 3}},
        r"network\.width was 8, now 4": {"network": {**table["network"], "width": 4}},
        r"augmentation\.gamma\.share was 0\.5, now not in use": {"augmentation": {"gamma": {"share": 0.0}}},
    }
    for words, changed in changes.items():
        with pytest.raises(BadInput, match=words):
            train(from_dict({**table, **changed}), tmp_path, ALONE)
    changed = {**table, "run": {**table["run"], "log_every": 2}}
    train(from_dict(changed), tmp_path, ALONE)  # where and how often things are written may change


def test_changed_data_are_refused_with_the_file(tmp_path):
    folder = write_dataset(tmp_path / "Knee", "knee", 2)
    table = begun({"knee": [folder]}, tmp_path / "run")
    describe(folder, "knee", 2, {"sides": {"knee_00": "left"}})
    with pytest.raises(BadInput, match="other data: knee.Knee.files.dataset.json changed"):
        train(from_dict(table), tmp_path / "run", ALONE)
    describe(folder, "knee", 2)
    moved = folder.rename(tmp_path / "elsewhere")
    moved = moved.rename(tmp_path / "Knee")
    train(from_dict(table), tmp_path / "run", ALONE)


def test_a_damaged_checkpoint_is_passed_over_aloud_and_the_end_is_the_same(folders, tmp_path, capsys):
    table = begun(folders, tmp_path)
    whole = last(tmp_path, "multi-domain")
    path = checkpoint.checkpoints(tmp_path / "multi-domain" / "checkpoints")[0]
    content = bytearray(path.read_bytes())
    content[-9] ^= 4
    path.write_bytes(content)
    train(from_dict(table), tmp_path, ALONE)
    assert "step-00000002.safetensors does not have the SHA-256" in capsys.readouterr().out
    assert same(last(tmp_path, "multi-domain"), whole)


def test_a_run_keeps_what_it_was_made_of(folders, tmp_path):
    begun(folders, tmp_path)
    run = RunFolder.open(tmp_path)
    assert run.config.training.steps == 2 and run.finished
    assert {"torch", "python", "pedboneseg"} <= run.about["versions"].keys()
    assert run.data["knee"][0]["split"]["train"] == ["knee_00", "knee_01", "knee_02"]
    with pytest.raises(BadInput, match="not a run's folder"):
        RunFolder.open(tmp_path / "absent")


def test_a_run_killed_before_its_model_was_written_writes_it_by_the_same_command(folders, tmp_path):
    table = begun(folders, tmp_path)
    assert not list(tmp_path.glob("*.safetensors"))  # trained, and no more
    table["run"]["export"] = True
    train(from_dict(table), tmp_path, ALONE)
    assert Bundle.load(tmp_path / "tiny.safetensors").manifest.provenance["step"] == 2
