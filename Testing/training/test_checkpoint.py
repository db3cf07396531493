"""Checkpoints on disk: whole, verified, the last ones kept, damage passed over aloud."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PedBoneSegTraining.loop import checkpoint

TENSORS = {"model.a": torch.arange(6.0).view(2, 3), "model.b": torch.tensor(3), "optimizer.a.step": torch.tensor(2.0)}
FACTS = {"step": 4, "finished": False}


def test_what_is_read_is_what_was_written(tmp_path):
    tensors = {**TENSORS, "model.c": torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last)}
    loaded = checkpoint.load(checkpoint.save(tmp_path, 4, tensors, FACTS, keep=2))
    assert loaded.facts == FACTS and loaded.tensors.keys() == tensors.keys()
    assert all(torch.equal(loaded.tensors[name], each) for name, each in tensors.items())
    assert set(loaded.part("model")) == {"a", "b", "c"} and set(loaded.part("optimizer.a")) == {"step"}


def test_the_last_ones_are_kept_and_remains_of_dead_processes_swept(tmp_path):
    code = "import os, sys\nfrom PedBoneSegLib.files import whole_file\nwith whole_file(sys.argv[1]): os._exit(1)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "step-00000001.safetensors")])
    assert [path.name.startswith(".pedboneseg-") for path in tmp_path.iterdir()] == [True]
    for step in (1, 2, 3):
        checkpoint.save(tmp_path, step, TENSORS, FACTS, keep=2)
    assert sorted(os.listdir(tmp_path)) == ["step-00000002.safetensors", "step-00000003.safetensors"]


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "one bit":
        content[-3] ^= 1
        path.write_bytes(content)
    elif how == "a fact":
        path.write_bytes(content.replace(b'\\"step\\": 4', b'\\"step\\": 5'))
    assert path.read_bytes() != checkpoint.load(path.with_name("step-00000001.safetensors")).path.read_bytes()


@pytest.mark.parametrize("how", ["truncated", "empty", "one bit", "a fact"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before_and_that_is_said(tmp_path, how):
    checkpoint.save(tmp_path, 1, TENSORS, {"step": 1}, keep=2)
    damage(checkpoint.save(tmp_path, 4, TENSORS, FACTS, keep=2), how)
    said = []
    found = checkpoint.newest(tmp_path, said.append)
    assert found.facts == {"step": 1}
    assert len(said) == 1 and "step-00000004" in said[0]


def test_nothing_whole_is_nothing(tmp_path):
    assert checkpoint.newest(tmp_path, print) is None
    (tmp_path / "step-00000001.safetensors").write_bytes(b"x" * 100)
    said = []
    assert checkpoint.newest(tmp_path, said.append) is None and said


WRITER = """
import sys, torch
from pathlib import Path
from PedBoneSegTraining.loop import checkpoint
tensors = {"a": torch.zeros(1_000_000)}
for step in range(1, 10_000):
    tensors["a"] += 1
    checkpoint.save(Path(sys.argv[1]), step, tensors, {"step": step}, keep=2)
    if step == 1: print("begun", flush=True)
"""


def test_a_kill_while_writing_leaves_a_whole_checkpoint(tmp_path):
    """A process that does nothing but write checkpoints is killed at random moments."""
    for delay in (0.013, 0.061):
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE)
        assert process.stdout.readline() == b"begun\n"
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        found = checkpoint.newest(tmp_path, pytest.fail)
        assert found.tensors["a"].unique().tolist() == [found.facts["step"]]
        for path in checkpoint.checkpoints(tmp_path):
            path.unlink()
