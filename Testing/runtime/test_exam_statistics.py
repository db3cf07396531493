"""The exam's own normalization statistics: the formula, what stays as it was, and what the user is told."""

import pytest
import torch
from tiny import random_network, tiny_config

from PedBoneSegLib.network.dsbn import DomainBatchNorm
from PedBoneSegLib.network.exam import ExamEncoder, ExamNorm
from PedBoneSegLib.network.fold import fold

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
