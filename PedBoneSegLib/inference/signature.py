"""Which joint an image shows, and whether it is like anything that the model was made for.

The spectral signature of an image under a domain (Karimi & Gholipour 2020) is computed from the encoder's features at
one layer, with that domain's normalization. The features are a matrix X of positions × C channels. Its singular values
s are put on a logarithmic scale, `log(max(s / s₁, 0.01))`, and divided by their L2 norm. Dividing by s₁ removes the
image's size and gain; the floor of 0.01 keeps directions without any signal from deciding. The distance to a domain is
the smallest Euclidean distance to the signatures of its reference exams. The score is this distance divided by the
domain's threshold.

Only XᵀX is kept in memory (its eigenvalues are s²): C × C in float64, summed slice by slice.

A model may use two more distances. With `pooled` in its signature, the mean and the deviation of every channel, which
come from the same sums, are compared too: by their Mahalanobis distance to those of the reference exams and, if the
model has exams of other joints under the same normalization, by their position between the domain's exams (0) and those
others (1), along the direction that separates the two best. The score is then the largest of the three distances, each
divided by its threshold.

Positions and orientations have no influence, so two sides, flips and upside-down volumes are not recognized.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..models.bundle import Bundle
from ..models.manifest import FEWEST_REFERENCES, DomainCard

FLOOR = 1e-2  # relative to the largest singular value
MOST_SLICES = 8
FARTHEST = 2**0.5  # the largest distance of two signatures: no entry is above 0, so their angle is at most 90°


class Moments:
    """Sums over all feature vectors x that are added: their number `count`, the sum `total` [C] of x, and the sum
    `gram` [C, C] of x·xᵀ, in float64."""

    def __init__(self, channels: int) -> None:
        self.count = 0
        self.total = np.zeros(channels)
        self.gram = np.zeros((channels, channels))

    def add(self, features: Tensor) -> None:
        """Adds features [n, C, rows, columns], one slice at a time, so that no whole batch is copied in float64."""
        where = features.device if features.device.type != "mps" else torch.device("cpu")  # mps has no float64
        gram, total = np.zeros_like(self.gram), np.zeros_like(self.total)
        for slice_ in features:
            vectors = slice_.to(where, torch.float64).flatten(1)
            gram += (vectors @ vectors.T).cpu().numpy()
            total += vectors.sum(1).cpu().numpy()
        self.gram += gram  # the whole batch, or nothing if the memory was too short
        self.total += total
        self.count += features[:, 0].numel()

    @property
    def signature(self) -> np.ndarray:
        """[C], of length 1, in descending order; the entry of the largest singular value is 0. Without any signal all
        entries are equal. If all singular values are equal, all entries are 0."""
        squares = np.linalg.eigvalsh(self.gram)[::-1].clip(min=0)
        ratios = squares / squares[0] if squares[0] > 0 else np.zeros_like(squares)
        spectrum = 0.5 * np.log(ratios.clip(min=FLOOR**2))
        return np.asarray(spectrum / (np.linalg.norm(spectrum) or 1.0))

    @property
    def pooled(self) -> np.ndarray:
        """[2·C]: the means of all channels, then their standard deviations."""
        count = max(1, self.count)
        mean = self.total / count
        variance = np.diag(self.gram) / count - mean**2
        return np.concatenate([mean, np.sqrt(variance.clip(min=0))])


class Whitened:
    """The Mahalanobis distance to `rows` [exams, values]. There may be fewer exams than values."""

    def __init__(self, rows: np.ndarray) -> None:
        rows = np.asarray(rows, np.float64)
        self.mean = rows.mean(0)
        self.deviation, correlation = _spread(rows - self.mean)
        self.inverse = np.linalg.inv(correlation)

    def distance(self, values: np.ndarray) -> float:
        """About 1 for an exam that is like the references."""
        unit = (values - self.mean) / self.deviation
        return float(np.sqrt(unit @ self.inverse @ unit / len(unit)))


class Apart:
    """The direction that separates `own` and `others` [exams, values] best, relative to the spread of each (Fisher's
    discriminant)."""

    def __init__(self, own: np.ndarray, others: np.ndarray) -> None:
        own, others = np.asarray(own, np.float64), np.asarray(others, np.float64)
        self.mean, away = own.mean(0), others.mean(0) - own.mean(0)
        deviation, correlation = _spread(np.concatenate([own - self.mean, others - others.mean(0)]))
        direction = np.linalg.solve(correlation, away / deviation) / deviation
        self.direction = direction / max(float(direction @ away), 1e-12)

    def place(self, values: np.ndarray) -> float:
        """0 at the mean of the own exams, 1 at the mean of the others; any other number between and beyond."""
        return float((values - self.mean) @ self.direction)


def _spread(centered: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The deviation of each value, and the correlations, shrunk towards 0 by the amount of Ledoit & Wolf (2004)."""
    deviation = np.maximum(centered.std(0), 1e-9)
    unit = centered / deviation
    count, size = unit.shape
    correlation = unit.T @ unit / count
    far = ((correlation - np.eye(size)) ** 2).sum()
    noise = (((unit**2).sum(1) ** 2).sum() / count - (correlation**2).sum()) / count
    share = float(np.clip(noise / far, 1e-2, 1)) if far > 0 else 1.0
    return deviation, (1 - share) * correlation + share * np.eye(size)


@dataclass(frozen=True)
class Reference:
    """The reference exams of a domain, to which the distances of an image are measured.

    `entry` is the domain's `signature` in the manifest: the layers, and the threshold of each distance.
    """

    entry: Mapping[str, Any]
    signatures: np.ndarray  # [exams, C]
    pooled: Whitened | None = None
    apart: Apart | None = None

    @classmethod
    def of(cls, bundle: Bundle, card: DomainCard) -> "Reference | None":
        """From a bundle; None if the domain has no signatures, or too few for a verdict."""
        if card.signature is None or not cls.decides(card):
            return None
        signatures = bundle.tensors[f"signatures.{card.name}"]
        rows, others = (bundle.tensors.get(f"{name}.{card.name}") for name in ("pooled", "others"))
        pooled = None if rows is None else Whitened(rows)
        apart = None if rows is None or others is None else Apart(rows, others)
        return cls(card.signature, signatures, pooled, apart)

    @staticmethod
    def decides(card: DomainCard) -> bool:
        """Whether the domain has signatures of enough exams."""
        return card.signature is not None and card.signature["references"] >= FEWEST_REFERENCES

    @property
    def layers(self) -> tuple[int, ...]:
        return tuple(sorted({entry["layer"] for entry in (self.entry, self.entry.get("pooled")) if entry}))

    def parts(self, moments: Mapping[int, Moments]) -> dict[str, float]:
        """Each distance divided by its threshold: `spectral`, which is the published one, and maybe `pooled` and
        `apart`. An empty volume, which has no features, gets the largest distance that two signatures can have."""
        spectral = moments[self.entry["layer"]]
        if not spectral.count:
            return {"spectral": FARTHEST / self.entry["threshold"]}
        parts = {"spectral": nearest(spectral.signature, self.signatures) / self.entry["threshold"]}
        if self.pooled:
            entry = self.entry["pooled"]
            values = moments[entry["layer"]].pooled
            parts["pooled"] = self.pooled.distance(values) / entry["threshold"]
            if self.apart:
                parts["apart"] = self.apart.place(values) / entry["apart"]
        return parts

    def score(self, moments: Mapping[int, Moments]) -> float:
        """The largest of the distances; above 1 the image is unlike the references."""
        return max(self.parts(moments).values())


def nearest(signature: np.ndarray, others: np.ndarray) -> float:
    """The smallest Euclidean distance of `signature` to one of `others`."""
    return float(np.sqrt(((np.asarray(others, np.float64) - signature) ** 2).sum(1).min()))


def spread_slices(occupied: Sequence[int] | np.ndarray, most: int = MOST_SLICES) -> np.ndarray:
    """At most `most` of the body's slices, evenly spaced: the middles of equal parts."""
    count = min(most, len(occupied))
    chosen: np.ndarray = np.asarray(occupied)[((np.arange(count) + 0.5) * len(occupied) / max(1, count)).astype(int)]
    return chosen
