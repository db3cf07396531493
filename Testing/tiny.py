"""A model small enough to be made in every test: real in all but its training."""

from pathlib import Path

import torch

from PedBoneSegLib.anatomy import joint_table
from PedBoneSegLib.models.bundle import write_bundle
from PedBoneSegLib.models.manifest import DomainCard, Manifest
from PedBoneSegLib.network.config import DomainSpec, NetworkConfig
from PedBoneSegLib.network.dsbn import DomainBatchNorm
from PedBoneSegLib.network.segmenter import Segmenter, build_network

SETTINGS = {"pixel_mm": 1.0, "context": 0, "context_mm": 3.0, "plane": "sagittal"}


def tiny_config(joints: tuple[str, ...] = ("ankle", "knee", "shoulder"), **options) -> NetworkConfig:
    """A plain U-Net of width 4 with one domain per joint; `options` are further fields of the configuration."""
    domains = tuple(DomainSpec(joint, joint, joint_table(joint).names) for joint in joints)
    return NetworkConfig(**{"architecture": "unet", "domains": domains, "width": 4, **options})


def random_network(config: NetworkConfig, seed: int = 0) -> Segmenter:
    """A network in evaluation mode whose domains differ: normalization drawn at random too, variances above 0."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_network(config)
        for module in network.modules():
            if isinstance(module, DomainBatchNorm):
                with torch.no_grad():
                    module.weight.uniform_(0.5, 1.5)
                    module.bias.normal_(0, 0.3)
                    module.running_mean.normal_(0, 0.3)
                    module.running_var.uniform_(0.5, 2)
    return network.eval()


def tensors_of(network: Segmenter) -> dict[str, torch.Tensor]:
    """As `write_bundle` wants them."""
    return {f"network.{name}": tensor for name, tensor in network.state_dict().items()}


def domain_state(network: Segmenter, name: str) -> dict[str, torch.Tensor]:
    """A copy of the rows that a domain uses, normalization statistics included, by the names of `state_dict`."""
    row = network.normalization_row(name)
    state = {
        f"{path}.{key}": tensor[row].clone()
        for path, module in network.named_modules()
        if isinstance(module, DomainBatchNorm)
        for key, tensor in module.state_dict().items()
    }
    weight, bias = network.head.matrix(name)
    return {**state, "head.weight": weight.detach().clone(), "head.bias": bias.detach().clone()}


def tiny_manifest(config: NetworkConfig, **options) -> Manifest:
    """A manifest for a network whose joints are known ones; `options` are further fields."""
    cards = tuple(DomainCard(s.name, s.joint, joint_table(s.joint), dict(SETTINGS)) for s in config.domains)
    fields = {"name": "tiny", "version": "1", "licence": "Apache-2.0", "provenance": {"data": "none"}}
    return Manifest(**{**fields, "network": config, "domains": cards, "card": "# Tiny\nRandom weights.", **options})


def make_tiny_bundle(path: Path, joints: tuple[str, ...] = ("ankle", "knee", "shoulder"), seed: int = 0) -> Path:
    """Writes a model of random weights, one domain per joint; the same seed gives the same file."""
    config = tiny_config(joints)
    write_bundle(path, tiny_manifest(config), tensors_of(random_network(config, seed)))
    return Path(path)
