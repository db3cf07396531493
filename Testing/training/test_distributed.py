"""Real ranks over gloo on the CPU: the same gradient, the same statistics, and a killed rank survived."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from exam_phantoms import tiny_study, toml, write_dataset
from live_processes import children, wait_until
from PedBoneSegTraining.loop import checkpoint
from PedBoneSegTraining.loop.distributed import Ranks
from safetensors.torch import load_file

from PedBoneSegLib.errors import BadInput

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}

WORKER = """
import sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from PedBoneSegTraining import configuration
from PedBoneSegTraining.data.domains import open_domains
from PedBoneSegTraining.loop.sources import open_source
from PedBoneSegTraining.loop.distributed import Ranks
from PedBoneSegTraining.loop.stages import stages
from PedBoneSegTraining.loop.networks import build_model
from PedBoneSegTraining.loop.trainer import Trainer

config, out = configuration.load(sys.argv[1], sys.argv[3:]), Path(sys.argv[2])
ranks = Ranks.start("cpu")
study = open_domains(config)
sources = {name: open_source(domain, config, ranks.device, lambda case: None) for name, domain in study.items()}
stage = stages(config)[0]
trainer = Trainer(stage, config, build_model(stage, config, [each.spec for each in study.values()]), sources,
                  out / "run", ranks, {})
trainer.run()
state = {f"model.{name}": each for name, each in trainer.model.state_dict().items()}
for name, parameter in trainer.stepper.parameters.items():
    state[f"gradient.{name}"] = trainer.optimizer.state[parameter]["exp_avg"] * 10  # of one step: 0.1 of the gradient
save_file({name: each.contiguous() for name, each in state.items()}, out / f"rank{ranks.rank}.safetensors")
del trainer
ranks.stop()
tasks = Path("/proc/self/task")
names = [each.read_text() for each in tasks.glob("*/comm")] if tasks.exists() else []
assert not [name for name in names if "gloo" in name], "gloo's threads outlive the group"
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("study")
    folders = {joint: [write_dataset(root / joint, joint, 3)] for joint in ("ankle", "knee")}
    table = tiny_study(
        folders,
        training={"steps": 1, "micro_batches": 2, "precision": "float64", "clip": 0.0},
        loss={"contrastive": {"weight": 0.1}, "adversarial": {"weight": 0.01, "width": 4}},
        network={"width": 4},
    )
    path = root / "tiny.toml"
    path.write_text(toml(table))
    return path


def work(config: Path, out: Path, ranks: int, *overrides: str) -> list[dict[str, torch.Tensor]]:
    """Trains in `ranks` processes; each one's weights, statistics and gradient."""
    out.mkdir()
    script = out / "worker.py"
    script.write_text(WORKER)
    launcher = [*TORCHRUN, f"--nproc-per-node={ranks}"] if ranks > 1 else [sys.executable]
    command = [*launcher, str(script), str(config), str(out), *overrides]
    subprocess.run(command, env=ENVIRONMENT, check=True, timeout=500)
    return [load_file(out / f"rank{rank}.safetensors") for rank in range(ranks)]


def test_two_ranks_have_the_gradient_of_one_with_the_same_micro_batches(config, tmp_path):
    (alone,), (first, second) = work(config, tmp_path / "one", 1), work(config, tmp_path / "two", 2)
    gradients = [name for name in alone if name.startswith("gradient.")]
    assert any("projections" in name for name in gradients) and any("discriminator" in name for name in gradients)
    for name in gradients:
        assert alone[name].abs().max() > 0, name
        torch.testing.assert_close(first[name], alone[name], atol=1e-10, rtol=0, msg=name)
        assert torch.equal(first[name], second[name])
    assert all(each.dtype == torch.float64 for each in alone.values() if each.is_floating_point())


def test_after_more_steps_weights_and_statistics_are_the_same_on_every_rank(config, tmp_path):
    first, second = work(config, tmp_path / "two", 2, "training.steps=3", "training.precision=float32")
    moved = [name for name in first if name.endswith("running_mean")]
    assert moved and all(first[name].abs().max() > 0 for name in moved)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_micro_batches_that_cannot_be_shared_are_refused():
    with pytest.raises(BadInput, match="cannot be shared by 2 ranks; set it to a multiple of 2"):
        Ranks(0, 2, torch.device("cpu")).own(3)
    assert list(Ranks(1, 2, torch.device("cpu")).own(4)) == [1, 3]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the ranks' processes in /proc")
def test_a_killed_rank_is_survived_by_restart(config, tmp_path):
    """torchrun starts both again when one dies; they resume, and the end is that of a run that nobody killed."""
    settings = ["--set", "training.steps=12", "training.precision=float32", "run.checkpoint_every=2"]
    launcher = [*TORCHRUN, "--nproc-per-node=2", "--max-restarts=1"]
    command = [*launcher, "-m", "PedBoneSegTraining", "train", str(config), *settings]
    subprocess.run([*command, "-o", str(tmp_path / "whole")], env=ENVIRONMENT, check=True, timeout=500)
    process = subprocess.Popen([*command, "-o", str(tmp_path / "killed")], env=ENVIRONMENT, stdout=subprocess.PIPE)
    folder = tmp_path / "killed" / "multi-domain" / "checkpoints"
    wait_until(lambda: process.poll() is not None or list(folder.glob("step-*")))
    os.kill(children(process.pid)[-1], signal.SIGKILL)
    output = process.communicate(timeout=500)[0].decode()
    assert process.returncode == 0
    assert "resumed at step" in output
    whole, killed = (
        checkpoint.newest(tmp_path / name / "multi-domain" / "checkpoints", pytest.fail) for name in ("whole", "killed")
    )
    assert killed.facts == whole.facts and killed.facts["step"] == 12
    assert all(torch.equal(each, killed.tensors[name]) for name, each in whole.tensors.items())
