"""Cross-entropy + soft Dice, with the bones that nobody labeled left open.

In a case where bone u is unlabeled, a background label says "background, or u". The softmax is therefore summed over
the background and the unlabeled bones before anything is compared,

    p'_0 = p_0 + Σ_{u unlabeled} p_u,        p'_b = p_b for the labeled bones b,

and the cross-entropy is −log p'_label. Where the label is background, how p'_0 divides between the background and u is
the network's own affair: u is learned neither as background nor as bone, what the other cases taught about it is not
contradicted, and a network that is undecided stays so (the gradient follows the present shares, which sharpens a belief
that is there). Where the label is another bone, u is pushed down, as it should be. Dice is over labeled bones alone.

    CE   = mean over all pixels of the domain's sub-batch
    Dice = mean over bones b of  1 − (2 Σ p_b y_b + 1) / (Σ p_b + Σ y_b + 1),   sums over the images where b is labeled

The sums run over the whole sub-batch, not per image: most slices lack most bones, and a bone absent from a slice is no
reason for a full loss. The 1 is one pixel: a bone absent from the whole sub-batch and not predicted costs nothing. The
background has no Dice term, the cross-entropy sees to it. (What the publications leave open; our choice.)

Predicted where it is absent, a bone costs P / (P + 1) for P pixels in all: a single stray pixel nearly half of what a
bone can cost at all. Where small bones are absent from most sub-batches, the network learns never to name them;
`dice_of_absent = false` leaves such a bone's Dice out, and its stray pixels to the cross-entropy.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from PedBoneSegLib.network.config import DomainSpec
from PedBoneSegLib.network.segmenter import Output

from ..configuration.extensions import LOSS_TERMS, Batches, Context, LossTerm, Term


@LOSS_TERMS.register("segmentation")
@dataclass(frozen=True)
class Segmentation(LossTerm):
    """`weight` is the whole term's, `cross_entropy` and `dice` are those of its two parts."""

    weight: float = 1.0
    cross_entropy: float = 1.0
    dice: float = 1.0
    dice_of_absent: bool = True  # whether a bone that the sub-batch does not show has a Dice term

    def build(self, domains: Sequence[DomainSpec], example: Output, *trained: nn.Module) -> Term:
        return SegmentationTerm(self)


class SegmentationTerm(Term):
    """mean over domains of CE + Dice."""

    def __init__(self, settings: Segmentation) -> None:
        super().__init__()
        self.settings = settings

    def forward(self, output: Output, batches: Batches, context: Context) -> Tensor:
        losses = []
        for name, batch in batches.items():
            entropy, dice = segmentation_loss(
                output.logits[name], batch.labels, batch.known, self.settings.dice_of_absent
            )
            context.log(f"cross_entropy/{name}", entropy)
            context.log(f"dice_loss/{name}", dice)
            losses.append(self.settings.cross_entropy * entropy + self.settings.dice * dice)
        total = torch.stack(losses).mean()
        context.log("segmentation", total)
        return self.settings.weight * total


def segmentation_loss(
    logits: Tensor, labels: Tensor, known: Tensor, dice_of_absent: bool = True
) -> tuple[Tensor, Tensor]:
    """(cross-entropy, Dice loss) of one domain's sub-batch, in float32 at least.

    logits [n, 1 + bones, H, W], labels [n, H, W] (0 background), known bool [n, 1 + bones]. A pixel that carries the
    label of a bone declared unlabeled counts as background-or-unlabeled. Without a labeled bone the Dice loss is 0.
    """
    log_p = F.log_softmax(logits, 1, dtype=torch.promote_types(logits.dtype, torch.float32))
    open_ = ~known
    if open_.any():
        labels = torch.where(open_.gather(1, labels.flatten(1)).view_as(labels), 0, labels)
        open_[:, 0] = True
        background = log_p.masked_fill(~open_[:, :, None, None], -torch.inf).logsumexp(1, keepdim=True)
        entropy = F.nll_loss(torch.cat([background, log_p[:, 1:]], 1), labels)
    else:
        entropy = F.nll_loss(log_p, labels)

    weight = known[:, 1:].to(log_p.dtype)
    p = log_p[:, 1:].exp()
    y = F.one_hot(labels, logits.shape[1])[..., 1:].permute(0, 3, 1, 2).to(p.dtype)
    both = ((p * y).sum((2, 3)) * weight).sum(0)
    either = ((p.sum((2, 3)) + y.sum((2, 3))) * weight).sum(0)
    each = 1 - (2 * both + 1) / (either + 1)
    counts = ((weight if dice_of_absent else y.sum((2, 3)) * weight).sum(0) > 0).to(p.dtype)
    return entropy, (each * counts).sum() / counts.sum().clamp(min=1)
