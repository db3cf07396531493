"""A further domain from few exams: it learns, the older ones stay what they were, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from block_exams import BONES, block_exam, block_table, write_blocks
from PedBoneSegTraining.configuration import Training
from PedBoneSegTraining.configuration.extensions import AUGMENTATIONS
from PedBoneSegTraining.data.bank import Bank
from PedBoneSegTraining.data.dataset import load_case, read_dataset
from PedBoneSegTraining.data.source import DatasetSource
from PedBoneSegTraining.models.adapt import adapt, measure_statistics, table_of_dataset, train_domain
from PedBoneSegTraining.program.commands import main
from tiny import domain_state

from PedBoneSegLib.errors import BadInput, PedBoneSegError
from PedBoneSegLib.inference.predictor import Predictor
from PedBoneSegLib.inference.slices import SliceSettings
from PedBoneSegLib.models.bundle import Bundle, write_bundle
from PedBoneSegLib.models.manifest import DomainCard, Manifest
from PedBoneSegLib.network.config import DomainSpec, NetworkConfig
from PedBoneSegLib.network.segmenter import build_network

SETTINGS = SliceSettings(pixel_mm=2.0)
SIGNATURE = {"layer": 1, "threshold": 0.5, "references": 8}


def source_of(folder, joint, domain):
    dataset = read_dataset(folder, joint=joint, table=block_table(joint))
    bank = Bank([load_case(dataset, case) for case in dataset.cases], SETTINGS, torch.device("cpu"))
    return DatasetSource(domain, bank, AUGMENTATIONS.defaults(), (64, 64), 0.7, 0)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A model that knows the hock (trained on it) and the stifle (a copy of the hock's rows), and data sets."""
    folder = tmp_path_factory.mktemp("lab")
    write_blocks(folder / "hock", "hock", 2, seed=0)
    write_blocks(folder / "scanner", "hock", 1, seed=1, inverted=True)
    write_blocks(folder / "elbow", "elbow", 4, seed=2)
    torch.manual_seed(0)
    network = build_network(NetworkConfig("unet", (DomainSpec("hock", "hock", BONES),), width=8))
    options = Training(steps=80, batch=4, learning_rate=1e-2, warmup=2)
    train_domain(network, "hock", source_of(folder / "hock", "hock", "hock"), options, 1.0, lambda *done: None)
    network.add_domain(DomainSpec("stifle", "stifle", BONES), "hock")
    cards = [DomainCard(joint, joint, block_table(joint), SETTINGS.to_dict()) for joint in ("hock", "stifle")]
    cards[0] = replace(cards[0], signature=SIGNATURE, temperature=1.5, metrics={"exams": 0, "bones": {}})
    manifest = Manifest(
        "blocks", "1", "CC0-1.0", {"made": "here"}, network.config, tuple(cards), ("float32", "float16"), "float16"
    )
    tensors = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    write_bundle(folder / "model.safetensors", manifest, tensors | {"signatures.hock": torch.rand(8, 16)})
    return folder


@pytest.fixture(scope="module")
def scanner(lab):
    """An own scanner, from one exam."""
    return adapt(
        lab / "model.safetensors",
        "hock-Clinic",
        lab / "scanner",
        output=lab / "scanner.safetensors",
        steps=50,
        batch=4,
        rate=1e-2,
        device="cpu",
    )


def dice(metrics):
    return [metrics["bones"][bone]["dice"] for bone in BONES]


def test_an_own_scanner_is_learnt_from_one_exam(lab, scanner):
    assert min(dice(scanner.before)) < 0.3  # the two bones have changed places in contrast
    assert min(dice(scanner.after)) > 0.85
    assert not scanner.held_out
    card = Bundle.load(scanner.path).manifest.domain("hock-Clinic")
    assert (card.joint, card.table, card.metrics) == ("hock", block_table("hock"), {})
    table = scanner.table()
    assert len(table) == 3 and table[1].startswith(BONES[0])
    volume = load_case(*one_case(lab / "scanner", "hock")).volume
    volume.array, labels = block_exam(777, inverted=True)  # an exam of that scanner that it never saw
    found = Predictor(Bundle.load(scanner.path), "cpu").segment(volume, "hock-Clinic").labels
    assert 2 * ((found == 1) & (labels == 1)).sum() / ((found == 1).sum() + (labels == 1).sum()) > 0.8


def one_case(folder, joint):
    dataset = read_dataset(folder, joint=joint, table=block_table(joint))
    return dataset, dataset.cases[0]


def test_older_domains_are_the_same_bit_for_bit(lab, scanner):
    old, new = Bundle.load(lab / "model.safetensors"), Bundle.load(scanner.path)
    assert old.manifest.domains == new.manifest.domains[:2]
    assert np.array_equal(old.tensors["signatures.hock"], new.tensors["signatures.hock"])
    before, after = old.network(), new.network()
    for domain in ("hock", "stifle"):
        ours = domain_state(after, domain)
        assert all(torch.equal(tensor, ours[name]) for name, tensor in domain_state(before, domain).items())
    for a, b in zip(before.shared_parameters(), after.shared_parameters(), strict=True):
        assert torch.equal(a, b)
    images = torch.randn(2, 1, 64, 64)
    for domain in ("hock", "stifle"):
        assert torch.equal(old.folded(domain)(images), new.folded(domain)(images))
    assert not torch.equal(new.folded("hock-Clinic")(images), new.folded("hock")(images))


def test_the_new_model_tells_where_it_comes_from(lab, scanner):
    manifest = Bundle.load(scanner.path).manifest
    assert manifest.name == "blocks-hock-clinic" and manifest.licence == "CC0-1.0"
    assert manifest.provenance["made"] == "here"
    (origin,) = manifest.provenance["adapted"]
    assert origin["sha256"] == Bundle.load(lab / "model.safetensors").manifest.sha256
    assert (origin["domain"], origin["started from"], origin["exams"]) == ("hock-Clinic", "hock", 1)
    assert "hock-Clinic" in manifest.card and str(lab) not in str(manifest.to_dict())


def test_a_new_joint_by_the_command(lab, capsys):
    arguments = ["--model", str(lab / "model.safetensors"), "--joint", "elbow", "--data", str(lab / "elbow")]
    assert main(["adapt", *arguments, "-o", str(lab / "elbow.safetensors"), "--steps", "60", "--device", "cpu"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("bone") and said[1].split()[3] == "–"  # nothing was known before
    assert "kept from training" in said[3] and "3 domains" in said[4]
    card = Bundle.load(lab / "elbow.safetensors").manifest.domain("elbow")
    assert card.joint == "elbow" and card.table.names == BONES
    assert card.metrics["exams"] == 1 and min(dice(card.metrics)) > 0.8


def test_moving_filters_take_back_what_was_claimed_for_older_domains(lab, tmp_path):
    done = adapt(
        lab / "model.safetensors",
        "elbow",
        lab / "elbow",
        lab / "elbow" / "table.csv",
        tmp_path / "model.safetensors",
        steps=2,
        batch=2,
        shared_rate=0.1,
        device="cpu",
    )
    old, new = Bundle.load(lab / "model.safetensors"), Bundle.load(done.path)
    assert any(
        not torch.equal(a, b)
        for a, b in zip(old.network().shared_parameters(), new.network().shared_parameters(), strict=True)
    )
    card = new.manifest.domain("hock")
    assert (card.signature, card.temperature, card.metrics) == (None, 1.0, {}) and "moved" in card.note


def test_statistics_are_the_plain_average_over_batches(lab):
    network = Bundle.load(lab / "model.safetensors").network()
    source, options = source_of(lab / "hock", "hock", "stifle"), Training(steps=3, batch=2)
    layer = network.encoder.levels[0].first
    with torch.no_grad():
        batches = [source.batch(3 + number, 2) for number in range(24)]
        outputs = [layer.conv(batch.images) for batch in batches]
    other = layer.norm.running_mean[0].clone()
    measure_statistics(network, "stifle", source, options)
    mean = torch.stack([output.mean((0, 2, 3)) for output in outputs]).mean(0)
    variance = torch.stack([output.var((0, 2, 3), unbiased=True) for output in outputs]).mean(0)
    assert torch.allclose(layer.norm.running_mean[1], mean, atol=1e-5)
    assert torch.allclose(layer.norm.running_var[1], variance, rtol=1e-4)
    assert torch.equal(layer.norm.running_mean[0], other) and layer.norm.momentum == 0.1


def test_training_a_domain_ends_with_its_statistics(lab):
    network = Bundle.load(lab / "model.safetensors").network()
    source, options = source_of(lab / "hock", "hock", "stifle"), Training(steps=1, batch=2)
    train_domain(network, "stifle", source, options, 0.0, lambda *done: None)
    left = domain_state(network, "stifle")
    measure_statistics(network, "stifle", source, options)
    assert all(torch.equal(tensor, left[name]) for name, tensor in domain_state(network, "stifle").items())


def test_what_cannot_be_is_refused_before_anything_is_trained(lab, tmp_path):
    model = lab / "model.safetensors"
    for joint, table, fault in (
        ("hock", None, "already has 'hock'"),
        ("hock-Clinic", lab / "hock" / "table.csv", "leave out --table"),
        ("two words", None, "no name"),
        ("elbow", lab / "none.csv", "cannot be read"),
    ):
        with pytest.raises(BadInput, match=fault):
            adapt(model, joint, lab / "elbow", table, tmp_path / "model.safetensors", device="cpu")
    with pytest.raises(BadInput, match="at least one step"):
        adapt(model, "elbow", lab / "elbow", steps=0)
    (tmp_path / "dataset.json").write_text("{}")
    with pytest.raises(BadInput, match="does not name the bones"):
        table_of_dataset(tmp_path, "elbow")
    config = NetworkConfig("unet", (DomainSpec("hock", "hock", BONES),), width=4, normalization="shared")
    network = build_network(config)
    manifest = Manifest(
        "shared", "1", "", {}, config, (DomainCard("hock", "hock", block_table("hock"), SETTINGS.to_dict()),)
    )
    tensors = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    write_bundle(tmp_path / "shared.safetensors", manifest, tensors)
    with pytest.raises(PedBoneSegError, match="--init"):
        adapt(tmp_path / "shared.safetensors", "elbow", lab / "elbow")
