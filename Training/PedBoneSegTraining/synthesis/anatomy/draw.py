"""Random parameters that are the same on every machine.

numpy's uniform doubles are exact integers scaled by a power of two; normals made by a library's logarithm are not the
same in the last bit everywhere, so ours are sums of uniforms, and everything is rounded before it is hashed.
"""

import hashlib
import json

import numpy as np


class Draw:
    """Philox stream named by any sequence of words and numbers."""

    def __init__(self, *name):
        digest = hashlib.sha256("/".join(map(str, name)).encode()).digest()
        self.generator = np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))

    def uniform(self, low: float, high: float) -> float:
        return round(low + (high - low) * float(self.generator.random()), 5)

    def normal(self, mean: float = 0.0, sd: float = 1.0) -> float:
        """Nearly normal, never further than 3 standard deviations from the mean."""
        return round(mean + sd * (float(self.generator.random(4).sum()) - 2) * 1.5, 5)  # 4 uniforms: ±2, sd 0.577

    def chance(self, probability: float) -> bool:
        return bool(self.generator.random() < probability)

    def choice(self, options):
        return options[int(float(self.generator.random()) * len(options))]

    def seed(self) -> int:
        return int(float(self.generator.random()) * 2**31)


class Average(Draw):
    """Draws the middle of everything: a joint's average shape."""

    def __init__(self):
        super().__init__("average")

    def uniform(self, low: float, high: float) -> float:
        return (low + high) / 2

    def normal(self, mean: float = 0.0, sd: float = 1.0) -> float:
        return mean

    def chance(self, probability: float) -> bool:
        return False


def digest(parameters: dict) -> str:
    """SHA-256 of a parameters dictionary, as hexadecimal text."""
    return hashlib.sha256(json.dumps(parameters, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def lattice(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """White noise in [-1, 1], the same everywhere for one seed and shape."""
    return (Draw("lattice", seed).generator.random(shape) * 2 - 1).astype(np.float32)
