"""The output layer: from the decoder's last features to one channel for the background and one for each bone.

All heads together are one matrix, and a domain uses some of its rows. With one head for each domain, every domain has
its own rows. With one head for the union of all bones, row 0 is the background of all domains, and the row of a bone
belongs to its joint: the tibia of the knee and that of the ankle are different outputs, but two domains of one joint
share theirs. A domain uses only the rows of its joint, which is the same as masking the softmax to the joint.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import BACKGROUND, DomainSpec, NetworkConfig


class Head(nn.Module):
    """A 1×1 convolution per domain, stacked: `weight` (rows, channels, 1, 1), `bias` (rows)."""

    def __init__(self, config: NetworkConfig, channels: int) -> None:
        super().__init__()
        self.kind = config.head
        self.keys: list[tuple[str, str]] = []  # the meaning of each row: (domain or joint, bone)
        self.rows: dict[str, list[int]] = {}  # of each domain: the background's row, then its bones' in label order
        for spec in config.domains:
            self._place(spec)
        self.weight = nn.Parameter(torch.empty(len(self.keys), channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(len(self.keys)))
        _initialize(self.weight)

    def forward(self, x: Tensor, domain: str) -> Tensor:
        """Logits [n, 1 + bones, rows, columns] of images of one domain."""
        return F.conv2d(x, *self.matrix(domain))

    def matrix(self, domain: str) -> tuple[Tensor, Tensor]:
        """Weight and bias of one domain."""
        rows = self.rows[domain]
        return torch.stack([self.weight[row] for row in rows]), torch.stack([self.bias[row] for row in rows])

    def append(self, spec: DomainSpec, like: DomainSpec) -> None:
        """Adds a domain. Its new rows are copies of those of `like` if both have the same bones, otherwise random."""
        source = dict(zip((BACKGROUND, *like.bones), self.rows[like.name], strict=True))
        old = len(self.keys)
        self._place(spec)
        weight = self.weight.new_empty(len(self.keys) - old, *self.weight.shape[1:])
        bias = self.bias.new_zeros(len(weight))
        _initialize(weight)
        if set(spec.bones) == set(like.bones):
            for new, (_, bone) in enumerate(self.keys[old:]):
                weight[new] = self.weight.detach()[source[bone]]
                bias[new] = self.bias.detach()[source[bone]]
        self.weight = nn.Parameter(torch.cat((self.weight.detach(), weight)))
        self.bias = nn.Parameter(torch.cat((self.bias.detach(), bias)))

    def _place(self, spec: DomainSpec) -> None:
        if self.kind == "union":
            keys = [("", BACKGROUND), *((spec.joint, bone) for bone in spec.bones)]
        else:
            keys = [(spec.name, bone) for bone in (BACKGROUND, *spec.bones)]
        self.keys += [key for key in keys if key not in self.keys]
        self.rows[spec.name] = [self.keys.index(key) for key in keys]


def _initialize(weight: Tensor) -> None:
    """Features of unit variance give logits of unit variance."""
    if weight.is_meta:  # without memory; drawing into it would load torch's compiler, which takes seconds
        return
    with torch.no_grad():
        weight.normal_(0.0, weight.shape[1] ** -0.5)
