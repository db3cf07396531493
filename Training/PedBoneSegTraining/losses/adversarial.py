"""The adversarial term: a discriminator learns to tell reference masks from predicted ones, the network to pass.

    D side        mean_k ½ [ BCE(D_k(y), 1) + BCE(D_k(ŷ held fixed), 0) ]
    network side  λ · mean_k BCE(D_k(ŷ), 1),  D held fixed

Both sides descend in the same step, from one backward pass and by one optimizer; neither sees the other's gradient.
Chosen over gradient reversal because the reversed loss log(1 − D(ŷ)) loses its gradient just when D is sure of itself
(early, when ŷ is worst), over strict alternation because that needs two optimizers and two kinds of step. λ scales the
network's side only, D learns at its own rate.

ŷ is the softmax. A reference mask is one-hot, which alone would give it away, so both are first averaged over 4×4
pixels: along its edge a reference is then as fractional as a prediction. D has an input layer per domain and shares the
rest (strided convolutions without normalization, whose statistics would tell the two kinds of mask apart); it judges
patches, one logit per 64×64 pixels or so. Images with an unlabeled bone have no reference mask and take no part.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from PedBoneSegLib.network.config import DomainSpec
from PedBoneSegLib.network.segmenter import Output

from ..configuration.extensions import LOSS_TERMS, Batches, Context, LossTerm, Term
from .shape_prior import complete_masks


@LOSS_TERMS.register("adversarial")
@dataclass(frozen=True)
class Adversarial(LossTerm):
    """`weight` λ, `width` the discriminator's channels after its first layer."""

    width: int = 32

    def build(self, domains: Sequence[DomainSpec], example: Output, *trained: nn.Module) -> Term:
        return AdversarialTerm(self, domains)


class Discriminator(nn.Module):
    """`forward(masks [n, 1 + bones, H, W], domain number)` → logits [n, 1, h, w], positive for "reference"."""

    POOL = 4

    def __init__(self, classes: list[int], width: int) -> None:
        super().__init__()
        self.inputs = nn.ModuleList(nn.Conv2d(count, width, 3, padding=1) for count in classes)
        self.shared = nn.Sequential(
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 4 * width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(4 * width, 1, 3, padding=1),
        )

    def forward(self, masks: Tensor, domain: int) -> Tensor:
        return self.shared(self.inputs[domain](F.avg_pool2d(masks, self.POOL)))


class AdversarialTerm(Term):
    def __init__(self, settings: Adversarial, domains: Sequence[DomainSpec]) -> None:
        super().__init__()
        self.settings = settings
        self.discriminator = Discriminator([1 + len(domain.bones) for domain in domains], settings.width)
        self.numbers = {domain.name: number for number, domain in enumerate(domains)}

    def forward(self, output: Output, batches: Batches, context: Context) -> Tensor:
        told, passed = [], []
        for name, batch in batches.items():
            predicted, reference = complete_masks(output.logits[name], batch)
            sides = adversarial_losses(self.discriminator, predicted, reference, self.numbers[name])
            told.append(sides[0])
            passed.append(sides[1])
        told, passed = torch.stack(told).mean(), torch.stack(passed).mean()
        context.log("adversarial/discriminator", told)
        context.log("adversarial", passed)
        return told + self.settings.weight * passed


def adversarial_losses(discriminator: Discriminator, predicted: Tensor, reference: Tensor, domain: int):
    """(the discriminator's loss, the network's loss) for soft masks of one domain, both [n, 1 + bones, H, W].

    The first has no gradient to `predicted`, the second none to the discriminator. For n = 0 both are 0, with zero (not
    absent) gradients, as training on several devices needs.
    """
    frozen = {name: parameter.detach() for name, parameter in discriminator.named_parameters()}
    real = discriminator(reference, domain)
    fake = discriminator(predicted.detach(), domain)
    judged = functional_call(discriminator, frozen, (predicted, domain))
    told = (_mean(F.softplus(-real)) + _mean(F.softplus(fake))) / 2
    return told, _mean(F.softplus(-judged))


def _mean(values: Tensor) -> Tensor:
    return values.sum(dtype=torch.promote_types(values.dtype, torch.float32)) / max(1, values.numel())
