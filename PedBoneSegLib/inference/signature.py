"""Which joint an image shows, and whether it is like anything that the model was made for.

A domain's spectral signature of an image (Karimi & Gholipour 2020): the encoder's features at one layer, under that
domain's normalization, as a matrix X of positions × C channels; its singular values s on a logarithmic scale,
`log(max(s / s₁, 0.01))`, divided by their L2 norm. s₁ cancels the image's size and gain, the floor keeps directions
without any signal from deciding. The distance to a domain is the smallest Euclidean one to the signatures of its
reference exams, the score that distance over the domain's threshold.

Only XᵀX is ever held (its eigenvalues are s²): C × C in float64, summed slice by slice.

A model may ask for more than the published distance. With `pooled` in its signature the mean and the deviation of every
channel, from the same sums, are looked at too: their Mahalanobis distance to the reference exams', and, where the model
has exams of other joints under the same normalization, how far they go from the domain's exams (0) to those others (1)
along the direction that tells the two apart best. The score is then the largest of the three, each over its threshold.

None of it knows places or orientations: two sides, flips and upside-down volumes are not its business.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..models.manifest import DomainCard

if TYPE_CHECKING:
    from ..models.bundle import Bundle

FLOOR = 1e-2  # of the largest singular value
MOST_SLICES = 8
FEWEST_REFERENCES = 8  # exams below which there is no verdict
FARTHEST = 2**0.5  # of two signatures: no entry is above 0, so they are never more than a right angle apart
CLEAR = 1.1  # how many times the smallest score the next other joint's must be


class Moments:
    """What is kept of the features [n, C, rows, columns] that are added: `count` vectors, their sum `total` [C] and
    `gram` [C, C], the sum of x·xᵀ; all in float64."""

    def __init__(self, channels: int):
        self.count = 0
        self.total = np.zeros(channels)
        self.gram = np.zeros((channels, channels))

    def add(self, features: Tensor) -> None:
        """One slice at a time, so that no second copy of a batch in float64 is made."""
        where = features.device if features.device.type != "mps" else torch.device("cpu")  # mps has no float64
        gram, total = np.zeros_like(self.gram), np.zeros_like(self.total)
        for one in features:
            vectors = one.to(where, torch.float64).flatten(1)
            gram += (vectors @ vectors.T).cpu().numpy()
            total += vectors.sum(1).cpu().numpy()
        self.gram += gram  # all of a batch or, where memory was short, nothing
        self.total += total
        self.count += features[:, 0].numel()

    @property
    def signature(self) -> np.ndarray:
        """[C], of length 1, falling from the largest singular value's entry, 0. Features of nothing have all entries
        alike; singular values that are all the same have all entries 0."""
        squares = np.linalg.eigvalsh(self.gram)[::-1].clip(min=0)
        ratios = squares / squares[0] if squares[0] > 0 else np.zeros_like(squares)
        spectrum = 0.5 * np.log(ratios.clip(min=FLOOR**2))
        return spectrum / (np.linalg.norm(spectrum) or 1.0)

    @property
    def pooled(self) -> np.ndarray:
        """[2·C]: every channel's mean, then its standard deviation."""
        count = max(1, self.count)
        mean = self.total / count
        variance = np.diag(self.gram) / count - mean**2
        return np.concatenate([mean, np.sqrt(variance.clip(min=0))])


class Whitened:
    """Mahalanobis distance to `rows` [exams, values], which may be fewer exams than values."""

    def __init__(self, rows: np.ndarray):
        rows = np.asarray(rows, np.float64)
        self.mean = rows.mean(0)
        self.deviation, correlation = _spread(rows - self.mean)
        self.inverse = np.linalg.inv(correlation)

    def distance(self, values: np.ndarray) -> float:
        """About 1 for an exam like the references."""
        unit = (values - self.mean) / self.deviation
        return float(np.sqrt(unit @ self.inverse @ unit / len(unit)))


class Apart:
    """The direction in which `own` and `others` [exams, values] lie apart, in units of how each of them spreads
    (Fisher's discriminant)."""

    def __init__(self, own: np.ndarray, others: np.ndarray):
        own, others = np.asarray(own, np.float64), np.asarray(others, np.float64)
        self.mean, away = own.mean(0), others.mean(0) - own.mean(0)
        deviation, correlation = _spread(np.concatenate([own - self.mean, others - others.mean(0)]))
        direction = np.linalg.solve(correlation, away / deviation) / deviation
        self.direction = direction / max(float(direction @ away), 1e-12)

    def place(self, values: np.ndarray) -> float:
        """0 at the middle of the own exams, 1 at that of the others; any other number beyond and between."""
        return float((values - self.mean) @ self.direction)


def _spread(centered: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Deviation of every value, and the correlations, shrunk towards none as far as Ledoit & Wolf (2004) find best."""
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
    """A domain's reference exams: what an image's distances are measured to.

    `entry` is the domain's `signature` in the manifest: the layers looked at, and the threshold of each distance.
    """

    entry: dict[str, Any]
    signatures: np.ndarray  # [exams, C]
    pooled: Whitened | None = None
    apart: Apart | None = None

    @classmethod
    def of(cls, bundle: "Bundle", card: DomainCard) -> "Reference | None":
        """From a bundle; None where the domain has no signatures, or too few for a verdict."""
        if card.signature is None or not cls.decides(card):
            return None
        rows, others = (bundle.tensors.get(f"{kind}.{card.name}") for kind in ("pooled", "others"))
        pooled = None if rows is None else Whitened(rows)
        apart = None if rows is None or others is None else Apart(rows, others)
        return cls(card.signature, bundle.tensors[f"signatures.{card.name}"], pooled, apart)

    @staticmethod
    def decides(card: DomainCard) -> bool:
        """Whether the domain has signatures of enough exams."""
        return card.signature is not None and card.signature["references"] >= FEWEST_REFERENCES

    @property
    def layers(self) -> tuple[int, ...]:
        return tuple(sorted({each["layer"] for each in (self.entry, self.entry.get("pooled")) if each}))

    def parts(self, moments: Mapping[int, Moments]) -> dict[str, float]:
        """Each distance over its threshold: `spectral`, which is the published one, and maybe `pooled` and `apart`. No
        features at all (an empty volume) are as far as two signatures can be."""
        seen, more = moments[self.entry["layer"]], self.entry.get("pooled")
        if not seen.count:
            return {"spectral": FARTHEST / self.entry["threshold"]}
        parts = {"spectral": nearest(seen.signature, self.signatures) / self.entry["threshold"]}
        if self.pooled and more:
            values = moments[more["layer"]].pooled
            parts["pooled"] = self.pooled.distance(values) / more["threshold"]
            if self.apart:
                parts["apart"] = self.apart.place(values) / more["apart"]
        return parts

    def score(self, moments: Mapping[int, Moments]) -> float:
        return max(self.parts(moments).values())


def nearest(signature: np.ndarray, others: np.ndarray) -> float:
    """The smallest Euclidean distance."""
    return float(np.sqrt(((np.asarray(others, np.float64) - signature) ** 2).sum(1).min()))


def spread_slices(occupied: Sequence[int] | np.ndarray, most: int = MOST_SLICES) -> np.ndarray:
    """At most `most` of the body's slices, evenly spaced, the middles of equal parts."""
    count = min(most, len(occupied))
    return np.asarray(occupied)[((np.arange(count) + 0.5) * len(occupied) / max(1, count)).astype(int)]
