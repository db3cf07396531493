"""The encoder of the U-Net (Ronneberger 2015) and the attention U-Net (Oktay 2018): padded, and with normalization."""

import torch.nn.functional as F
from torch import Tensor, nn

from .dsbn import ConvNorm, Runs

ARCHITECTURES = ("unet", "attention-unet")
LEVELS = 5


class DoubleConv(nn.Module):
    """Two blocks of a 3×3 convolution, normalization and ReLU."""

    def __init__(self, rows: int, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.first = ConvNorm(rows, in_channels, out_channels)
        self.second = ConvNorm(rows, out_channels, out_channels)

    def forward(self, x: Tensor, runs: Runs) -> Tensor:
        result: Tensor = self.second(self.first(x, runs), runs)
        return result


class UNetEncoder(nn.Module):
    """Five levels, each at half the resolution of the one before and with twice its channels."""

    def __init__(self, rows: int, in_channels: int, width: int, attention: bool) -> None:
        super().__init__()
        self.decoder_width = width
        self.attention = attention
        self.channels = tuple(width * 2**level for level in range(LEVELS))
        self.strides = tuple(2**level for level in range(LEVELS))
        inputs = (in_channels, *self.channels[:-1])
        self.levels = nn.ModuleList(DoubleConv(rows, i, o) for i, o in zip(inputs, self.channels, strict=True))

    def forward(self, x: Tensor, runs: Runs, level: int = LEVELS - 1) -> list[Tensor]:
        """Features at strides 1, 2, 4, 8, 16, fine to coarse, up to and including `level`."""
        features = []
        for index in range(level + 1):
            if index:
                x = F.max_pool2d(x, 2, ceil_mode=True)  # ceil: a single pixel stays, an odd edge is kept
            x = self.levels[index](x, runs)
            features.append(x)
        return features


def build_encoder(architecture: str, rows: int, in_channels: int, width: int) -> UNetEncoder:
    return UNetEncoder(rows, in_channels, width, attention=architecture == "attention-unet")
