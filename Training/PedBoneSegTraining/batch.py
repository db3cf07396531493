"""The samples of one domain that a training step works on."""

from dataclasses import dataclass

import torch


@dataclass
class Batch:
    """Samples of one domain.

    images: float [n, C, H, W], normalized by the runtime's own function
    labels: int64 [n, H, W], 0 background, else the *position* of the bone in the domain's table, from 1
    known:  bool [n, 1 + bones]; False: nobody drew this bone in this case, so its pixels hide in the background and
            must not be learned as such. Channel 0 is always True
    cases:  a name per sample, for messages
    """

    domain: str
    images: torch.Tensor
    labels: torch.Tensor
    known: torch.Tensor
    cases: list[str]

    def __len__(self) -> int:
        return len(self.cases)
