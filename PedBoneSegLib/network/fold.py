"""Folds one domain's normalization into the convolutions. The result is a plain network for inference."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import DomainSpec
from .decoder import Decoder
from .dsbn import ConvNorm, Runs, activate
from .encoders import Encoder
from .segmenter import Segmenter


class FoldedNetwork(nn.Module):
    """images [n, in_channels, rows, columns] → logits [n, 1 + bones, rows, columns] of one domain.

    The convolutions are stored channels-last, which is fastest on CPUs and GPUs; images may come in either order.
    """

    def __init__(self, encoder: Encoder, decoder: Decoder, head: nn.Conv2d, spec: DomainSpec) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.head = head
        self.spec = spec

    def forward(self, images: Tensor) -> Tensor:
        return self.decode(self.encoder_features(images, len(self.encoder.channels) - 1), images.shape[-2:])

    def decode(self, features: list[Tensor], size: tuple[int, ...]) -> Tensor:
        """Logits of this size (rows, columns) from all of the encoder's features."""
        return self.head(self.decoder(features, size, ())[-1])

    def encoder_features(self, images: Tensor, level: int) -> list[Tensor]:
        """The encoder's features, fine to coarse, up to and including `level` (0 is the finest). Runs no deeper."""
        return self.encoder(images.contiguous(memory_format=torch.channels_last), (), level)


class FoldedConv(nn.Module):
    """A `ConvNorm` of one domain as a convolution with a bias, then the activation.

    BN(w∗x) = (scale·w)∗x + shift is exact at the border too, because the padding with zeros comes first.

    SAME padding of an even size at stride 2 is one pixel smaller at the start than at the end, which a convolution
    cannot do itself. So the kernel gets a first row and column of zeros: with one more pixel at the start, which the
    zeros ignore, the padding is symmetric. For an odd size SAME is symmetric anyway, and the zeros are cut off.
    """

    def __init__(self, block: ConvNorm, row: int) -> None:
        conv = block.conv
        (kernel, _), (stride, _) = conv.kernel_size, conv.stride
        if kernel % 2 == 0 or stride not in (1, 2):
            raise ValueError(f"cannot fold a convolution with kernel {kernel} and stride {stride}")
        super().__init__()
        self.stride, self.padding, self.groups, self.activation = stride, kernel // 2, conv.groups, block.activation
        scale, shift = block.norm.scale_and_shift(row)
        weight = conv.weight.detach().to("cpu", torch.float64) * scale[:, None, None, None]
        zeros = stride - 1
        self.weight = nn.Parameter(F.pad(weight, (zeros, 0, zeros, 0)).to(conv.weight))
        self.bias = nn.Parameter(shift.to(conv.weight))

    def forward(self, x: Tensor, runs: Runs = ()) -> Tensor:
        weight: Tensor = self.weight
        if self.stride == 2:
            odd_rows, odd_columns = (int(size) % 2 for size in x.shape[-2:])  # plain numbers in an ONNX export too
            weight = weight[..., odd_rows:, odd_columns:]
        x = F.conv2d(x, weight, self.bias, self.stride, self.padding, groups=self.groups)
        return activate(x, self.activation)


def fold(segmenter: Segmenter, domain: str, temperature: float = 1.0) -> FoldedNetwork:
    """A copy of the network as `domain` sees it in evaluation mode, without gradients; `segmenter` is not changed.

    The logits are divided by `temperature` (above 0), by way of the head's weights.
    """
    if not temperature > 0:
        raise ValueError(f"temperature {temperature} is not above 0")
    row = segmenter.normalization_row(domain)
    with torch.no_grad():
        encoder, decoder = copy.deepcopy(segmenter.encoder), copy.deepcopy(segmenter.decoder)
        for part in (encoder, decoder):
            fold_blocks(part, row)
        weight, bias = segmenter.head.matrix(domain)
        head = nn.Conv2d(weight.shape[1], weight.shape[0], 1, device=weight.device, dtype=weight.dtype)
        head.weight = nn.Parameter(weight / temperature)
        head.bias = nn.Parameter(bias / temperature)
    folded = FoldedNetwork(encoder, decoder, head, segmenter.config.domain(domain))
    folded.eval().requires_grad_(False)
    return folded.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's annotations lack it


def fold_blocks(module: Encoder | nn.Module, row: int) -> None:
    """Replaces every `ConvNorm` in `module` by the `FoldedConv` of this row."""
    for name, child in module.named_children():
        if isinstance(child, ConvNorm):
            setattr(module, name, FoldedConv(child, row))
        else:
            fold_blocks(child, row)
