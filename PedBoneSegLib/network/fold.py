"""One domain's normalization folded into the convolutions: a plain network, for inference."""

import copy

import torch
from torch import Tensor, nn

from .config import DomainSpec
from .dsbn import ConvNorm
from .segmenter import Segmenter


class FoldedNetwork(nn.Module):
    """images [n, in_channels, rows, columns] → logits [n, 1 + bones, rows, columns] of one domain.

    Its convolutions lie in channels-last order, which CPUs and GPUs run fastest; images come in either order.
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module, head: nn.Conv2d, spec: DomainSpec) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.head = head
        self.spec = spec

    def forward(self, images: Tensor) -> Tensor:
        return self.decode(self.encoder_features(images, len(self.encoder.channels) - 1), images.shape[-2:])

    def decode(self, features: list[Tensor], size: tuple[int, int]) -> Tensor:
        """Logits of this size (rows, columns) from all of the encoder's features."""
        return self.head(self.decoder(features, size, ())[-1])

    def encoder_features(self, images: Tensor, level: int) -> list[Tensor]:
        """The encoder's features, fine to coarse, up to and including `level` (0 the finest), running no deeper."""
        return self.encoder(images.contiguous(memory_format=torch.channels_last), (), level)


def fold(segmenter: Segmenter, domain: str, temperature: float = 1.0) -> FoldedNetwork:
    """A copy of the network as `domain` sees it in evaluation mode, without gradients; the original is untouched.

    The logits are divided by `temperature` (above 0), by way of the head's weights.
    """
    if not temperature > 0:
        raise ValueError(f"temperature {temperature} is not above 0")
    row = segmenter.normalization_row(domain)
    with torch.no_grad():
        encoder, decoder = copy.deepcopy(segmenter.encoder), copy.deepcopy(segmenter.decoder)
        for part in (encoder, decoder):
            for module in part.modules():
                if isinstance(module, ConvNorm):
                    _fold_block(module, row)
        weight, bias = segmenter.head.matrix(domain)
        head = nn.Conv2d(weight.shape[1], weight.shape[0], 1, device=weight.device, dtype=weight.dtype)
        head.weight.copy_(weight / temperature)
        head.bias.copy_(bias / temperature)
    folded = FoldedNetwork(encoder, decoder, head, segmenter.config.domain(domain))
    return folded.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def _fold_block(block: ConvNorm, row: int) -> None:
    """BN(w∗x) = (scale·w)∗x + shift: exact, since the padding with zeros comes before the convolution."""
    scale, shift = block.norm.scale_and_shift(row)
    weight = block.conv.weight
    folded = weight.to("cpu", torch.float64) * scale[:, None, None, None]
    block.conv.weight = nn.Parameter(folded.to(weight))
    block.conv.bias = nn.Parameter(shift.to(weight))
    block.norm = None
