"""From a finished run to a model that the runtime opens: what it says of itself, what it proves, what it refuses."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from block_exams import BONES, block_table, write_blocks
from PedBoneSegTraining.configuration import from_dict
from PedBoneSegTraining.data.dataset import load_case, read_dataset
from PedBoneSegTraining.evaluation import evaluate
from PedBoneSegTraining.loop.distributed import Ranks
from PedBoneSegTraining.loop.runfolder import RunFolder
from PedBoneSegTraining.models import agreement, export
from PedBoneSegTraining.models import draft as drafts
from PedBoneSegTraining.models.card import write_card
from PedBoneSegTraining.models.training_run import train
from PedBoneSegTraining.program.commands import main

from PedBoneSegLib.errors import BadModel
from PedBoneSegLib.inference.predictor import Predictor
from PedBoneSegLib.inference.slices import SliceSettings, SliceStack
from PedBoneSegLib.models.bundle import Bundle

JOINTS = ("hock", "stifle")


def configuration(folder, name="Blocks", scheme="multi-domain", steps=80, export=True):
    return from_dict(
        {
            "name": name,
            "scheme": scheme,
            "domains": {j: {"datasets": [str(folder / j)], "table": str(folder / j / "table.csv")} for j in JOINTS},
            "slices": {"pixel_mm": 2.0},
            "network": {"architecture": "unet", "width": 8},
            "data": {"patch": [64, 64], "validation": 0.25, "reserved": 0.25},
            "training": {"steps": steps, "batch": 4, "learning_rate": 1e-2, "warmup": 2},
            "run": {"picture_every": 0, "device": "cpu", "export": export},
        }
    )


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A folder with two joints' data sets and a finished run over both."""
    folder = tmp_path_factory.mktemp("lab")
    for number, joint in enumerate(JOINTS):
        write_blocks(folder / joint, joint, 4, seed=number, inverted=bool(number))
    train(configuration(folder, export=False), folder / "run", Ranks.start("cpu"))
    return folder


@pytest.fixture(scope="module")
def model(lab):
    assert main(["export", str(lab / "run"), "-o", str(lab / "model.safetensors"), "--licence", "CC0-1.0"]) == 0
    return lab / "model.safetensors"


@pytest.fixture
def begun(lab):
    """A draft of the run's network with an exam for each domain."""
    run = RunFolder.open(lab / "run")
    result = next(run.results())
    study = export.open_domains(run.config)
    exams = {name: export.exams_of(domain, run.config.seed) for name, domain in study.items()}
    tables = {name: domain.table for name, domain in study.items()}
    return export.start_draft(result.network, tables, run.config.slices, exams, name="x")


def exam(lab, joint, number=0):
    dataset = read_dataset(lab / joint, joint=joint, table=block_table(joint))
    return load_case(dataset, dataset.cases[number])


def test_the_model_knows_what_it_is(lab, model):
    manifest = Bundle.load(model).manifest
    assert (manifest.name, manifest.licence, manifest.storage) == ("blocks", "CC0-1.0", "float16")
    assert "float16" in manifest.precisions
    assert [card.name for card in manifest.domains] == list(JOINTS)
    for card in manifest.domains:
        assert card.metrics["exams"] == 1
        assert all(card.metrics["bones"][bone]["dice"] > 0.9 for bone in BONES)
        assert card.settings["pixel_mm"] == 2.0
    data = manifest.provenance["data"]["hock"]
    assert [data[group] for group in ("train", "validation", "selection", "reserved")] == [3, 1, 0, 0]
    assert manifest.provenance["configuration"]["training.steps"] == 80
    for part in ("not a medical device", "upper bone", "CC0-1.0", "assd [mm]"):
        assert part in manifest.card


def test_the_model_does_not_tell_whose_images_it_learnt_from(lab, model):
    text = json.dumps(Bundle.load(model).manifest.to_dict())
    assert str(lab) not in text and "exam0" not in text


def test_the_runtime_gives_the_labels_of_the_trained_network(lab, model):
    """Independently of export's own proof: the network of the run, slice by slice, unfolded."""
    network = next(RunFolder.open(lab / "run").results()).network
    predictor = Predictor(Bundle.load(model), "cpu")
    for joint in JOINTS:
        volume = exam(lab, joint).volume
        stack = SliceStack(volume, SliceSettings(pixel_mm=2.0))
        with torch.inference_mode():
            images = torch.from_numpy(stack.images(stack.occupied))
            logits = network(images, [joint] * len(images)).logits[joint]
        plain = stack.labels(predictor.segment(volume, joint).labels, stack.occupied)
        # Post-processing may drop a few voxels; the network's pixels are the volume's here.
        assert (logits.argmax(1).numpy() == plain).mean() > 0.99


def test_a_file_whose_labels_differ_is_not_kept(begun, tmp_path, monkeypatch):
    good = export.write_bundle

    def damaging(path, manifest, tensors):
        return good(path, manifest, tensors | {"network.head.weight": 0 * tensors["network.head.weight"]})

    monkeypatch.setattr(export, "write_bundle", damaging)
    with pytest.raises(BadModel, match="not the trained network's"):
        export.finish(begun, tmp_path / "model.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_storage_is_float32_where_float16_cannot_hold_the_weights(begun):
    assert agreement.choose_storage(begun).manifest.storage == "float16"
    adapted = replace(begun, only=("hock",))  # from a float32 model: rounding would change its older domains
    assert agreement.choose_storage(adapted).manifest.storage == "float32"
    layer = begun.network.encoder.levels[0].first
    with torch.no_grad():  # the same function, with weights beyond float16
        layer.conv.weight *= 1e6
        layer.norm.running_mean *= 1e6
        layer.norm.running_var *= 1e12
    assert agreement.choose_storage(begun).manifest.storage == "float32"


def test_how_much_labels_may_change_by_rounding_is_for_the_user_to_say(begun, monkeypatch, capsys):
    monkeypatch.setattr(agreement, "label_agreement", lambda *_: 0.9985)
    assert agreement.choose_storage(begun).manifest.storage == "float32"
    assert agreement.choose_storage(replace(begun, agreement=0.9986)).manifest.storage == "float32"
    lenient = write_card(agreement.choose_storage(replace(begun, agreement=0.998)))
    assert lenient.manifest.storage == "float16" and "Dice ≥ 0.998)" in lenient.manifest.card
    agreement.prove(lenient, lenient.bundle())
    with pytest.raises(BadModel, match="0.9985"):
        agreement.prove(begun, begun.bundle())
    with pytest.raises(SystemExit, match="2"):
        main(["export", "run", "--agreement", "99.8"])
    assert "99.8 is no Dice above 0 and up to 1" in capsys.readouterr().err


def test_a_number_format_in_which_labels_change_is_not_claimed(begun):
    """Logits around 10⁵ in the head: float32 and bfloat16 hold them, float16 does not."""
    assert "float16" in agreement.validate_precisions(begun).manifest.precisions
    with torch.no_grad():
        begun.network.head.weight *= 1e5
        begun.network.head.bias *= 1e5
    assert "float16" not in agreement.validate_precisions(begun).manifest.precisions


def test_what_is_validated_is_what_is_stored(begun, tmp_path):
    half = agreement.choose_storage(begun)
    export.finish(begun, tmp_path / "model.safetensors")
    stored, validated = Bundle.load(tmp_path / "model.safetensors").network(), half.bundle().network()
    for name, tensor in stored.state_dict().items():
        assert torch.equal(tensor, validated.state_dict()[name])
    assert not torch.equal(stored.head.weight, begun.network.head.weight)


def test_without_an_exam_nothing_is_claimed(begun, tmp_path):
    blind = replace(begun, exams={name: drafts.Exams() for name in JOINTS})
    manifest = export.finish(blind, tmp_path / "model.safetensors")
    assert (manifest.storage, manifest.precisions) == ("float32", ("float32",))
    assert all(card.metrics == {} for card in manifest.domains) and "Not measured" in manifest.card


def test_rounding_imitates_a_device_of_that_format():
    with agreement._Rounding(torch.float16):
        assert torch.exp(torch.tensor(12.0)) == torch.inf  # 162755
        x = torch.tensor([1.0, 2.0]) * (1 + 2**-12)
        assert x.tolist() == [1.0, 2.0]
        x += 2**-13
        assert x.tolist() == [1.0, 2.0]
    torch.manual_seed(0)
    layer, x = torch.nn.Conv2d(16, 16, 3), torch.randn(1, 16, 8, 8)
    with torch.no_grad():
        exact, real = layer(x), layer.bfloat16()(x.bfloat16()).float()
        with agreement._Rounding(torch.bfloat16):
            imitated = layer.float()(x.bfloat16().float())
    assert (imitated - real).abs().max() < 0.1 * (exact - real).abs().max() + 2**-7 * exact.abs().max()


def test_what_a_later_part_puts_into_the_draft_is_in_the_file(begun, tmp_path):
    """The seam for temperatures, signatures and thresholds: a card's fields and tensors beside the network's."""
    signature = {"layer": 1, "threshold": 0.5, "references": 8}
    rich = begun.with_card("hock", temperature=2.0, signature=signature)
    rich = replace(rich, tensors={"signatures.hock": torch.ones(8, rich.network.encoder.channels[1])})
    export.finish(rich, tmp_path / "model.safetensors")
    bundle = Bundle.load(tmp_path / "model.safetensors")
    assert (bundle.manifest.domain("hock").temperature, bundle.manifest.domain("hock").signature) == (2.0, signature)
    assert bundle.tensors["signatures.hock"].shape == (8, 16)
    assert bundle.manifest.domain("stifle").temperature == 1.0


def test_one_file_a_network(lab, tmp_path):
    """And `train` writes them by itself when it is done."""
    train(configuration(lab, "Two alone", "individual", steps=1), tmp_path / "run", Ranks.start("cpu"))
    written = sorted((tmp_path / "run").glob("*.safetensors"))
    assert [path.name for path in written] == ["two-alone-hock.safetensors", "two-alone-stifle.safetensors"]
    for path, joint in zip(written, JOINTS, strict=True):
        manifest = Bundle.load(path).manifest
        assert (manifest.name, [card.name for card in manifest.domains]) == (f"two-alone-{joint}", [joint])


def test_agreement_by_hand():
    a, b = np.array([1, 1, 1, 2, 0, 0]), np.array([1, 1, 0, 2, 2, 0])
    assert agreement.label_agreement(a, b, 3) == pytest.approx(2 / 3)
    assert agreement.label_agreement(a, a, 3) == 1
    assert agreement.label_agreement(a * 0, a * 0, 3) == 1
    assert agreement.label_agreement(a, a * 0, 3) == 0


def test_evaluate_scores_every_bone_of_every_exam(lab, model, capsys):
    arguments = ["--model", str(model), "--data", str(lab / "stifle"), "--joint", "stifle", "--device", "cpu"]
    assert main(["evaluate", *arguments, "-o", str(lab / "scores.csv")]) == 0
    with open(lab / "scores.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["exam"], row["bone"]) for row in rows] == [(f"exam{n}", bone) for n in range(4) for bone in BONES]
    table = capsys.readouterr().out.splitlines()
    assert [line[:10] for line in table] == ["bone      ", *BONES]
    dice = np.mean([float(row["dice"]) for row in rows if row["bone"] == BONES[0]])
    assert table[1].split()[5] == f"{dice:.3f}"
    case = exam(lab, "stifle")
    found = Predictor(Bundle.load(model), "cpu").segment(case.volume, "stifle").labels
    both = 2 * ((found == 1) & (case.labels == 1)).sum() / ((found == 1).sum() + (case.labels == 1).sum())
    assert float(rows[0]["dice"]) == pytest.approx(both)


def test_bones_that_nobody_labelled_are_not_scored(lab):
    case = exam(lab, "hock")
    partly = replace(case, known=np.array([True, True, False]))
    scores = evaluate.score_cases(lambda volume: case.labels, [case, partly], block_table("hock"))
    assert [list(scored.bones) for scored in scores] == [list(BONES), [BONES[0]]]
    metrics = evaluate.metrics_of(scores)
    assert [metrics["bones"][bone]["exams"] for bone in BONES] == [2, 1]
    assert evaluate.mean_dice(scores) == 1


def test_evaluate_names_what_is_wrong(lab, model, capsys):
    arguments = ["--data", str(lab / "stifle"), "--joint"]
    assert main(["evaluate", "--model", str(model), *arguments, "elbow"]) == 3
    assert main(["evaluate", "--model", str(lab / "none.safetensors"), *arguments, "hock"]) == 3
    assert main(["evaluate", "--model", str(model), *arguments, "stifle", "-o", str(lab / "no" / "x.csv")]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 3 and "elbow" in said[0] and "none.safetensors" in said[1] and "no such folder" in said[2]
