"""The decoder: from the encoder's features to the image's pixels. Each block enlarges, joins the skip connection and
applies two convolutions."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .dsbn import ConvNorm, Runs, activate
from .encoders import Encoder
from .unet import DoubleConv

# Output channels of the blocks, coarse to fine, for an encoder whose `decoder_width` is 32.
CHANNELS = {"wide": (256, 128, 64, 32, 16), "slim": (128, 64, 32, 16, 16)}


class AttentionGate(nn.Module):
    """Weights a skip connection by the coarser features (Oktay 2018): `skip · σ(ψ(ReLU(s + g)))`.

    The coarser features go through their 1×1 convolution before they are enlarged. The result is the same as after
    enlarging, at a quarter of the cost.
    """

    def __init__(self, rows: int, skip_channels: int, gate_channels: int) -> None:
        super().__init__()
        inner = max(1, skip_channels // 2)
        self.skip = ConvNorm(rows, skip_channels, inner, kernel=1, activation="")
        self.gate = ConvNorm(rows, gate_channels, inner, kernel=1, activation="")
        self.psi = ConvNorm(rows, inner, 1, kernel=1, activation="")

    def forward(self, skip: Tensor, coarse: Tensor, runs: Runs) -> Tensor:
        weights = self.skip(skip, runs) + _enlarge(self.gate(coarse, runs), skip.shape[-2:])
        return skip * torch.sigmoid(self.psi(activate(weights, "relu"), runs))


class DecoderBlock(nn.Module):
    """One level finer. `skip_channels` is 0 where no skip connection is joined: in the step to an image that is finer
    than all features."""

    def __init__(self, rows: int, in_channels: int, skip_channels: int, out_channels: int, attention: bool) -> None:
        super().__init__()
        self.attention = AttentionGate(rows, skip_channels, in_channels) if attention and skip_channels else None
        self.convs = DoubleConv(rows, in_channels + skip_channels, out_channels)

    def forward(self, x: Tensor, skip: Tensor | None, size: tuple[int, ...], runs: Runs) -> Tensor:
        enlarged = _enlarge(x, size)
        if skip is not None:
            if self.attention is not None:
                skip = self.attention(skip, x, runs)
            enlarged = torch.cat((enlarged, skip), dim=1)
        result: Tensor = self.convs(enlarged, runs)
        return result


class Decoder(nn.Module):
    """The blocks that fit an encoder. `size` is "wide" or "slim"; `channels` are those of the last block's output."""

    def __init__(self, rows: int, encoder: Encoder, size: str) -> None:
        super().__init__()
        skips = list(encoder.channels[-2::-1])
        if encoder.strides[0] > 1:  # the finest features are coarser than the image: one more step, without a skip
            skips.append(0)
        outputs = [max(1, channels * encoder.decoder_width // 32) for channels in CHANNELS[size][: len(skips)]]
        inputs = [encoder.channels[-1], *outputs[:-1]]
        self.blocks = nn.ModuleList(
            DecoderBlock(rows, i, s, o, encoder.attention) for i, s, o in zip(inputs, skips, outputs, strict=True)
        )
        self.channels = outputs[-1]

    def forward(self, features: list[Tensor], size: tuple[int, ...], runs: Runs) -> list[Tensor]:
        """The output of every block, coarse to fine. The last one has the image's `size` (rows, columns)."""
        skips: list[Tensor | None] = list(features[-2::-1])
        skips += [None] * (len(self.blocks) - len(skips))
        x = features[-1]
        outputs = []
        for block, skip in zip(self.blocks, skips, strict=True):
            x = block(x, skip, size if skip is None else skip.shape[-2:], runs)
            outputs.append(x)
        return outputs


def _enlarge(x: Tensor, size: tuple[int, ...]) -> Tensor:
    """Doubles the size, without the last row or column where the finer size is odd: pixel i is a copy of i // 2."""
    return F.interpolate(x, size=size, mode="nearest")
