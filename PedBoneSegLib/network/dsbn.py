"""Domain-specific batch normalization (DSBN), and the block of convolution, normalization and activation.

For domain k, `BN_k(x) = γ_k (x − μ_k) / sqrt(σ_k² + ε) + β_k`. Each domain has its own affine parameters and running
statistics; the convolutions are shared. The parameters of all domains are stacked in tensors of (domains, channels).

The argument `runs` tells the network which images belong to which domain: it describes the batch as consecutive
groups, each a (row of the stack, number of images). No module stores the current domain.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Runs = tuple[tuple[int, int], ...]


class DomainBatchNorm(nn.Module):
    """Batch normalization with `rows` sets of parameters and statistics; with one row it equals BatchNorm2d.

    The rows of domains that are not in the batch keep their statistics and get a gradient of zero (not None). Weight
    decay would still change them, so exclude these parameters from it, as is usual for normalization. `momentum` may
    be changed between passes: with 1/1, 1/2, 1/3 … the running statistics become the plain average over the passes.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, rows: int, channels: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.eps = eps
        self.momentum = momentum
        self.weight = nn.Parameter(torch.ones(rows, channels))
        self.bias = nn.Parameter(torch.zeros(rows, channels))
        self.register_buffer("running_mean", torch.zeros(rows, channels))
        self.register_buffer("running_var", torch.ones(rows, channels))

    def forward(self, x: Tensor, runs: Runs) -> Tensor:
        lengths = [length for _, length in runs]
        if sum(lengths) != len(x):
            raise ValueError(f"the runs of domains cover {sum(lengths)} images, the batch has {len(x)}")
        parts = [
            F.batch_norm(
                part,
                self.running_mean[row],
                self.running_var[row],
                self.weight[row],
                self.bias[row],
                self.training,
                self.momentum,
                self.eps,
            )
            for (row, _), part in zip(runs, torch.split(x, lengths), strict=True)
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def append_copy(self, row: int) -> None:
        """Adds a row that starts as a copy of `row`. An optimizer that was made before does not have it."""
        for name in ("weight", "bias"):
            stacked = getattr(self, name).detach()
            setattr(self, name, nn.Parameter(torch.cat((stacked, stacked[row : row + 1]))))
        for name in ("running_mean", "running_var"):
            stacked = getattr(self, name)
            setattr(self, name, torch.cat((stacked, stacked[row : row + 1])))

    def scale_and_shift(self, row: int) -> tuple[Tensor, Tensor]:
        """In evaluation the row computes y = scale·x + shift. In float64 on the CPU: not every device has float64."""
        weight, bias, mean, variance = (
            stacked[row].detach().to("cpu", torch.float64)
            for stacked in (self.weight, self.bias, self.running_mean, self.running_var)
        )
        scale = weight / torch.sqrt(variance + self.eps)
        return scale, bias - scale * mean


class ConvNorm(nn.Module):
    """Convolution → normalization → activation. In this order the normalization can be folded into the convolution.

    Padding is TensorFlow's SAME: the output has ceil(size / stride) pixels, and where the padding is odd, the larger
    part is at the end. `activation` is a name that `activate` knows.
    """

    def __init__(
        self,
        rows: int,
        in_channels: int,
        out_channels: int,
        kernel: int = 3,
        stride: int = 1,
        groups: int = 1,
        activation: str = "relu",
        eps: float = 1e-5,
        momentum: float = 0.1,
    ) -> None:
        super().__init__()
        # At stride 1 SAME padding is symmetric, so the convolution can do it itself.
        padding = kernel // 2 if stride == 1 else 0
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding, groups=groups, bias=False)
        self.norm = DomainBatchNorm(rows, out_channels, eps, momentum)
        self.activation = activation

    def forward(self, x: Tensor, runs: Runs) -> Tensor:
        if self.conv.stride[0] > 1:
            x = _pad_same(x, self.conv.kernel_size[0], self.conv.stride[0])
        return activate(self.norm(self._convolve(x), runs), self.activation)

    def _convolve(self, x: Tensor) -> Tensor:
        depthwise_on_cpu = self.conv.groups > 1 and x.device.type == "cpu"
        if not (depthwise_on_cpu and torch.is_autocast_enabled("cpu")):
            return self.conv(x)
        # The weight gradient of a depthwise convolution is several times slower in bfloat16 than in float32.
        with torch.autocast("cpu", enabled=False):
            return self.conv(x.float()).to(torch.get_autocast_dtype("cpu"))


ACTIVATIONS = {"relu": F.relu, "relu6": F.relu6, "silu": F.silu}


def activate(x: Tensor, activation: str) -> Tensor:
    """Applies "relu", "relu6", "silu", or nothing for "". Overwrites `x` where no gradient is recorded, so `x` must
    belong to the caller."""
    return ACTIVATIONS[activation](x, inplace=not torch.is_grad_enabled()) if activation else x


def _pad_same(x: Tensor, kernel: int, stride: int) -> Tensor:
    padding = []
    for size in (x.shape[-1], x.shape[-2]):  # F.pad counts from the last axis
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        padding += [total // 2, total - total // 2]
    return F.pad(x, padding)
