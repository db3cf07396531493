"""Supervised contrastive regularization: embeddings of one domain together, domains apart, at one scale or several.

With z L2-normalized, N embeddings in the step, P(i) the others of i's domain and temperature τ:

    L = (1/N) Σ_i  −1/|P(i)| Σ_{p∈P(i)} log( exp(z_i·z_p/τ) / Σ_{a≠i} exp(z_i·z_a/τ) )

An anchor without a positive contributes 0 and still counts in N. The term is λ · mean over scales of L, where each
scale has an embedding of its own: the feature map averaged over the image, then a projection (linear, ReLU, linear).
Scales are the encoder's, counted from the bottleneck up: 1 is publication A's term, more are publication B's. The
projections are trained with the network and dropped at export. All of it runs in float32. With several devices the
term compares the embeddings of one device's sub-batches; gathering them would tie the gradient to the number of ranks.

Two cosines are logged, each as `intra` (pairs of one domain) and `inter` (pairs of two): `embedding/…`, after the
projection, which the loss acts on, and `pooled/…`, before it, which says what reached the shared representation.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from PedBoneSegLib.errors import BadInput
from PedBoneSegLib.network.config import DomainSpec
from PedBoneSegLib.network.segmenter import Output

from ..configuration.extensions import LOSS_TERMS, Batches, Context, LossTerm, Term
from ..configuration.sections import Configuration


@LOSS_TERMS.register("contrastive")
@dataclass(frozen=True)
class Contrastive(LossTerm):
    """`weight` λ, `temperature` τ, `scales` counted from the bottleneck, `width` of an embedding."""

    temperature: float = 0.1
    scales: int = 1
    width: int = 128

    def faults(self, config: Configuration) -> Iterator[tuple[str, str]]:
        several = len(config.domains) > 1
        if not several or config.scheme in ("individual", "transfer"):
            of = f"a network of the scheme {config.scheme}" if several else "the study"
            yield (
                f"the contrastive term needs two domains in a step, and {of} has one: without negatives the embedding "
                "collapses",
                "set loss.contrastive.weight = 0, or take the scheme multi-domain",
            )
        if config.training.batch < 2:
            yield "the contrastive term needs two images of each domain", "set training.batch to 2 or more"

    def build(self, domains: Sequence[DomainSpec], example: Output, *trained: nn.Module) -> Term:
        return ContrastiveTerm(self, domains, example)


class ContrastiveTerm(Term):
    def __init__(self, settings: Contrastive, domains: Sequence[DomainSpec], example: Output) -> None:
        super().__init__()
        channels = [scale.shape[1] for scale in example.features]
        if not 1 <= settings.scales <= len(channels):
            raise BadInput(
                f"the contrastive term asks for {settings.scales} scales", f"the encoder has 1 to {len(channels)}"
            )
        self.settings = settings
        self.projections = nn.ModuleList(
            nn.Sequential(nn.Linear(width, settings.width), nn.ReLU(), nn.Linear(settings.width, settings.width))
            for width in channels[-settings.scales :]
        )

    def forward(self, output: Output, batches: Batches, context: Context) -> Tensor:
        domain = torch.cat(
            [
                torch.full((len(batch),), number, device=output.features[0].device)
                for number, batch in enumerate(batches.values())
            ]
        )
        losses, embedded, pooled = [], [], []
        with torch.autocast(domain.device.type, enabled=False):
            for projection, features in zip(self.projections, output.features[-self.settings.scales :], strict=True):
                mean = features.to(projection[0].weight.dtype).mean((2, 3))
                z = F.normalize(projection(mean), dim=1)
                losses.append(supervised_contrastive(z, domain, self.settings.temperature))
                embedded.append(domain_cosines(z, domain))
                pooled.append(domain_cosines(F.normalize(mean, dim=1), domain))
        for name, cosines in (("embedding", embedded), ("pooled", pooled)):
            intra, inter = torch.stack(cosines).mean(0)
            context.log(f"{name}/intra", intra)
            context.log(f"{name}/inter", inter)
        loss = torch.stack(losses).mean()
        context.log("contrastive", loss)
        return self.settings.weight * loss


def supervised_contrastive(z: Tensor, label: Tensor, temperature: float) -> Tensor:
    """The formula above; z [N, width] L2-normalized, label [N]. 0 for fewer than two embeddings."""
    if len(z) < 2:
        return z.sum() * 0
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    positive = (label[:, None] == label[None, :]) & ~itself
    similarity = (z @ z.T / temperature).masked_fill(itself, -torch.inf)
    log_share = similarity - similarity.logsumexp(1, keepdim=True)
    of_positives = log_share.masked_fill(~positive, 0).sum(1) / positive.sum(1).clamp(min=1)
    return -of_positives.mean()


@torch.no_grad()
def domain_cosines(z: Tensor, label: Tensor) -> Tensor:
    """[intra, inter]: mean cosine over pairs of one domain and of two; NaN where there is no such pair."""
    cosine = z @ z.T
    same = label[:, None] == label[None, :]
    pair = ~torch.eye(len(z), dtype=torch.bool, device=z.device)
    return torch.stack([cosine[same & pair].mean(), cosine[~same].mean()])
