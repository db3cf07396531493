"""The multi-joint anatomical prior: predictions whose shape code is that of the reference.

One mask auto-encoder serves all joints. Its ends are a domain's own (as many channels as the domain has classes), its
normalization is DSBN, all else is shared, so that a shoulder's masks help to learn what a knee's outline may be. It is
trained first, on reference masks alone, to reproduce them (the segmentation loss, `ShapeAutoencoder`), then frozen:

    L = λ · mean_k mean_images ‖E_k(ŷ) − E_k(y)‖² / dim

with ŷ the softmax (an argmax has no gradient), E in evaluation mode with its running statistics, the gradient through ŷ
alone. dim is the number of elements of an image's code, so λ means the same at every image size. Images with an
unlabeled bone have no reference mask: they take no part, here and in the auto-encoder's training.

The code (`code` channels at 1/32 of the resolution: 1024 numbers for 256×256 pixels) has no skip connection around it;
that, not noise or dropout, is what confines it to shapes. (What the publications leave open; our choice.)
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from PedBoneSegLib.network.config import DomainSpec
from PedBoneSegLib.network.dsbn import ConvNorm, DomainBatchNorm
from PedBoneSegLib.network.segmenter import Output

from ..batch import Batch
from ..configuration.extensions import LOSS_TERMS, AuxiliaryStage, Batches, Context, LossTerm, Term
from ..configuration.sections import Configuration
from .segmentation import segmentation_loss


@LOSS_TERMS.register("prior")
@dataclass(frozen=True)
class ShapePrior(LossTerm):
    """`weight` λ; `width` and `code` are the auto-encoder's channels: of its first layer and of its code."""

    width: int = 32
    code: int = 16

    def faults(self, config: Configuration) -> Iterator[tuple[str, str]]:
        if not config.training.prior_steps:
            yield "the shape prior has no model", "set training.prior_steps, the steps of its auto-encoder"

    def stages(self, config: Configuration) -> tuple[AuxiliaryStage, ...]:
        build = partial(ShapeAutoencoder, self)
        return (AuxiliaryStage("prior", tuple(config.domains), config.training.prior_steps, build),)

    def build(self, domains: Sequence[DomainSpec], example: Output, *trained: nn.Module) -> Term:
        return PriorTerm(self, cast(ShapeAutoencoder, trained[0]))


PATCH = 4  # pixels along the side of what the domain's own first and last layer see at once
HALVINGS = 3  # of the shared part, which brings the code to 1/32


class ShapeAutoencoder(nn.Module):
    """Masks → code → masks. Rows and columns are multiples of 32, as a slice stack's are.

    As a stage of training, `forward(batches, context)` is the loss of reproducing the batches' labels.
    """

    def __init__(self, settings: ShapePrior, domains: Sequence[DomainSpec]) -> None:
        super().__init__()
        self.numbers = {domain.name: number for number, domain in enumerate(domains)}
        classes = [1 + len(domain.bones) for domain in domains]
        rows, width = len(domains), settings.width
        widths = [width * min(4, 2**level) for level in range(HALVINGS + 1)]
        steps = list(zip(widths[:-1], widths[1:], strict=True))
        self.inputs = nn.ModuleList(nn.Conv2d(count, width, PATCH, PATCH, bias=False) for count in classes)
        self.input_norm = DomainBatchNorm(rows, width)
        self.down = nn.ModuleList(ConvNorm(rows, fine, coarse, stride=2) for fine, coarse in steps)
        self.to_code = ConvNorm(rows, widths[-1], settings.code, kernel=1, activation="")
        self.from_code = ConvNorm(rows, settings.code, widths[-1])
        self.up = nn.ModuleList(ConvNorm(rows, coarse, fine) for fine, coarse in reversed(steps))
        self.outputs = nn.ModuleList(nn.Conv2d(width, count * PATCH**2, 1) for count in classes)

    def encode(self, masks: dict[str, Tensor]) -> dict[str, Tensor]:
        """Soft or one-hot masks [n, 1 + bones, H, W] by domain → codes [n, code, H/32, W/32]."""
        runs = tuple((self.numbers[name], len(mask)) for name, mask in masks.items())
        x = torch.cat([self.inputs[self.numbers[name]](mask) for name, mask in masks.items()])
        x = F.relu(self.input_norm(x, runs))
        for block in self.down:
            x = block(x, runs)
        return _split(self.to_code(x, runs), masks)

    def decode(self, codes: dict[str, Tensor]) -> dict[str, Tensor]:
        """Codes → logits of masks."""
        runs = tuple((self.numbers[name], len(code)) for name, code in codes.items())
        x = self.from_code(torch.cat(list(codes.values())), runs)
        for block in self.up:
            x = block(F.interpolate(x, scale_factor=2, mode="nearest"), runs)
        parts = _split(x, codes)
        return {name: F.pixel_shuffle(self.outputs[self.numbers[name]](part), PATCH) for name, part in parts.items()}

    def forward(self, batches: Batches, context: Context) -> Tensor:
        complete = {name: batch.known.all(1) for name, batch in batches.items()}
        labels = {name: batch.labels[complete[name]] for name, batch in batches.items() if complete[name].any()}
        # Zero, but with a gradient to everything: a domain without a complete mask in this step must not lack one.
        total = sum(parameter.sum() for parameter in self.parameters()) * 0
        if not labels:
            return total
        masks = {name: _one_hot(each, batches[name], total.dtype) for name, each in labels.items()}
        for name, logits in self.decode(self.encode(masks)).items():
            entropy, dice = segmentation_loss(logits, labels[name], torch.ones_like(masks[name][:, :, 0, 0]).bool())
            context.log(f"prior_dice_loss/{name}", dice)
            total = total + (entropy + dice) / len(masks)
        context.log("prior_reconstruction", total)
        return total


class PriorTerm(Term):
    """Holds the trained auto-encoder frozen: without gradients, always in evaluation mode."""

    def __init__(self, settings: ShapePrior, autoencoder: ShapeAutoencoder) -> None:
        super().__init__()
        self.settings = settings
        self.autoencoder = autoencoder.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "PriorTerm":
        super().train(mode)
        self.autoencoder.eval()
        return self

    def forward(self, output: Output, batches: Batches, context: Context) -> Tensor:
        pairs = {name: complete_masks(output.logits[name], batch) for name, batch in batches.items()}
        distance = shape_distance(self.autoencoder, pairs)
        context.log("prior", distance)
        return self.settings.weight * distance


def shape_distance(autoencoder: ShapeAutoencoder, pairs: dict[str, tuple[Tensor, Tensor]]) -> Tensor:
    """mean_k mean_images ‖E_k(ŷ) − E_k(y)‖²/dim over the domains that have an image; `pairs` is {domain: (ŷ, y)}."""
    present = {name: pair for name, pair in pairs.items() if len(pair[0])}
    if not present:
        return sum(predicted.sum() for predicted, _ in pairs.values()) * 0
    codes = autoencoder.encode({name: predicted for name, (predicted, _) in present.items()})
    with torch.no_grad():
        wanted = autoencoder.encode({name: reference for name, (_, reference) in present.items()})
    exact = torch.promote_types(next(iter(codes.values())).dtype, torch.float32)  # autocast may give half precision
    distances = [(codes[name].to(exact) - wanted[name].to(exact)).square().mean() for name in present]
    return torch.stack(distances).mean()


def complete_masks(logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """(softmax, one-hot reference), both [m, 1 + bones, H, W], of the m images all of whose bones are labeled."""
    complete = batch.known.all(1)
    predicted = torch.softmax(logits[complete], 1, dtype=torch.promote_types(logits.dtype, torch.float32))
    return predicted, _one_hot(batch.labels[complete], batch, predicted.dtype)


def _one_hot(labels: Tensor, batch: Batch, dtype: torch.dtype) -> Tensor:
    return F.one_hot(labels, batch.known.shape[1]).permute(0, 3, 1, 2).to(dtype)


def _split(x: Tensor, like: dict[str, Tensor]) -> dict[str, Tensor]:
    return dict(zip(like, x.split([len(each) for each in like.values()]), strict=True))
