"""Domain-specific batch normalization (DSBN), and the one block that all networks here are made of.

For domain k, `BN_k(x) = γ_k (x − μ_k) / sqrt(σ_k² + ε) + β_k`: own affine parameters, own running statistics, while
the convolutions are shared. All of it is stacked by domain in tensors of (domains, channels).

Which image belongs to which domain travels through the network as an argument, `runs`: the batch as consecutive
groups, each a (row of the stack, number of images). There is no state to set and none to forget.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Runs = tuple[tuple[int, int], ...]


class DomainBatchNorm(nn.Module):
    """Batch normalization with `rows` sets of parameters and statistics; with one row it is BatchNorm2d.

    Rows that a batch does not name keep their statistics, and get a gradient of zero (not None), so weight decay
    would move them: exempt these parameters from it, as is usual for normalization. `momentum` may be changed
    between passes: 1/1, 1/2, 1/3 … makes the running statistics the plain average over the passes.
    """

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
            for (row, _), part in zip(runs, x.split(lengths), strict=True)
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def append_copy(self, row: int) -> None:
        """Adds a row that starts as a copy of `row`. Optimizers made before know nothing of it."""
        for name in ("weight", "bias"):
            stacked = getattr(self, name).detach()
            setattr(self, name, nn.Parameter(torch.cat((stacked, stacked[row : row + 1]))))
        for name in ("running_mean", "running_var"):
            stacked = getattr(self, name)
            setattr(self, name, torch.cat((stacked, stacked[row : row + 1])))

    def scale_and_shift(self, row: int) -> tuple[Tensor, Tensor]:
        """The row in evaluation as y = scale·x + shift, in float64 on the CPU (not every device has float64)."""
        weight, bias, mean, variance = (
            stacked[row].detach().to("cpu", torch.float64)
            for stacked in (self.weight, self.bias, self.running_mean, self.running_var)
        )
        scale = weight / torch.sqrt(variance + self.eps)
        return scale, bias - scale * mean


class ConvNorm(nn.Module):
    """Convolution → normalization → activation, an order in which the normalization folds into the convolution.

    Padding is TensorFlow's SAME: the output has ceil(size / stride) pixels, and where the padding is odd, its larger
    part lies at the end. `activation` is "relu", "silu" or "" for none. After folding, `norm` is None, the
    convolution has a bias, and `runs` no longer matters.
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
        self.norm: DomainBatchNorm | None = DomainBatchNorm(rows, out_channels, eps, momentum)
        self.activation = activation

    def forward(self, x: Tensor, runs: Runs) -> Tensor:
        if self.conv.stride[0] > 1:
            x = _pad_same(x, self.conv.kernel_size[0], self.conv.stride[0])
        x = self.conv(x)
        if self.norm is not None:
            x = self.norm(x, runs)
        return activate(x, self.activation)


def activate(x: Tensor, activation: str) -> Tensor:
    """The activation of that name; in place when no gradient is wanted, so `x` must be the caller's own."""
    in_place = not torch.is_grad_enabled()
    if activation == "relu":
        return F.relu(x, inplace=in_place)
    if activation == "silu":
        return F.silu(x, inplace=in_place)
    return x


def _pad_same(x: Tensor, kernel: int, stride: int) -> Tensor:
    padding = []
    for size in (x.shape[-1], x.shape[-2]):  # F.pad counts from the last axis
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        padding += [total // 2, total - total // 2]
    return F.pad(x, padding)
