"""The encoder of the plain U-Net (Ronneberger 2015), with padding and normalization; also the attention U-Net's."""

import torch.nn.functional as F
from torch import Tensor, nn

from .dsbn import ConvNorm, Runs

LEVELS = 5


class DoubleConv(nn.Module):
    """Two 3×3 blocks."""

    def __init__(self, rows: int, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.first = ConvNorm(rows, in_channels, out_channels)
        self.second = ConvNorm(rows, out_channels, out_channels)

    def forward(self, x: Tensor, runs: Runs) -> Tensor:
        return self.second(self.first(x, runs), runs)


class UNetEncoder(nn.Module):
    """Five levels, each half as fine as the one before and twice as wide."""

    def __init__(self, rows: int, in_channels: int, width: int) -> None:
        super().__init__()
        self.channels = tuple(width * 2**level for level in range(LEVELS))
        self.strides = tuple(2**level for level in range(LEVELS))
        inputs = (in_channels, *self.channels[:-1])
        self.levels = nn.ModuleList(DoubleConv(rows, i, o) for i, o in zip(inputs, self.channels, strict=True))

    def forward(self, x: Tensor, runs: Runs, level: int = LEVELS - 1) -> list[Tensor]:
        """Features at strides 1, 2, 4, 8, 16, fine to coarse, up to and including `level`."""
        features = []
        for index in range(level + 1):
            if index:
                x = F.max_pool2d(x, 2, ceil_mode=True)  # ceil: a single pixel stays one, an odd edge is kept
            x = self.levels[index](x, runs)
            features.append(x)
        return features
