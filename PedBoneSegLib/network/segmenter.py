"""The whole network: encoder, decoder and head, run once over a batch that may hold images of several domains."""

from dataclasses import dataclass, replace
from itertools import groupby

from torch import Tensor, nn

from .config import DomainSpec, NetworkConfig
from .decoder import Decoder
from .dsbn import DomainBatchNorm, Runs
from .encoders import build_encoder
from .heads import Head


@dataclass
class Output:
    """The output of the network.

    `logits`: for each domain in the batch [its images, 1 + bones, rows, columns]; channel 0 is the background, channel
    i the domain's i-th bone. `features`: the encoder's, fine to coarse, the last being the bottleneck. `decoded`: the
    decoder's, coarse to fine, the last at the image's size. Both cover the whole batch; `order` gives the position of
    each domain's images in it.
    """

    logits: dict[str, Tensor]
    features: list[Tensor]
    decoded: list[Tensor]
    order: dict[str, slice]


class Segmenter(nn.Module):
    """A network for several domains. `build_network` makes one; its weights come from torch's global generator."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        rows = len(config.domains) if config.normalization == "domain" else 1
        self.encoder = build_encoder(config.architecture, rows, config.in_channels, config.width)
        self.decoder = Decoder(rows, self.encoder, config.decoder)
        self.head = Head(config, self.decoder.channels)
        self.apply(_initialize)

    def forward(self, images: Tensor, domains: list[str] | tuple[str, ...]) -> Output:
        """`images` [n, in_channels, rows, columns] of any size; `domains` has the domain of each image, equal ones side
        by side.

        Every convolution runs once over the whole batch. In training, a domain's share must leave more than one
        value per channel at the coarsest level (two images always do).
        """
        order = self._order(domains, len(images))
        runs = self.runs(order)
        features = self.encoder(images, runs)
        decoded = self.decoder(features, images.shape[-2:], runs)
        logits = {name: self.head(decoded[-1][where], name) for name, where in order.items()}
        return Output(logits, features, decoded, order)

    def runs(self, order: dict[str, slice]) -> Runs:
        """The domains of a batch in the form in which the encoder and the decoder need them: see `dsbn`."""
        if self.config.normalization == "shared":
            return ((0, sum(where.stop - where.start for where in order.values())),)
        return tuple((self.config.index(name), where.stop - where.start) for name, where in order.items())

    def normalization_row(self, domain: str) -> int:
        """The row of a domain's normalization."""
        index = self.config.index(domain)
        return index if self.config.normalization == "domain" else 0

    def add_domain(self, spec: DomainSpec, like: str) -> None:
        """Adds a domain. Its normalization starts as a copy of that of the domain `like`, and so does its head if the
        bones are the same; otherwise the head is random. The results of the other domains stay exactly the same.
        Parameters are replaced by longer ones, so create the optimizer afterwards.
        """
        source = self.config.domain(like)
        row = self.normalization_row(like)
        config = replace(self.config, domains=(*self.config.domains, spec))  # raises before anything is changed
        self.head.append(spec, source)
        if config.normalization == "domain":
            for module in self.modules():
                if isinstance(module, DomainBatchNorm):
                    module.append_copy(row)
        self.config = config

    def domain_parameters(self, name: str) -> list[nn.Parameter]:
        """The parameters in which a domain has its own rows: normalization and head, unless these are shared.

        The rows of all domains are in the same tensors. In a step without the other domains, their rows get a gradient
        of zero; without weight decay they do not change at all.
        """
        self.config.index(name)
        norms = [module for module in self.modules() if isinstance(module, DomainBatchNorm)]
        own: list[DomainBatchNorm | Head] = [*norms] if self.config.normalization == "domain" else []
        if self.config.head == "domain":
            own.append(self.head)
        return [parameter for module in own for parameter in (module.weight, module.bias)]

    def shared_parameters(self) -> list[nn.Parameter]:
        """All other parameters: those that all domains use."""
        own = {id(parameter) for parameter in self.domain_parameters(self.config.domains[0].name)}
        return [parameter for parameter in self.parameters() if id(parameter) not in own]

    def _order(self, domains: list[str] | tuple[str, ...], images: int) -> dict[str, slice]:
        if isinstance(domains, str) or len(domains) != images:
            raise ValueError(f"a batch of {images} images needs {images} names of domains, one per image")
        order: dict[str, slice] = {}
        start = 0
        for name, group in groupby(domains):
            self.config.index(name)  # raises for an unknown one
            if name in order:
                raise ValueError(f"the images of domain {name!r} do not lie together in the batch")
            order[name] = slice(start, start + len(list(group)))
            start = order[name].stop
        return order


def build_network(config: NetworkConfig) -> Segmenter:
    """The network of that configuration with fresh weights, in training mode."""
    return Segmenter(config)


def _initialize(module: nn.Module) -> None:
    """He initialization by the inputs of each output, which for a depthwise convolution are its own window's."""
    if isinstance(module, nn.Conv2d) and not module.weight.is_meta:  # as in heads
        nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
