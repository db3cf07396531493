"""What is shared and what is not, as a table, and in the networks that come of it."""

import pytest
import torch
from exam_phantoms import tiny_study
from PedBoneSegTraining.configuration import from_dict
from PedBoneSegTraining.configuration.extensions import AuxiliaryStage
from PedBoneSegTraining.loop.initial_weights import copy_weights
from PedBoneSegTraining.loop.networks import build_model
from PedBoneSegTraining.loop.stages import stages

from PedBoneSegLib.anatomy import joint_table
from PedBoneSegLib.errors import BadInput
from PedBoneSegLib.network.config import DomainSpec

NAMES = ("ankle", "knee", "shoulder")
SPECS = {name: DomainSpec(name, name, joint_table(name).names) for name in NAMES}


def config(scheme: str, **sections):
    return from_dict(tiny_study({name: ["x"] for name in NAMES}, scheme=scheme, **sections))


def shape_of(scheme: str):
    return [(each.name, each.domains, each.normalization, each.head, each.start) for each in stages(config(scheme))]


def test_the_table():
    assert shape_of("shared") == [("shared", NAMES, "shared", "union", "")]
    assert shape_of("domain-heads-only") == [("domain-heads-only", NAMES, "shared", "domain", "")]
    assert shape_of("dsbn-only") == [("dsbn-only", NAMES, "domain", "union", "")]
    assert shape_of("multi-domain") == [("multi-domain", NAMES, "domain", "domain", "")]
    assert shape_of("individual") == [(name, (name,), "domain", "domain", "") for name in NAMES]
    assert shape_of("transfer")[:2] == [
        ("before-ankle", ("knee", "shoulder"), "shared", "union", ""),
        ("ankle", ("ankle",), "domain", "domain", "before-ankle"),
    ]
    assert [each.result for each in stages(config("transfer"))] == [False, True] * 3


def test_the_prior_comes_first_and_knows_all_joints():
    first, *others = stages(config("individual", loss={"prior": {"weight": 0.1}}, training={"prior_steps": 5}))
    assert isinstance(first, AuxiliaryStage) and (first.name, first.domains, first.steps) == ("prior", NAMES, 5)
    assert [each.domains for each in others] == [(name,) for name in NAMES]


def test_pretraining_has_its_own_length():
    plan = stages(config("transfer", training={"steps": 9, "pretraining_steps": 4}))
    assert [each.steps for each in plan] == [4, 9] * 3


def network_of(stage, settings):
    return build_model(stage, settings, [SPECS[name] for name in stage.domains]).network


def test_transfer_carries_filters_and_normalization_and_draws_a_new_head():
    settings = config("transfer")
    before, after = stages(settings)[:2]
    source, network = network_of(before, settings), network_of(after, settings)
    with torch.no_grad():
        for parameter in source.parameters():
            parameter.add_(torch.rand_like(parameter))
        for buffer in source.buffers():
            buffer.add_(torch.rand_like(buffer))
    head = network.head.weight.clone()
    copy_weights(network, source)
    ours, theirs = network.state_dict(), source.state_dict()
    assert {name for name in ours if not torch.equal(ours[name], theirs[name])} == {"head.weight", "head.bias"}
    assert torch.equal(network.head.weight, head)


def test_a_start_gives_each_domain_the_normalization_and_head_of_its_own_name_or_joint():
    settings = config("multi-domain")
    source = network_of(stages(settings)[0], settings).eval()
    with torch.no_grad():
        for tensor in [*source.parameters(), *source.buffers()]:
            tensor.add_(torch.rand_like(tensor))
    own = DomainSpec("knee-own", "knee", SPECS["knee"].bones)
    network = build_model(stages(settings)[0], settings, [SPECS["shoulder"], own]).network.eval()
    copy_weights(network, source)
    images = torch.rand(2, 1, 64, 64)
    for name, like in (("shoulder", "shoulder"), ("knee-own", "knee")):
        torch.testing.assert_close(network(images, [name] * 2).logits[name], source(images, [like] * 2).logits[like])


def test_a_start_of_another_architecture_is_refused():
    settings, wide = config("shared"), config("shared", network={"width": 16})
    with pytest.raises(BadInput, match="width 16, not 8"):
        copy_weights(network_of(stages(settings)[0], settings), network_of(stages(wide)[0], wide))


def test_weights_are_a_function_of_seed_and_stage_alone():
    settings = config("multi-domain")
    stage = stages(settings)[0]
    torch.manual_seed(1)
    first = network_of(stage, settings).state_dict()
    torch.manual_seed(2)
    again = network_of(stage, settings).state_dict()
    other = network_of(stage, config("multi-domain", seed=4)).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])
