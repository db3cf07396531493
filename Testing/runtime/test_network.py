"""The whole network: domains in one batch, heads, sizes, further domains."""

import json
from dataclasses import asdict, replace

import pytest
import torch
import torch.nn.functional as F
from tiny import domain_state, random_network, tensors_of, tiny_config, tiny_manifest
from torch import nn

from PedBoneSegLib.models.bundle import Bundle, write_bundle
from PedBoneSegLib.network import encoders
from PedBoneSegLib.network.config import DECODERS, HEADS, NORMALIZATIONS, DomainSpec, NetworkConfig
from PedBoneSegLib.network.decoder import AttentionGate
from PedBoneSegLib.network.dsbn import ConvNorm
from PedBoneSegLib.network.segmenter import build_network

MIXED = ["knee"] * 2 + ["ankle"] + ["shoulder"] * 3
KNEE_BONES = ("femur", "tibia", "fibula", "patella")


def images(n: int = 6, rows: int = 16, columns: int = 24, dtype=torch.float64) -> torch.Tensor:
    return torch.randn(n, 1, rows, columns, dtype=dtype, generator=torch.Generator().manual_seed(3))


# ------------------------------------------------------------------------------------------------ configuration


def test_configuration_survives_json():
    config = tiny_config(architecture="efficientnet-b3", decoder="wide", in_channels=3, head="union", width=8)
    assert NetworkConfig.from_dict(json.loads(json.dumps(asdict(config)))) == config
    assert config.index("shoulder") == 2 and config.domain("knee").bones == KNEE_BONES


@pytest.mark.parametrize(
    "change, message",
    [
        ({"architecture": "unet3d"}, "architecture 'unet3d' is not one of efficientnet-b0, .*, unet, attention-unet"),
        ({"decoder": "fat"}, "decoder 'fat'"),
        ({"head": None}, "head None"),
        ({"width": 0}, "width 0"),
        ({"width": True}, "width True"),
        ({"in_channels": 1.0}, "in_channels 1.0"),
        ({"domains": []}, "1 to 256 domains"),
        ({"domains": [{"name": "knee", "joint": "knee", "bones": ["femur"]}] * 2}, "each named once"),
        ({"domains": [{"name": "../knee", "joint": "knee", "bones": ["femur"]}]}, "no name for a domain"),
        ({"domains": [{"name": "knee", "joint": "knee", "bones": []}]}, "1 to 254 bones"),
        ({"domains": [{"name": "knee", "joint": "knee", "bones": ["a", "a"]}]}, "each named once"),
        ({"domains": [{"name": "knee", "joint": "knee", "bones": ["background"]}]}, "not a bone"),
        ({"domains": [{"name": "knee", "joint": "knee"}]}, "not a network configuration"),
        ({"domains": 3}, "not a network configuration"),
        ({"dropout": 0.1}, "not a network configuration"),
    ],
)
def test_wrong_configurations_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        NetworkConfig.from_dict({**asdict(tiny_config()), **change})


# ---------------------------------------------------------------------------------------------- a pass


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("architecture", ["unet", "attention-unet", "efficientnet-b0"])
def test_a_mixed_batch_is_what_each_domain_gets_alone(architecture, head, normalization):
    network = random_network(tiny_config(architecture=architecture, head=head, normalization=normalization)).double()
    x = images()
    with torch.no_grad():
        output = network(x, MIXED)
        assert list(output.logits) == ["knee", "ankle", "shoulder"]
        assert output.order == {"knee": slice(0, 2), "ankle": slice(2, 3), "shoulder": slice(3, 6)}
        for name, where in output.order.items():
            alone = network(x[where], MIXED[where]).logits[name]
            assert alone.shape[1:] == (1 + len(network.config.domain(name).bones), 16, 24)
            torch.testing.assert_close(output.logits[name], alone, rtol=1e-10, atol=1e-10)


def test_in_training_each_domain_sees_its_own_statistics_only():
    network = random_network(tiny_config()).double().train()
    x = images()
    output = network(x, MIXED)
    x[3:] *= 100  # another domain's images must not matter
    again = network(x, MIXED)
    for name in ("knee", "ankle"):
        torch.testing.assert_close(output.logits[name], again.logits[name], rtol=1e-12, atol=1e-12)
    shared = random_network(tiny_config(normalization="shared")).double().train()
    assert not torch.allclose(shared(x, MIXED).logits["knee"], shared(images(), MIXED).logits["knee"])


def test_every_convolution_runs_once_for_all_domains():
    network = random_network(tiny_config(architecture="attention-unet"))
    calls = {}
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            calls[name] = []
            module.register_forward_hook(lambda _, inputs, __, name=name: calls[name].append(len(inputs[0])))
    network(images(dtype=torch.float32), MIXED)
    assert calls and all(batches == [6] for batches in calls.values())


@pytest.mark.parametrize(
    "domains, message",
    [
        ("knee", "one per image"),
        (["knee"], "needs 3 names"),
        (["knee", "ankle", "knee"], "do not lie together"),
        (["knee", "hip", "hip"], "unknown domain 'hip'; this network knows ankle, knee, shoulder"),
    ],
)
def test_ambiguous_and_unknown_domains_raise(domains, message):
    with pytest.raises(ValueError, match=message):
        random_network(tiny_config())(images(3, dtype=torch.float32), domains)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (2, 3), (17, 33), (31, 5)])
@pytest.mark.parametrize("architecture", ["unet", "attention-unet", "efficientnet-b0"])
def test_any_size(architecture, size):
    network = random_network(tiny_config(architecture=architecture))
    with torch.no_grad():
        output = network(images(2, *size, dtype=torch.float32), ["knee"] * 2)
    assert output.logits["knee"].shape == (2, 5, *size)
    assert output.decoded[-1].shape[-2:] == size
    for stride, channels, feature in zip(
        network.encoder.strides, network.encoder.channels, output.features, strict=True
    ):
        assert feature.shape == (2, channels, -(-size[0] // stride), -(-size[1] // stride))
    network.train()(images(2, *size, dtype=torch.float32), ["knee"] * 2)  # trains on it, too


@pytest.mark.parametrize("architecture", encoders.architectures())
@pytest.mark.parametrize("decoder", DECODERS)
def test_decoders_have_the_published_widths(architecture, decoder):
    with torch.device("meta"):
        network = build_network(tiny_config(architecture=architecture, decoder=decoder, width=32))
    steps = 5 if network.encoder.strides[0] > 1 else 4
    expected = {"wide": (256, 128, 64, 32, 16), "slim": (128, 64, 32, 16, 16)}[decoder][:steps]
    assert tuple(block.convs.second.conv.out_channels for block in network.decoder.blocks) == expected


def test_a_step_reaches_every_parameter_and_depends_on_nothing_else():
    network = random_network(tiny_config(architecture="attention-unet", head="union")).double().train()
    state = torch.get_rng_state()
    output = network(images(), MIXED)
    sum(logits[:, 1:].square().mean() + logits[:, 0].mean() for logits in output.logits.values()).backward()
    assert torch.equal(state, torch.get_rng_state())
    for name, parameter in network.named_parameters():
        rows = parameter.grad.reshape(len(parameter), -1).abs().amax(1)
        assert (rows > 0).all(), name


def test_same_seed_same_network():
    networks = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        networks.append(build_network(tiny_config()).state_dict())
    assert all(torch.equal(networks[0][name], networks[1][name]) for name in networks[0])
    assert not torch.equal(networks[0]["head.weight"], networks[2]["head.weight"])


@pytest.mark.parametrize("architecture", ["unet", "efficientnet-b0"])
def test_fresh_networks_neither_fade_nor_explode(architecture):
    torch.manual_seed(0)
    network = build_network(tiny_config(architecture=architecture, width=16)).train()
    spread = network(images(8, 64, 64, torch.float32), ["knee"] * 8).logits["knee"].std()
    assert 0.3 < spread < 3


def test_attention_gate_follows_the_formula():
    """The published order: enlarge first, then map; normalization by its plain formula."""
    torch.manual_seed(0)
    gate = AttentionGate(1, 6, 4).double().train()
    skip = torch.randn(2, 6, 8, 6, dtype=torch.float64)
    coarse = torch.randn(2, 4, 4, 3, dtype=torch.float64)

    def mapped(x, block):
        y = torch.einsum("nchw,oc->nohw", x, block.conv.weight[:, :, 0, 0])
        return (y - y.mean((0, 2, 3), keepdim=True)) / (y.var((0, 2, 3), keepdim=True, unbiased=False) + 1e-5).sqrt()

    asked = mapped(skip, gate.skip) + mapped(coarse.repeat_interleave(2, 2).repeat_interleave(2, 3), gate.gate)
    expected = skip * mapped(asked.clamp(min=0), gate.psi).sigmoid()
    torch.testing.assert_close(gate(skip, coarse, ((0, 2),)), expected, rtol=1e-10, atol=1e-10)


# ----------------------------------------------------------------------------------------------- the union head


def test_the_union_head_is_a_softmax_masked_to_the_joint():
    network = random_network(tiny_config(head="union")).double()
    structures = [("", "background"), ("ankle", "calcaneus"), ("ankle", "talus"), ("ankle", "tibia")]
    structures += [("knee", bone) for bone in KNEE_BONES] + [("shoulder", "humerus"), ("shoulder", "scapula")]
    assert network.head.keys == structures  # a knee's tibia is not an ankle's
    with torch.no_grad():
        output = network(images(), MIXED)
        whole = F.conv2d(output.decoded[-1], network.head.weight, network.head.bias)
    for name, where in output.order.items():
        rows = [row for row, (joint, _) in enumerate(structures) if joint in ("", name)]
        mask = torch.full((10, 1, 1), float("-inf"), dtype=torch.float64)
        mask[rows] = 0
        expected = (whole[where] + mask).softmax(1)[:, rows]
        torch.testing.assert_close(output.logits[name].softmax(1), expected, rtol=1e-10, atol=1e-12)


def test_two_domains_of_a_joint_share_the_union_heads_rows():
    config = tiny_config(("knee",), head="union")
    scanner = DomainSpec("knee-lab", "knee", ("patella", "femur"))  # fewer bones, another order
    network = random_network(replace(config, domains=(*config.domains, scanner)))
    assert len(network.head.keys) == 5
    assert network.head.rows == {"knee": [0, 1, 2, 3, 4], "knee-lab": [0, 4, 1]}


# ---------------------------------------------------------------------------------------------- further domains


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("head", HEADS)
def test_a_further_domain_leaves_the_others_bit_for_bit(head, normalization):
    network = random_network(tiny_config(head=head, normalization=normalization))
    x = images(dtype=torch.float32)
    before = network(x, MIXED).logits
    states = {spec.name: domain_state(network, spec.name) for spec in network.config.domains}
    network.add_domain(DomainSpec("hip", "hip", ("femur", "pelvis")), like="shoulder")
    after = network(x, MIXED).logits
    assert all(torch.equal(before[name], after[name]) for name in before)
    for name, state in states.items():
        assert all(torch.equal(tensor, domain_state(network, name)[key]) for key, tensor in state.items())
    assert network(x, ["hip"] * 6).logits["hip"].shape == (6, 3, 16, 24)
    fresh = build_network(network.config)
    fresh.load_state_dict(network.state_dict())  # the configuration describes it still
    assert torch.equal(fresh.eval()(x, ["hip"] * 6).logits["hip"], network(x, ["hip"] * 6).logits["hip"])


def test_an_own_scanner_starts_as_the_joints_own_domain_matched_by_bone():
    network = random_network(tiny_config()).double()
    network.add_domain(DomainSpec("knee-lab", "knee", ("patella", "femur", "tibia", "fibula")), like="knee")
    x = images(2)
    knee, lab = (network(x, [name] * 2).logits[name] for name in ("knee", "knee-lab"))
    torch.testing.assert_close(knee[:, [0, 4, 1, 2, 3]], lab, rtol=1e-12, atol=1e-12)


def test_a_new_joint_starts_with_a_head_of_its_own():
    network = random_network(tiny_config())
    network.add_domain(DomainSpec("hip", "hip", ("femur", "pelvis")), like="knee")
    knee, hip = domain_state(network, "knee"), domain_state(network, "hip")
    assert all(torch.equal(knee[key], hip[key]) for key in knee if not key.startswith("head."))
    assert hip["head.weight"].shape[0] == 3 and hip["head.bias"].abs().max() == 0
    assert not any(torch.equal(row, other) for row in hip["head.weight"] for other in network.head.weight[:-3])


def test_an_impossible_domain_changes_nothing():
    network = random_network(tiny_config())
    before = {name: tensor.shape for name, tensor in network.state_dict().items()}
    for spec, like in ((network.config.domains[0], "knee"), (DomainSpec("hip", "hip", ("femur",)), "elbow")):
        with pytest.raises(ValueError):
            network.add_domain(spec, like)
    assert {name: tensor.shape for name, tensor in network.state_dict().items()} == before
    assert len(network.config.domains) == 3


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("head", HEADS)
def test_parameters_are_shared_or_a_domains(head, normalization):
    network = build_network(tiny_config(head=head, normalization=normalization))
    own, shared = network.domain_parameters("knee"), network.shared_parameters()
    assert {id(p) for p in own} | {id(p) for p in shared} == {id(p) for p in network.parameters()}
    assert len(own) + len(shared) == len(list(network.parameters()))
    assert any(p is network.head.weight for p in own) == (head == "domain")
    norms = [p for name, p in network.named_parameters() if ".norm." in name]
    assert all(any(p is q for q in own) == (normalization == "domain") for p in norms)
    with pytest.raises(ValueError, match="unknown domain"):
        network.domain_parameters("hip")


def test_training_a_new_domain_on_frozen_filters_leaves_the_others():
    network = random_network(tiny_config())
    network.add_domain(DomainSpec("hip", "hip", ("femur", "pelvis")), like="knee")
    before = {spec.name: domain_state(network, spec.name) for spec in network.config.domains}
    for parameter in network.shared_parameters():
        parameter.requires_grad_(False)
    optimizer = torch.optim.AdamW(network.domain_parameters("hip"), lr=1e-2, weight_decay=0)
    network.train()
    for step in range(3):
        optimizer.zero_grad()
        network(images(2, dtype=torch.float32) + step, ["hip"] * 2).logits["hip"].square().mean().backward()
        optimizer.step()
    for name, state in before.items():
        after = domain_state(network, name)
        changed = [key for key in state if not torch.equal(state[key], after[key])]
        assert bool(changed) == (name == "hip"), (name, changed)


# --------------------------------------------------------------------------------------- an encoder from outside


class ToyEncoder(nn.Module):
    """Two levels at strides 1 and 2."""

    channels, strides, decoder_width, attention = (4, 8), (1, 2), 8, False

    def __init__(self, rows: int, in_channels: int) -> None:
        super().__init__()
        self.fine = ConvNorm(rows, in_channels, 4)
        self.coarse = ConvNorm(rows, 4, 8, stride=2)

    def forward(self, x, runs, level=1):
        fine = self.fine(x, runs)
        return [fine, self.coarse(fine, runs)][: level + 1]


def test_an_encoder_from_outside_the_package_is_configured_trained_saved_and_folded(monkeypatch, tmp_path):
    monkeypatch.setattr(encoders, "_registered", {})
    encoders.register("toy", lambda architecture, rows, in_channels, width: ToyEncoder(rows, in_channels))
    assert "toy" in encoders.architectures()
    with pytest.raises(ValueError, match="already an architecture 'toy'"):
        encoders.register("toy", lambda *_: None)
    config = NetworkConfig.from_dict(json.loads(json.dumps(asdict(tiny_config(("knee", "ankle"), architecture="toy")))))
    network = random_network(config)
    expected = network(images(2, dtype=torch.float32), ["knee"] * 2).logits["knee"]
    network.train()(images(4, dtype=torch.float32), ["knee"] * 2 + ["ankle"] * 2).logits["ankle"].sum().backward()
    assert network.encoder.coarse.conv.weight.grad.abs().sum() > 0
    network = random_network(config)
    write_bundle(tmp_path / "toy.safetensors", tiny_manifest(config), tensors_of(network))
    folded = Bundle.load(tmp_path / "toy.safetensors").folded("knee")
    torch.testing.assert_close(folded(images(2, dtype=torch.float32)), expected)


def test_the_encoders_of_this_folder_are_found_by_their_files():
    assert {"unet", "attention-unet", "efficientnet-b0", "efficientnet-b4"} <= set(encoders.architectures())
