"""Folding changes nothing but the cost."""

import copy

import pytest
import torch
from tiny import random_network, tiny_config
from torch import nn

from PedBoneSegLib.network.dsbn import ConvNorm, DomainBatchNorm
from PedBoneSegLib.network.encoders import architectures
from PedBoneSegLib.network.fold import FoldedConv, fold


def images(n: int = 2, size: tuple[int, int] = (32, 24), dtype=torch.float32) -> torch.Tensor:
    return torch.randn(n, 1, *size, dtype=dtype, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("normalization, head", [("domain", "domain"), ("shared", "union"), ("domain", "union")])
@pytest.mark.parametrize("architecture", ["unet", "attention-unet", "efficientnet-b0", "efficientnet-lite0"])
def test_equals_the_unfolded_network(architecture, normalization, head):
    network = random_network(tiny_config(architecture=architecture, normalization=normalization, head=head)).double()
    x = images(dtype=torch.float64)
    for spec in network.config.domains:
        with torch.no_grad():
            expected = network(x, [spec.name] * 2).logits[spec.name]
        torch.testing.assert_close(fold(network, spec.name)(x), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("architecture", architectures())
def test_float32_agrees_within_a_ten_thousandth(architecture):
    network = random_network(tiny_config(("knee", "ankle"), architecture=architecture))
    with torch.no_grad():
        expected = network(images(), ["knee"] * 2).logits["knee"]
        assert (fold(network, "knee")(images()) - expected).abs().max() < 1e-4


def test_float16_weights_fold_as_well():
    network = random_network(tiny_config(architecture="efficientnet-b0"))
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data = module.weight.data.half().float()
    with torch.no_grad():
        expected = network(images(), ["ankle"] * 2).logits["ankle"]
        assert (fold(network, "ankle")(images()) - expected).abs().max() < 1e-4


def test_domains_differ_and_the_original_stays():
    network = random_network(tiny_config(head="union"))
    before = copy.deepcopy(network.state_dict())
    ankle, knee = (fold(network, name)(images())[:, 0] for name in ("ankle", "knee"))  # the background is shared
    assert (ankle - knee).abs().mean() > 0.05
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_is_a_plain_network_for_inference():
    network = random_network(tiny_config(architecture="attention-unet")).train()
    folded = fold(network, "shoulder")
    assert network.training and not folded.training
    modules = list(folded.modules())
    assert not any(isinstance(module, DomainBatchNorm) for module in modules)
    convolutions = [module for module in modules if isinstance(module, nn.Conv2d | FoldedConv)]
    assert all(c.bias is not None and not c.weight.requires_grad for c in convolutions)
    assert all(c.weight.is_contiguous(memory_format=torch.channels_last) for c in convolutions)
    assert folded.spec.bones == ("humerus", "scapula")
    x = images()
    assert torch.equal(folded(x), folded(x.contiguous(memory_format=torch.channels_last)))


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 7), (6, 6), (7, 7), (8, 5)])
@pytest.mark.parametrize("kernel", [3, 5])
def test_same_padding_at_stride_2_is_exact_for_even_and_odd_sizes(kernel, size):
    torch.manual_seed(0)
    block = ConvNorm(1, 4, 4, kernel, stride=2, groups=4, activation="relu6").double().eval()
    block.norm.running_mean.normal_()
    block.norm.running_var.uniform_(0.5, 2)
    x = torch.randn(1, 4, *size, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(FoldedConv(block, 0)(x), block(x, ((0, 1),)), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (17, 3), (33, 31)])
def test_any_size_and_the_input_is_not_written_to(size):
    for architecture in ("unet", "efficientnet-b0", "efficientnet-lite0"):
        x = images(1, size)
        kept = x.clone()
        assert fold(random_network(tiny_config(architecture=architecture)), "knee")(x).shape == (1, 5, *size)
        assert torch.equal(x, kept)


@pytest.mark.parametrize("architecture", ["unet", "efficientnet-b0"])
def test_encoder_features_are_the_networks_and_no_more_is_run(architecture):
    network = random_network(tiny_config(architecture=architecture))
    folded = fold(network, "knee")
    with torch.no_grad():
        expected = network(images(), ["knee"] * 2).features
    ran = []
    for module in folded.modules():
        if isinstance(module, FoldedConv):
            module.register_forward_hook(lambda *_: ran.append(1))
    counts = []
    for level in range(5):
        ran.clear()
        torch.testing.assert_close(folded.encoder_features(images(), level)[-1], expected[level], rtol=1e-4, atol=1e-4)
        counts.append(len(ran))
    assert counts == sorted(set(counts))  # each level costs more than the one before


def test_temperature_divides_the_logits():
    network = random_network(tiny_config())
    plain, cool = fold(network, "knee"), fold(network, "knee", temperature=2.5)
    torch.testing.assert_close(cool(images()), plain(images()) / 2.5, rtol=1e-5, atol=1e-6)
    for bad in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="temperature"):
            fold(network, "knee", temperature=bad)


def test_an_unknown_domain_is_named():
    with pytest.raises(ValueError, match="unknown domain 'hip'"):
        fold(random_network(tiny_config()), "hip")
