"""The encoders against MONAI's, tensor by tensor, with the same random weights."""

import pytest
import torch

from PedBoneSegLib.network.dsbn import DomainBatchNorm
from PedBoneSegLib.network.efficientnet import EfficientNetEncoder, published_name

monai = pytest.importorskip("monai.networks.nets.efficientnet")


def pair(monkeypatch, variant: str, size: int, channels: int = 1, training: bool = False):
    """Both encoders in float64. MONAI fixes its padding for one image size, so it is told the size that comes."""
    width, depth, _, dropout, connect = monai.efficientnet_params[f"efficientnet-{variant}"]
    monkeypatch.setitem(monai.efficientnet_params, f"efficientnet-{variant}", (width, depth, size, dropout, connect))
    torch.manual_seed(0)
    theirs = monai.EfficientNetBNFeatures(f"efficientnet-{variant}", pretrained=False, in_channels=channels)
    for name, tensor in theirs.state_dict().items():
        if "running" in name or "_bn" in name:
            if tensor.is_floating_point():
                tensor.uniform_(0.5, 1.5)
    for block in theirs.modules():
        if isinstance(block, monai.MBConvBlock):
            block.drop_connect_rate = 0  # ours has none
    ours = EfficientNetEncoder(1, channels, variant)
    published = theirs.state_dict()
    state = {name: published.pop(published_name(name)).reshape(t.shape) for name, t in ours.state_dict().items()}
    ours.load_state_dict(state)
    rest = {name for name in published if "num_batches_tracked" not in name}
    assert {name.split(".")[0] for name in rest} == {"_conv_head", "_bn1", "_fc"}  # the classifier, which we lack
    return ours.double().train(training), theirs.double().train(training)


def compare(ours, theirs, image, tolerance=1e-9):
    found, expected = ours(image, ((0, len(image)),)), theirs(image)
    assert [tuple(f.shape) for f in found] == [tuple(e.shape) for e in expected]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)
    return found


@pytest.mark.parametrize("variant", ["b0", "b1", "b2", "b3", "b4"])
def test_every_variant_equals_monai(monkeypatch, variant):
    ours, theirs = pair(monkeypatch, variant, 38)
    with torch.no_grad():
        found = compare(ours, theirs, torch.randn(2, 1, 38, 38, dtype=torch.float64))
    assert tuple(f.shape[1] for f in found) == ours.channels
    assert ours.channels == monai.EfficientNetEncoder.num_channels_per_output()[int(variant[1])]


@pytest.mark.parametrize("size", [0, 1, 2])
def test_lite_equals_monais_network_without_squeeze_and_excitation(monkeypatch, size):
    """MONAI has no Lite. It is made here from MONAI's b0, b1 and b2, as the paper on Lite describes it."""
    pixels = 37
    width, depth, _, dropout, connect = monai.efficientnet_params[f"efficientnet-b{size}"]
    monkeypatch.setitem(monai.efficientnet_params, f"efficientnet-b{size}", (width, depth, pixels, dropout, connect))
    torch.manual_seed(size)
    theirs = monai.EfficientNetBNFeatures(f"efficientnet-b{size}", pretrained=False, in_channels=2).eval().double()
    theirs._swish = torch.nn.ReLU6()
    for block in theirs.modules():
        if isinstance(block, monai.MBConvBlock):
            block.has_se, block._swish = False, torch.nn.ReLU6()
    for stage in (theirs._blocks[0], theirs._blocks[-1]):  # one block at every size
        del stage[1:]
    for name, tensor in theirs.state_dict().items():
        if "running_var" in name:
            tensor.uniform_(0.5, 1.5)
        elif "running_mean" in name:
            tensor.normal_()
    unused = ("_se_", "_conv_head", "_bn1.", "_fc", "num_batches_tracked")
    published = [
        tensor
        for name, tensor in theirs.state_dict().items()
        if not any(part in name if part != "_bn1." else name.startswith(part) for part in unused)
    ]
    ours = EfficientNetEncoder(1, 2, f"lite{size}").eval().double()
    state = ours.state_dict()
    ours.load_state_dict(
        {name: tensor.reshape(state[name].shape) for name, tensor in zip(state, published, strict=True)}
    )
    with torch.no_grad():
        compare(ours, theirs, 4 * torch.randn(2, 2, pixels, pixels, dtype=torch.float64))  # some values exceed 6


@pytest.mark.parametrize("size", [1, 2, 3, 31, 32, 33, 47, 64])
def test_any_size_is_padded_as_theirs(monkeypatch, size):
    ours, theirs = pair(monkeypatch, "b0", size, channels=3)
    with torch.no_grad():
        compare(ours, theirs, torch.randn(1, 3, size, size, dtype=torch.float64))


def test_training_gives_their_gradients_and_statistics(monkeypatch):
    ours, theirs = pair(monkeypatch, "b0", 48, training=True)
    image = torch.randn(3, 1, 48, 48, dtype=torch.float64)
    found = compare(ours, theirs, image)
    found[-1].square().mean().backward()
    theirs(image)[-1].square().mean().backward()  # a second pass: their statistics move twice
    ours(image, ((0, 3),))
    gradients = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        expected = gradients[published_name(name)].grad.reshape(parameter.shape)
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-7, atol=1e-12)
    buffers = dict(theirs.named_buffers())
    for name, buffer in ours.named_buffers():
        torch.testing.assert_close(buffer[0], buffers[published_name(name)], rtol=1e-9, atol=1e-12)


def test_runs_only_as_deep_as_asked():
    encoder = EfficientNetEncoder(1, 1, "b0").eval()
    ran = []
    for index, stage in enumerate(encoder.stages):
        for block in stage.values():
            block.register_forward_hook(lambda *_, index=index: ran.append(index))
    image = torch.randn(1, 1, 32, 32)
    features = encoder(image, ((0, 1),), level=2)
    assert len(features) == 3 and max(ran) == 2
    whole = encoder(image, ((0, 1),))
    assert all(torch.equal(f, w) for f, w in zip(features, whole, strict=False))


def test_normalization_is_tensorflows():
    norms = [m for m in EfficientNetEncoder(1, 1, "b0").modules() if isinstance(m, DomainBatchNorm)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.01)}
