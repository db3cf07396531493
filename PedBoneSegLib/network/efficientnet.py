"""The encoder of EfficientNet b0 to b4 (Tan & Le 2019) in the variant ported from TensorFlow: SAME padding, ε = 1e-3.

With the same weights it equals MONAI's EfficientNetBNFeatures; `published_name` gives the names used there. Drop-
connect is left out: the network is a plain function of its input, in training too.
"""

import math
import re

import torch
from torch import Tensor, nn

from .dsbn import ConvNorm, Runs, activate

ARCHITECTURES = ("efficientnet-b0", "efficientnet-b1", "efficientnet-b2", "efficientnet-b3", "efficientnet-b4")

# Width and depth multipliers.
SCALING = {"b0": (1.0, 1.0), "b1": (1.0, 1.1), "b2": (1.1, 1.2), "b3": (1.2, 1.4), "b4": (1.4, 1.8)}
# Repeats, kernel, stride, expansion and channels of the seven stages of b0.
STAGES = (
    (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320),
)  # fmt: skip
# The stages after which the resolution changes (or the encoder ends): their outputs are the features.
TAPS = (0, 1, 2, 4, 6)
NORM = {"eps": 1e-3, "momentum": 0.01}


class MBConv(nn.Module):
    """Inverted residual: widen, depthwise convolution, squeeze and excitation, narrow; added to its input if alike."""

    def __init__(self, rows: int, in_channels: int, out_channels: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        inner = in_channels * expansion
        squeezed = max(1, in_channels // 4)
        self.expand = None
        if expansion != 1:
            self.expand = ConvNorm(rows, in_channels, inner, kernel=1, activation="silu", **NORM)
        self.depthwise = ConvNorm(rows, inner, inner, kernel, stride, groups=inner, activation="silu", **NORM)
        self.squeeze = nn.Conv2d(inner, squeezed, 1)
        self.excite = nn.Conv2d(squeezed, inner, 1)
        self.project = ConvNorm(rows, inner, out_channels, kernel=1, activation="", **NORM)
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor, runs: Runs) -> Tensor:
        inner = x if self.expand is None else self.expand(x, runs)
        inner = self.depthwise(inner, runs)
        gate = activate(self.squeeze(inner.mean((2, 3), keepdim=True)), "silu")
        inner = inner * torch.sigmoid(self.excite(gate))
        inner = self.project(inner, runs)
        return inner.add_(x) if self.residual else inner


class EfficientNetEncoder(nn.Module):
    """Features at strides 2, 4, 8, 16 and 32. `variant` is "b0" to "b4"."""

    def __init__(self, rows: int, in_channels: int, variant: str) -> None:
        super().__init__()
        width, depth = SCALING[variant]
        channels = _round_channels(32 * width)
        self.stem = ConvNorm(rows, in_channels, channels, stride=2, activation="silu", **NORM)
        self.stages = nn.ModuleList()
        outputs = []
        block = 0  # blocks are numbered through all stages, as in the published weights
        for repeats, kernel, stride, expansion, base in STAGES:
            out_channels = _round_channels(base * width)
            stage = nn.ModuleDict()
            for repeat in range(math.ceil(repeats * depth)):
                stage[str(block)] = MBConv(rows, channels, out_channels, kernel, 1 if repeat else stride, expansion)
                channels = out_channels
                block += 1
            self.stages.append(stage)
            outputs.append(out_channels)
        self.channels = tuple(outputs[tap] for tap in TAPS)
        self.strides = (2, 4, 8, 16, 32)
        self.decoder_width, self.attention = 32, False  # see `encoders.Encoder`

    def forward(self, x: Tensor, runs: Runs, level: int = len(TAPS) - 1) -> list[Tensor]:
        """Features fine to coarse, up to and including `level`."""
        x = self.stem(x, runs)
        features = []
        for index, stage in enumerate(self.stages[: TAPS[level] + 1]):
            for block in stage.values():
                x = block(x, runs)
            if index in TAPS:
                features.append(x)
        return features


def build_encoder(architecture: str, rows: int, in_channels: int, width: int) -> EfficientNetEncoder:
    return EfficientNetEncoder(rows, in_channels, architecture.removeprefix("efficientnet-"))


def published_name(name: str) -> str:
    """The name in MONAI's EfficientNet of a tensor of `EfficientNetEncoder`.

    "stages.1.2.expand.conv.weight" → "_blocks.1.2._expand_conv.weight". The tensors agree in shape, but for a
    normalization's: ours are stacked by domain, (D, C), theirs are (C).
    """
    name = re.sub(r"^stages\.", "_blocks.", name)
    for ours, conv, norm in (
        ("stem", "_conv_stem", "_bn0"), ("expand", "_expand_conv", "_bn0"),
        ("depthwise", "_depthwise_conv", "_bn1"), ("project", "_project_conv", "_bn2"),
    ):  # fmt: skip
        name = name.replace(f"{ours}.conv.", f"{conv}.").replace(f"{ours}.norm.", f"{norm}.")
    return name.replace("squeeze.", "_se_reduce.").replace("excite.", "_se_expand.")


def _round_channels(channels: float) -> int:
    """To a multiple of 8, never down by more than a tenth."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded
