"""Mixes an exam's own normalization statistics into those of its domain.

The running mean and variance of a domain describe the exams of the training. In an exam that looks different, the
features have another mean and variance, and the normalization fits them badly. So every normalization of the encoder
uses

    mean = (1 − share) · domain's mean + share · exam's mean,      and the same for the variance.

The exam's values come from one pass of the encoder over some of its slices. Each layer mixes its statistics before it
normalizes, so the layers after it already see what they will see in the segmentation. The features of this pass are
therefore those of the folded network, and the pass replaces the first batch of the segmentation.
"""

import copy
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .dsbn import ConvNorm, DomainBatchNorm, Runs
from .encoders import Encoder
from .fold import FoldedNetwork, fold_blocks
from .segmenter import Segmenter


class ExamNorm(DomainBatchNorm):
    """The normalization of one domain. Every batch moves its statistics by `share` towards the batch's own, and is
    then normalized with the result."""

    def __init__(self, norm: DomainBatchNorm, row: int, share: float) -> None:
        super().__init__(1, norm.weight.shape[1], norm.eps, momentum=share)
        self.to(norm.weight)
        state = norm.state_dict()
        self.load_state_dict({name: tensor[row : row + 1] for name, tensor in state.items()})

    def forward(self, x: Tensor, runs: Runs = ()) -> Tensor:
        mean, variance = self.running_mean[0], self.running_var[0]
        torch.batch_norm_update_stats(x, mean, variance, self.momentum)
        return F.batch_norm(x, mean, variance, self.weight[0], self.bias[0], eps=self.eps)


class ExamEncoder:
    """The encoder of one domain for one exam, in float32. Call it once, then fold it."""

    def __init__(self, segmenter: Segmenter, domain: str, share: float) -> None:
        row, encoder = segmenter.normalization_row(domain), cast(nn.Module, segmenter.encoder)
        tensors = (*encoder.parameters(), *encoder.buffers())
        self._encoder = copy.deepcopy(encoder, {id(tensor): tensor for tensor in tensors})  # shares the tensors
        for block in self._encoder.modules():
            if isinstance(block, ConvNorm):
                block.norm = ExamNorm(block.norm, row, share)

    @torch.no_grad()
    def features(self, images: Tensor) -> list[Tensor]:
        """The encoder's features of these slices, fine to coarse. Their statistics become the exam's."""
        return self._encoder(images.contiguous(memory_format=torch.channels_last), ())

    def fold(self, network: FoldedNetwork) -> FoldedNetwork:
        """`network`, which is the folded network of the domain, with this encoder in place of its own."""
        like = network.head.weight
        encoder = copy.deepcopy(self._encoder)
        fold_blocks(encoder, 0)
        encoder.eval().requires_grad_(False).to(like)
        encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's annotations lack it
        return FoldedNetwork(cast(Encoder, encoder), network.decoder, network.head, network.spec)
