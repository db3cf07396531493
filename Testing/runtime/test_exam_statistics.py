"""The exam's own normalization statistics: the formula, what stays as it was, and what the user is told."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import random_network, tiny_config, tiny_manifest

from PedBoneSegLib.errors import BadModel
from PedBoneSegLib.inference import exam_statistics
from PedBoneSegLib.inference.exam_statistics import ExamNetworks
from PedBoneSegLib.inference.passes import stacks_by_domain
from PedBoneSegLib.inference.predictor import Predictor
from PedBoneSegLib.inference.signature import Moments, spread_slices
from PedBoneSegLib.inference.slices import SliceSettings, SliceStack
from PedBoneSegLib.models.manifest import Manifest
from PedBoneSegLib.network.dsbn import DomainBatchNorm
from PedBoneSegLib.network.exam import ExamEncoder, ExamNorm
from PedBoneSegLib.network.fold import fold
from PedBoneSegLib.results.documents import segment_document
from PedBoneSegLib.volume import Grid, Volume

ARCHITECTURES = ["unet", "efficientnet-b0", "efficientnet-lite0"]


def images(n=3, size=(64, 32)):
    return torch.randn(n, 1, *size, generator=torch.Generator().manual_seed(3))


def test_the_statistics_are_the_stated_mixture():
    """Two values a channel, worked by hand: 1 and 5 have the mean 3 and the unbiased variance 8."""
    domain = DomainBatchNorm(2, 1, eps=0.0)
    domain.running_mean[1], domain.running_var[1] = 7.0, 4.0
    with torch.no_grad():
        domain.weight[1], domain.bias[1] = 2.0, 1.0
        norm = ExamNorm(domain, 1, 0.25)
        y = norm(torch.tensor([1.0, 5.0]).reshape(2, 1, 1, 1))
    assert norm.running_mean.item() == 0.75 * 7 + 0.25 * 3 and norm.running_var.item() == 0.75 * 4 + 0.25 * 8
    expected = (torch.tensor([1.0, 5.0]) - 6) / 5**0.5 * 2 + 1
    torch.testing.assert_close(y.flatten(), expected)
    assert domain.running_mean[1] == 7 and domain.running_var[1] == 4


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_folded_encoder_has_the_features_of_the_pass(architecture):
    network = random_network(tiny_config(architecture=architecture)).eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    plain = fold(network, "knee")
    encoder = ExamEncoder(network, "knee", 0.4)
    features = encoder.features(images())
    adapted = encoder.fold(plain)
    level = len(features) - 1
    for ours, theirs in zip(adapted.encoder_features(images(), level), features, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3 * theirs.abs().max().item())
    assert (adapted(images()) - plain(images())).abs().max() > 0.01
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_a_share_of_0_changes_nothing():
    network = random_network(tiny_config(architecture="efficientnet-lite0")).eval()
    plain = fold(network, "knee")
    encoder = ExamEncoder(network, "knee", 0.0)
    encoder.features(images())
    assert torch.equal(encoder.fold(plain)(images()), plain(images()))


def test_a_share_of_1_normalizes_by_the_exam_alone():
    """Then it is the batch normalization of training. Levels of few pixels are left out: training divides the
    variance by n, the running variance is divided by n − 1."""
    network = random_network(tiny_config(architecture="unet")).double().train()
    with torch.no_grad():
        expected = network.encoder(images().double(), ((1, 3),))
    encoder = ExamEncoder(network, network.config.domains[1].name, 1.0)
    for ours, theirs in zip(encoder.features(images().double())[:2], expected[:2], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0.01, atol=0.01)


# ------------------------------------------------------------------------------------------------- with a model


def volume(seed=0, slices=12):
    """A bright cylinder with a texture, along the first axis."""
    random = np.random.default_rng(seed)
    i, j, k = np.indices((slices, 40, 48))
    body = (j - 20) ** 2 + (k - 24) ** 2 < 15**2
    array = (body * (400 + 100 * np.sin(j / 3 + seed)) + random.normal(0, 20, body.shape)).astype(np.float32)
    axes = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    return Volume(array, Grid(array.shape, (4.0, 1.0, 1.0), (0.0, 0.0, 0.0), axes))


def predictor(share, joints=("ankle", "knee"), **changes):
    config = tiny_config(joints, architecture="efficientnet-lite0")
    manifest = tiny_manifest(config)
    cards = tuple(replace(card, exam_statistics=share, **changes) for card in manifest.domains)
    return Predictor.for_network(random_network(config), cards, "cpu")


def test_labels_are_those_of_the_adapted_network_and_the_same_each_time():
    ours = predictor(0.5)
    result = ours.segment(volume(), "knee")
    assert result.exam_statistics == 0.5 and segment_document(result, None)["exam_statistics"] == 0.5
    np.testing.assert_array_equal(predictor(0.5).segment(volume(), "knee").labels, result.labels)
    ours.segment(volume(5), "knee")
    np.testing.assert_array_equal(ours.segment(volume(), "knee").labels, result.labels)  # nothing stays from before
    stack = SliceStack(volume(), SliceSettings.from_dict(ours.bundle.manifest.domain("knee").settings))
    encoder = ExamEncoder(ours.bundle.network(), "knee", 0.5)
    encoder.features(torch.from_numpy(stack.images(spread_slices(stack.occupied))))
    by_hand = predictor(0.0)
    by_hand._networks[("knee", "cpu", torch.float32)] = encoder.fold(by_hand.bundle.folded("knee"))
    np.testing.assert_array_equal(by_hand.segment(volume(), "knee").labels, result.labels)
    assert (predictor(0.0).segment(volume(), "knee").labels != result.labels).any()


def test_a_single_slice_keeps_the_domains_statistics():
    result = predictor(0.5).segment(volume(slices=1), "knee")
    assert result.exam_statistics == 0
    np.testing.assert_array_equal(result.labels, predictor(0.0).segment(volume(slices=1), "knee").labels)
    assert predictor(0.5).segment(replace(volume(), array=np.zeros((12, 40, 48), np.float32)), "knee").labels.max() == 0


def test_large_slices_are_fewer(monkeypatch):
    ours = predictor(0.5)
    stacks = stacks_by_domain(volume())
    card = ours.bundle.manifest.domain("knee")
    assert len(ExamNetworks(ours, stacks).first_slices(card).indices) == 8
    rows, columns = stacks(card).shape
    monkeypatch.setattr(exam_statistics, "MOST_PIXELS", 3 * rows * columns)
    assert len(ExamNetworks(ours, stacks).first_slices(card).indices) == 3


def test_signatures_see_the_features_of_the_adapted_network():
    ours = predictor(0.5)
    stacks, card = stacks_by_domain(volume()), ours.bundle.manifest.domain("knee")
    networks = ExamNetworks(ours, stacks)
    written = []
    moments = ours.observe(stacks(card), card, [2], write=lambda *batch: written.append(batch), networks=networks)[2]
    (indices, logits), images = written[0], torch.from_numpy(stacks(card).images(networks.observed(card)))
    network = networks.network("knee", torch.device("cpu"), torch.float32)
    expected = Moments(network.encoder.channels[2])
    with torch.no_grad():
        expected.add(network.encoder_features(images, 2)[2])
        torch.testing.assert_close(logits, network(images), rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(indices, networks.observed(card))
    np.testing.assert_allclose(moments.gram, expected.gram, rtol=1e-3, atol=1e-3 * expected.gram.max())


def test_short_memory_on_a_card_takes_the_statistics_on_the_cpu(monkeypatch):
    ours = predictor(0.5)
    wanted = ExamNetworks(ours, stacks_by_domain(volume())).first_slices(ours.bundle.manifest.domain("knee"))
    segmenter = ours.segmenter

    def short(device):
        if device.type == "cuda":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return segmenter(device)

    monkeypatch.setattr(ours, "segmenter", short)
    ours.device = torch.device("cuda")
    found = ExamNetworks(ours, stacks_by_domain(volume())).first_slices(ours.bundle.manifest.domain("knee"))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found.features, wanted.features, strict=True))


def test_the_manifest_carries_the_share(tmp_path):
    manifest = tiny_manifest(tiny_config())
    assert all("exam_statistics" not in card for card in manifest.to_dict()["domains"])  # as models had it before
    cards = tuple(replace(card, exam_statistics=0.25) for card in manifest.domains)
    document = json.loads(json.dumps(replace(manifest, domains=cards).to_dict())) | {"sha256": ""}
    assert [card.exam_statistics for card in Manifest.from_dict(document).domains] == [0.25] * 3
    for bad in (-0.1, 1.5, float("nan")):
        with pytest.raises(BadModel, match="share of the exam"):
            replace(manifest.domains[0], exam_statistics=bad)
    document["domains"][0]["exam_statistics"] = "half"
    with pytest.raises(BadModel, match="exam_statistics"):
        Manifest.from_dict(document)
