"""What the terms of the loss have in common. One file a term; each file holds the term's settings (a frozen dataclass
that `configuration.Loss` lists, `weight = 0` where it is off by default), its formula and its `Term`.

A term is a module, so that what it must train (projection heads, a discriminator) are its parameters: the trainer
hands them to the same optimizer, the same backward pass and the same checkpoint as the network's. A term that is
two-sided (the adversarial one) returns the sum of both sides' losses, each side seeing the other detached: one
backward pass serves both.
"""

from dataclasses import dataclass, field

import torch
from torch import nn


@dataclass
class Context:
    """Where in the run a term is asked, and where it leaves the numbers that the run's log shows."""

    step: int
    steps: int
    values: dict[str, torch.Tensor] = field(default_factory=dict)

    def log(self, name: str, value: torch.Tensor) -> None:
        """Keep a scalar for the log, without a synchronization with the device."""
        self.values[name] = value.detach()


class Term(nn.Module):
    """`forward(output, batches, context)` → scalar, already weighted.

    output:  the network's `Output` for the concatenation of the batches' images, in the order of `batches`
    batches: one `data.source.Batch` a domain, by name
    context: `Context`; a term logs what it wants seen (its unweighted value under its own name)

    Built as `XTerm(settings, domains, example)`: domains are the network's `DomainSpec`s, `example` an `Output` of it,
    to read channels and scales from. (PriorTerm gets the frozen auto-encoder as a fourth argument.)
    """

    def forward(self, output, batches, context):  # pragma: no cover - the interface
        raise NotImplementedError


# The trainer trains anything that answers `model(batches, context)` → scalar loss: the segmenter with its terms
# (`trainer.SegmenterModel`), or `shape_prior.ShapeAutoencoder(settings, domains)`, which is a stage of its own that
# comes before the stages that use it. A further kind of stage (publication C's pre-training) is one more such module.
