"""What a stage trains: a network with the terms of its loss, a pre-training, or a module that a term needs."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from PedBoneSegLib.network.config import DomainSpec, NetworkConfig
from PedBoneSegLib.network.segmenter import Output, Segmenter, build_network

from ..configuration.extensions import AuxiliaryStage, Batches, Context, Stage, Term
from ..configuration.sections import Configuration
from ..randomness import generator
from .stages import NetworkStage, PretrainingStage


def network_of(stage: NetworkStage, config: Configuration, specs: Sequence[DomainSpec]) -> Segmenter:
    """The stage's network with fresh weights."""
    return build_network(
        NetworkConfig(
            config.network.architecture,
            tuple(specs),
            config.network.decoder,
            config.slices.channels,
            stage.normalization,
            stage.head,
            config.network.width,
        )
    )


def build_model(
    stage: Stage,
    config: Configuration,
    specs: Sequence[DomainSpec],
    trained: Callable[[str], nn.Module] | None = None,
) -> nn.Module:
    """The module that the stage trains; `module(batches, context)` is its loss.

    Its weights are a function of the seed and the stage's name. `trained` gives an earlier stage's finished module.
    """
    torch.manual_seed(generator(config.seed, "weights", stage.name).initial_seed())
    if isinstance(stage, AuxiliaryStage):
        return stage.build(specs)
    assert isinstance(stage, NetworkStage)
    network = network_of(stage, config, specs)
    if isinstance(stage, PretrainingStage):
        return config.pretraining[config.training.pretraining].build(network)
    example = _example(network, config)
    terms, clips = {}, {}
    for name, settings in config.active_terms.items():
        modules = [trained(earlier.name) for earlier in settings.stages(config)] if trained else []
        terms[name] = settings.build(specs, example, *modules)
        if settings.clip:
            clips[name] = settings.clip
    return NetworkWithLoss(network, terms, clips)


@torch.no_grad()
def _example(network: Segmenter, config: Configuration) -> Output:
    """What the network gives for an empty image of every domain."""
    names = [spec.name for spec in network.config.domains]
    blank = torch.zeros(len(names), config.slices.channels, *config.data.patch)
    example = network.eval()(blank, names)
    network.train()
    return example


class NetworkWithLoss(nn.Module):
    """A network and the terms of its loss; `model(batches, context)` is the loss.

    A term with a limit of its own (`clips`) sees the network's output detached, so that the backward pass of the loss
    reaches its own modules alone. Its gradient on the network is calculated apart and kept in `apart`, a sum over the
    passes, until `take_apart` hands it to the training loop.
    """

    def __init__(self, network: Segmenter, terms: dict[str, Term], clips: dict[str, float]) -> None:
        super().__init__()
        self.network = network
        self.terms = nn.ModuleDict(terms)
        self.clips = clips
        self.apart: dict[str, Tensor] = {}

    def forward(self, batches: Batches, context: Context) -> Tensor:
        images = torch.cat([batch.images for batch in batches.values()])
        domains = [name for name, batch in batches.items() for _ in batch.cases]
        output = self.network(images.contiguous(memory_format=torch.channels_last), domains)
        losses = []
        for name, term in self.terms.items():
            if name not in self.clips or not torch.is_grad_enabled():
                losses.append(term(output, batches, context))
                continue
            seen = detached(output)
            losses.append(term(seen, batches, context))
            gradient = self._on_network(losses[-1], seen, output)
            self.apart[name] = self.apart[name] + gradient if name in self.apart else gradient
        return torch.stack([loss.reshape(()) for loss in losses]).sum()

    def take_apart(self) -> dict[str, Tensor]:
        """The gradients of the terms with a limit of their own, on all of the network's parameters in one row."""
        apart, self.apart = self.apart, {}
        return apart

    def _on_network(self, loss: Tensor, seen: Output, output: Output) -> Tensor:
        inner = torch.autograd.grad(loss, tensors(seen), retain_graph=True, allow_unused=True)
        used = [(tensor, grad) for tensor, grad in zip(tensors(output), inner, strict=True) if grad is not None]
        parameters = list(self.network.parameters())
        if not used:
            return torch.cat([torch.zeros_like(parameter).reshape(-1) for parameter in parameters])
        ends, grads = zip(*used, strict=True)
        parts = torch.autograd.grad(ends, parameters, grads, retain_graph=True, allow_unused=True)
        pairs = zip(parts, parameters, strict=True)
        return torch.cat([(torch.zeros_like(p) if part is None else part).reshape(-1) for part, p in pairs])


def tensors(output: Output) -> list[Tensor]:
    return [*output.logits.values(), *output.features, *output.decoded]


def detached(output: Output) -> Output:
    """A copy through which no gradient reaches the network, but whose own tensors have one."""

    def leaf(tensor: Tensor) -> Tensor:
        return tensor.detach().requires_grad_()

    return Output(
        {name: leaf(logits) for name, logits in output.logits.items()},
        [leaf(features) for features in output.features],
        [leaf(features) for features in output.decoded],
        output.order,
    )
