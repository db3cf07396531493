"""The encoders of EfficientNet b0 to b4 (Tan & Le 2019) and of EfficientNet-Lite0 to Lite2 (Google 2020).

Lite is the variant for small processors: no squeeze-and-excitation, ReLU6 in place of SiLU, and the stem and the
number of blocks of the first and the last stage stay the same at every size.

Both follow the TensorFlow originals: SAME padding, ε = 1e-3. With the same weights the outputs equal those of MONAI's
EfficientNetBNFeatures and of the package efficientnet-lite-pytorch; `published_name` gives the names of the tensors
there. Drop-connect is left out, so the network is a plain function of its input in training too.
"""

import math
import re

import torch
from torch import Tensor, nn

from .dsbn import ConvNorm, Runs, activate

ARCHITECTURES = (
    "efficientnet-b0", "efficientnet-b1", "efficientnet-b2", "efficientnet-b3", "efficientnet-b4",
    "efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2",
)  # fmt: skip

# Width and depth multipliers.
SCALING = {
    "b0": (1.0, 1.0), "b1": (1.0, 1.1), "b2": (1.1, 1.2), "b3": (1.2, 1.4), "b4": (1.4, 1.8),
    "lite0": (1.0, 1.0), "lite1": (1.0, 1.1), "lite2": (1.1, 1.2),
}  # fmt: skip
STEM_CHANNELS = 32
# Blocks, kernel, stride, expansion and channels of the seven stages of b0.
STAGES = (
    (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320),
)  # fmt: skip
# The stages after which the resolution changes (or the encoder ends): their outputs are the features.
TAPS = (0, 1, 2, 4, 6)
EPS, MOMENTUM = 1e-3, 0.01  # of the normalization


class MBConv(nn.Module):
    """Inverted residual block: widen, depthwise convolution, squeeze-and-excitation (not in Lite), narrow. The input
    is added to the output where both have the same shape."""

    def __init__(
        self,
        rows: int,
        in_channels: int,
        out_channels: int,
        kernel: int,
        stride: int,
        expansion: int,
        lite: bool,
    ) -> None:
        super().__init__()
        inner = in_channels * expansion
        activation = "relu6" if lite else "silu"
        self.expand = None
        if expansion > 1:
            self.expand = ConvNorm(rows, in_channels, inner, 1, activation=activation, eps=EPS, momentum=MOMENTUM)
        self.depthwise = ConvNorm(rows, inner, inner, kernel, stride, inner, activation, EPS, MOMENTUM)
        self.squeeze = self.excite = None
        if not lite:
            squeezed = max(1, in_channels // 4)
            self.squeeze = nn.Conv2d(inner, squeezed, 1)
            self.excite = nn.Conv2d(squeezed, inner, 1)
        self.project = ConvNorm(rows, inner, out_channels, 1, activation="", eps=EPS, momentum=MOMENTUM)
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor, runs: Runs) -> Tensor:
        inner = x if self.expand is None else self.expand(x, runs)
        inner = self.depthwise(inner, runs)
        if self.squeeze is not None and self.excite is not None:
            gate = activate(self.squeeze(inner.mean((2, 3), keepdim=True)), "silu")
            inner = inner * torch.sigmoid(self.excite(gate))
        inner = self.project(inner, runs)
        return inner.add_(x) if self.residual else inner


class EfficientNetEncoder(nn.Module):
    """Features at strides 2, 4, 8, 16 and 32. `variant` is a key of `SCALING`."""

    def __init__(self, rows: int, in_channels: int, variant: str) -> None:
        super().__init__()
        width, depth = SCALING[variant]
        lite = variant.startswith("lite")
        channels = STEM_CHANNELS if lite else _round_channels(STEM_CHANNELS * width)
        activation = "relu6" if lite else "silu"
        self.stem = ConvNorm(rows, in_channels, channels, 3, 2, 1, activation, EPS, MOMENTUM)
        self.stages = nn.ModuleList()
        outputs = []
        number = 0  # blocks are numbered through all stages, as in the published weights
        for index, (blocks, kernel, stride, expansion, base) in enumerate(STAGES):
            out_channels = _round_channels(base * width)
            if not (lite and index in (0, len(STAGES) - 1)):
                blocks = math.ceil(blocks * depth)
            stage = nn.ModuleDict()
            for block in range(blocks):
                stride_here = stride if block == 0 else 1
                stage[str(number)] = MBConv(rows, channels, out_channels, kernel, stride_here, expansion, lite)
                channels = out_channels
                number += 1
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
            for block in stage.children():
                x = block(x, runs)
            if index in TAPS:
                features.append(x)
        return features


def build_encoder(architecture: str, rows: int, in_channels: int, width: int) -> EfficientNetEncoder:
    return EfficientNetEncoder(rows, in_channels, architecture.removeprefix("efficientnet-"))


def published_name(name: str) -> str:
    """The name that a tensor of `EfficientNetEncoder` has in MONAI's EfficientNet.

    "stages.1.2.expand.conv.weight" → "_blocks.1.2._expand_conv.weight". The shapes agree, except those of the
    normalizations: ours are stacked by domain, (D, C), theirs are (C).
    """
    name = re.sub(r"^stages\.", "_blocks.", name)
    for ours, conv, norm in (
        ("stem", "_conv_stem", "_bn0"), ("expand", "_expand_conv", "_bn0"),
        ("depthwise", "_depthwise_conv", "_bn1"), ("project", "_project_conv", "_bn2"),
    ):  # fmt: skip
        name = name.replace(f"{ours}.conv.", f"{conv}.").replace(f"{ours}.norm.", f"{norm}.")
    return name.replace("squeeze.", "_se_reduce.").replace("excite.", "_se_expand.")


def _round_channels(channels: float) -> int:
    """The nearest multiple of 8, but never less than nine tenths of `channels`."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded
