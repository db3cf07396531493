"""Starting a network from another one: an earlier stage of the run, or a finished model."""

import torch
from torch import nn

from PedBoneSegLib.errors import BadInput
from PedBoneSegLib.network.config import DomainSpec
from PedBoneSegLib.network.dsbn import DomainBatchNorm
from PedBoneSegLib.network.segmenter import Segmenter


@torch.no_grad()
def copy_weights(network: Segmenter, source: Segmenter) -> None:
    """Copies the filters of `source`, and for each domain the normalization of the nearest one that `source` has: of
    its name, else of its joint, else the first. An output layer is copied where that domain has the same bones."""
    for key in ("architecture", "decoder", "in_channels", "width"):
        ours, theirs = getattr(network.config, key), getattr(source.config, key)
        if ours != theirs:
            raise BadInput(f"the model to start from has {key} {theirs!r}, not {ours!r}", f"set {key} as it is there")
    likes = {spec.name: _nearest(spec, source.config.domains) for spec in network.config.domains}
    for (name, module), (_, other) in zip(network.named_modules(), source.named_modules(), strict=True):
        if isinstance(module, DomainBatchNorm):
            for spec in network.config.domains:
                row, from_row = network.normalization_row(spec.name), source.normalization_row(likes[spec.name].name)
                for own, given in zip(_tensors(module), _tensors(other), strict=True):
                    own[row] = given[from_row]
        elif isinstance(module, nn.Conv2d | nn.Linear) and not name.startswith("head"):
            for own, given in zip(module.parameters(), other.parameters(), strict=True):
                own.copy_(given)
    for spec in network.config.domains:
        like = likes[spec.name]
        if like.joint == spec.joint and like.bones == spec.bones:
            for own, given in zip(network.head.rows[spec.name], source.head.rows[like.name], strict=True):
                network.head.weight[own] = source.head.weight[given]
                network.head.bias[own] = source.head.bias[given]


def _nearest(spec: DomainSpec, known: tuple[DomainSpec, ...]) -> DomainSpec:
    return min(known, key=lambda other: (other.name != spec.name, other.joint != spec.joint))


def _tensors(module: DomainBatchNorm) -> tuple[torch.Tensor, ...]:
    return module.weight, module.bias, module.running_mean, module.running_var
