"""All randomness of a training: a function of the seed and of what it is drawn for, never of what was drawn before."""

import hashlib
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def uniform(*key: object) -> float:
    """A number in [0, 1) that is a function of `key` alone (seed, domain, step, sample …)."""
    return (_number(key) >> 11) / 2**53


def generator(*key: object) -> torch.Generator:
    """A generator on the CPU that is a function of `key` alone."""
    return torch.Generator().manual_seed(_number(key) >> 1)


class Draws:
    """The random numbers of a batch's samples. `keys` holds one key for each sample.

    Plain numbers lie on the CPU, so that a decision on them does not wait for the device; fields and noise lie on it.
    """

    def __init__(self, keys: Sequence[tuple[object, ...]], device: torch.device) -> None:
        self.keys = keys
        self.device = device

    def of(self, effect: str) -> "Draws":
        """The draws of one effect; its names are its own."""
        return Draws([(*key, effect) for key in self.keys], self.device)

    def uniform(self, name: str) -> Tensor:
        """[n] in [0, 1)."""
        return torch.tensor([uniform(*key, name) for key in self.keys])

    def either_way(self, name: str) -> Tensor:
        """[n] in [−1, 1)."""
        return 2 * self.uniform(name) - 1

    def happens(self, share: float, name: str = "happens") -> Tensor:
        """bool [n], true for `share` of the samples."""
        return self.uniform(name) < share

    def field(self, name: str, size: tuple[int, int]) -> Tensor:
        """A smooth random field [n, *size]: normal numbers on an 8 × 8 grid, interpolated."""
        coarse = [torch.randn(1, 8, 8, generator=generator(*key, name)) for key in self.keys]
        grid = torch.stack(coarse).to(self.device)
        return F.interpolate(grid, size=tuple(size), mode="bicubic", align_corners=True)[:, 0]

    def noise(self, name: str, like: Tensor) -> Tensor:
        """Normal numbers of the shape of `like` [n, …], drawn on the device."""
        shape, parts = like.shape[1:], []
        for key in self.keys:
            source = torch.Generator(self.device).manual_seed(int(uniform(*key, name) * 2**53))
            parts.append(torch.randn(shape, generator=source, device=self.device, dtype=like.dtype))
        return torch.stack(parts)


def _number(key: tuple[object, ...]) -> int:
    digest = hashlib.blake2b("/".join(map(str, key)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")
