"""The loop: it learns two joints at once, stops at what is not finite, averages, selects, and logs what it did."""

import json
import math
from pathlib import Path

import pytest
import torch
from exam_phantoms import tiny_study, write_dataset
from PedBoneSegTraining.batch import Batch
from PedBoneSegTraining.configuration import Training, from_dict
from PedBoneSegTraining.data.domains import open_domains
from PedBoneSegTraining.loop import checkpoint
from PedBoneSegTraining.loop.distributed import Ranks
from PedBoneSegTraining.loop.networks import build_model
from PedBoneSegTraining.loop.runfolder import RunFolder
from PedBoneSegTraining.loop.schedule import averaging, learning_rate
from PedBoneSegTraining.loop.sources import open_source
from PedBoneSegTraining.loop.stages import stages
from PedBoneSegTraining.loop.trainer import Trainer
from PedBoneSegTraining.models.training_run import train

from PedBoneSegLib.errors import BadInput

CPU = torch.device("cpu")
ALONE = Ranks(0, 1, CPU)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    return {joint: [write_dataset(root / joint, joint, 4)] for joint in ("ankle", "knee")}


def trainer(table: dict, folder: Path, wrap=lambda source: source, validate=None) -> Trainer:
    """The trainer of a study's first stage; `wrap` may spoil its sources."""
    config = from_dict(table)
    study = open_domains(config)
    sources = {name: wrap(open_source(domain, config, CPU, lambda case: None)) for name, domain in study.items()}
    stage = stages(config)[0]
    model = build_model(stage, config, [domain.spec for domain in study.values()])
    return Trainer(stage, config, model, sources, folder, ALONE, {}, validate)


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


# ----------------------------------------------------------------------------------------------------- the schedule


def test_the_rate_rises_and_falls_as_a_function_of_the_step():
    settings = Training(learning_rate=1.0, warmup=4, schedule="cosine")
    assert [learning_rate(step, 100, settings) for step in range(4)] == [0.2, 0.4, 0.6, 0.8]
    assert learning_rate(4, 100, settings) == 1.0
    assert learning_rate(52, 100, settings) == pytest.approx(0.5)
    assert learning_rate(99, 100, settings) == pytest.approx((1 + math.cos(math.pi * 95 / 96)) / 2)
    linear = Training(learning_rate=2.0, warmup=0, schedule="linear")
    assert learning_rate(25, 100, linear) == 1.5
    assert learning_rate(70, 100, Training(learning_rate=2.0, warmup=0, schedule="constant")) == 2.0
    assert learning_rate(1, 10, Training(learning_rate=1.0, warmup=100, schedule="constant")) == 1.0  # cut to one step
    assert [averaging(0, 0.9), averaging(8, 0.9), averaging(1000, 0.9)] == [0.1, 0.5, 0.9]


# -------------------------------------------------------------------------------------------------------- the loop


def test_one_network_learns_two_joints_and_the_log_tells_it(folders, tmp_path):
    table = tiny_study(
        folders,
        data={"validation": 0.25},
        training={"steps": 260, "batch": 4, "average": 0.9, "learning_rate": 2e-2},
        run={"picture_every": 130, "log_every": 20, "checkpoint_every": 200},
        network={"width": 12},
        augmentation={
            "affine": {"rotation": 10, "scale": 0.1},
            "elastic": {"share": 0.0},
            "low_resolution": {"share": 0.0},
        },
    )
    train(from_dict(table), tmp_path, ALONE)
    logged = lines(tmp_path / "multi-domain")
    dice = logged[-1]
    assert dice["dice/ankle"] > 0.5 and dice["dice/knee"] > 0.5
    losses = [line["loss"] for line in logged if "loss" in line]
    assert losses[-1] < 0.5 * losses[0]
    assert {"cross_entropy/knee", "dice_loss/ankle", "gradient", "rate", "seconds"} <= logged[0].keys()
    pictures = sorted(path.name for path in (tmp_path / "multi-domain" / "pictures").iterdir())
    assert pictures == [f"{joint}-{step:08d}.png" for joint in ("ankle", "knee") for step in (130, 260)]


def test_a_step_holds_every_domain_and_goes_backward_once(folders, tmp_path, monkeypatch):
    calls = []
    backward = torch.Tensor.backward
    monkeypatch.setattr(torch.Tensor, "backward", lambda *args, **kwargs: calls.append(backward(*args, **kwargs)))
    one = trainer(tiny_study(folders, training={"steps": 3}), tmp_path / "one")
    seen = []
    one.model.register_forward_pre_hook(lambda module, args: seen.append(list(args[0])))
    one.run()
    assert len(calls) == 3 and seen == [["ankle", "knee"]] * 3
    two = trainer(tiny_study(folders, training={"steps": 3, "micro_batches": 2}), tmp_path / "two")
    two.run()
    assert len(calls) == 3 + 6


def test_similarities_are_logged_with_the_contrastive_term(folders, tmp_path):
    trainer(tiny_study(folders, loss={"contrastive": {"weight": 0.1}}), tmp_path).run()
    for line in lines(tmp_path):
        for name in ("embedding/intra", "embedding/inter", "pooled/intra", "pooled/inter"):
            assert -1 <= line[name] <= 1


def test_unlabelled_bones_reach_the_loss_as_unknown(tmp_path):
    folder = write_dataset(tmp_path / "knee", "knee", 1, ours={"unlabelled": {"knee_00": ["patella"]}})
    one = trainer(tiny_study({"knee": [folder]}), tmp_path / "run")
    batch = one.sources["knee"].batch(0, 2)
    names = ["background", *open_domains(one.config)["knee"].table.names]
    assert [name for name, known in zip(names, batch.known[1].tolist(), strict=True) if not known] == ["patella"]
    one.run()
    assert all(math.isfinite(line["loss"]) for line in lines(tmp_path / "run"))


class Spoiled:
    """A source one of whose samples is not a number at one step."""

    def __init__(self, source, domain: str, step: int) -> None:
        self.source, self.domain, self.spoiled, self.step = source, source.domain, domain, step

    def batch(self, step: int, count: int) -> Batch:
        batch = self.source.batch(step, count)
        if self.domain == self.spoiled and step == self.step:
            batch.images[1, 0, 5, 5] = torch.nan
            batch.cases[1] = "the culprit"
        return batch


@pytest.mark.parametrize("log_every", [1, 5])
def test_a_loss_that_is_not_finite_stops_with_step_and_culprit_and_spares_the_checkpoint(folders, tmp_path, log_every):
    table = tiny_study(folders, training={"steps": 8}, run={"log_every": log_every, "checkpoint_every": 2})
    broken = trainer(table, tmp_path / "broken", lambda source: Spoiled(source, "knee", 5))
    with pytest.raises(BadInput) as caught:
        broken.run()
    assert "not finite at step 5 (knee: the culprit)" in str(caught.value)
    assert "step-00000004.safetensors" in str(caught.value)
    kept = checkpoint.newest(tmp_path / "broken" / "checkpoints", pytest.fail)
    assert kept.facts["step"] == 4
    assert all(each.isfinite().all() for each in kept.tensors.values())


def test_the_average_is_the_one_of_the_weights_that_were(folders, tmp_path):
    table = tiny_study(folders, training={"steps": 5, "average": 0.6}, run={"checkpoint_every": 1, "keep": 9})
    one = trainer(table, tmp_path)
    expected = {name: each.clone() for name, each in one._averaged().items()}
    one.run()
    for path in reversed(checkpoint.checkpoints(tmp_path / "checkpoints")):
        found = checkpoint.load(path)
        decay = min(0.6, found.facts["step"] / (9 + found.facts["step"]))
        for name, each in found.part("model.network").items():
            if name in expected:
                expected[name] = decay * expected[name] + (1 - decay) * each
    for name, each in found.part("average").items():
        torch.testing.assert_close(each, expected[name], atol=1e-6, rtol=1e-5)
    assert any((each - found.part("model.network")[name]).abs().max() > 1e-4 for name, each in expected.items())


def test_the_final_step_is_the_result_unless_a_selection_is_asked_for(folders, tmp_path):
    """A validation that likes step 2 best: its weights are the result, bit for bit."""
    every = {"checkpoint_every": 2, "keep": 9}
    table = tiny_study(folders, data={"selection": 0.25}, training={"steps": 6, "validate_every": 2}, run=every)
    config = from_dict(table)
    run = RunFolder(tmp_path)
    run.enter(config, {}, None)
    trainer(table, tmp_path / "multi-domain", validate=lambda network, step: {"selection": 1.0 / step}).run()
    (result,) = run.results()
    assert (result.step, result.selected) == (2, True)
    second = checkpoint.load(tmp_path / "multi-domain" / "checkpoints" / "step-00000002.safetensors")
    early = second.part("model.network")
    assert all(torch.equal(each, early[name]) for name, each in result.network.state_dict().items())
    plain = trainer(tiny_study(folders, training={"steps": 2}), tmp_path / "plain", validate=lambda *_: {"dice": 1.0})
    plain.run()
    assert plain.best is None


def test_whole_exams_choose_among_the_steps(folders, tmp_path):
    table = tiny_study(folders, data={"selection": 0.25}, training={"steps": 2, "validate_every": 1}, name="chosen")
    train(from_dict(table), tmp_path, ALONE)
    looked = [line for line in lines(tmp_path / "multi-domain") if "selection" in line]
    assert [line["step"] for line in looked] == [1, 2]
    for line in looked:
        assert line["selection"] == pytest.approx((line["selection/dice/ankle"] + line["selection/dice/knee"]) / 2)
    (result,) = RunFolder.open(tmp_path).results()
    assert result.selected and result.step == (2 if looked[1]["selection"] > looked[0]["selection"] else 1)


@pytest.mark.parametrize("precision", ["bfloat16", "float64"])
def test_other_precisions_train_and_keep_their_weights_in_full(folders, tmp_path, precision):
    one = trainer(tiny_study(folders, training={"precision": precision}), tmp_path)
    one.run()
    found = checkpoint.newest(tmp_path / "checkpoints", pytest.fail)
    wanted = torch.float64 if precision == "float64" else torch.float32
    assert found.tensors["model.network.head.weight"].dtype == wanted
    assert math.isfinite(lines(tmp_path)[-1]["loss"])


def test_a_lab_with_three_exams_of_each_joint_gets_through(folders, tmp_path):
    three = {joint: [write_dataset(tmp_path / joint, joint, 3)] for joint in ("ankle", "knee")}
    table = tiny_study(three, training={"steps": 2})
    del table["data"]["validation"], table["data"]["reserved"]  # the shares as they are by default
    train(from_dict(table), tmp_path / "run", ALONE)
    assert RunFolder.open(tmp_path / "run").finished
