"""How probably each voxel of the final labels is wrong, and in which order slices deserve a human's eye.

While the network works, a voxel's raw doubt is kept in 8 bits: `LEVELS · sqrt(1 − p)`, p the probability of its label;
the root spends the levels on small doubts, where nearly all voxels are. Raw doubt becomes a probability of error by a
table that export fitted on exams the training never used (`Calibration`): one rising curve for voxels labelled as bone,
one for background, one number for those that post-processing changed.

A slice's score is the number of its voxels that are expected to be wrong. The network may also be wrong without a
doubt: bones go on from slice to slice, so a slice whose bones' areas jump is looked at earlier, and one without signal
between others is expected to lack the bones of its neighbours.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import BadModel
from .slices import SliceStack

if TYPE_CHECKING:
    from torch import Tensor

LEVELS = 254  # of doubt, raw and calibrated
NOT_LOOKED_AT = 255
KINDS = ("background", "bone", "changed")
REACH_MM = 1.0  # a slice this close to one already listed shows little that is new; with 2 mm fewer errors are found


def raw_doubt(highest: "Tensor") -> "Tensor":
    """The levels (as floats) of probabilities of the chosen label."""
    return ((1 - highest).clamp(min=0).sqrt() * LEVELS).round()


def plain_doubt() -> np.ndarray:
    """The probability of error [LEVELS + 1] that each raw level claims by itself."""
    return (np.arange(LEVELS + 1) / LEVELS) ** 2


@dataclass(frozen=True)
class Calibration:
    """`table` [3 kinds, LEVELS + 1]: raw level → probability that the final label is wrong. `exams`: it was fitted on
    so many; 0: never."""

    table: np.ndarray
    exams: int = 0

    @classmethod
    def none(cls) -> "Calibration":
        """As the network says; where it was overruled, the final label is wrong as probably as the first was right."""
        claimed = plain_doubt()
        return cls(np.stack([claimed, claimed, 1 - claimed]))

    @classmethod
    def from_dict(cls, entries: Mapping) -> "Calibration":
        """Of a domain, from the manifest's `review`."""
        try:
            bone, background = (np.asarray(entries[kind], float) for kind in ("bone", "background"))
            table = np.stack([background, bone, np.full(LEVELS + 1, float(entries["changed"]))])
            exams = int(entries["exams"])
        except (KeyError, TypeError, ValueError) as fault:
            raise BadModel(f"its calibration of the review is not readable ({fault})", "export it again") from None
        if table.shape != (3, LEVELS + 1) or not ((table >= 0) & (table <= 1)).all():
            raise BadModel("its calibration of the review holds no probabilities", "export the model again")
        return cls(table, exams)

    def to_dict(self) -> dict:
        """Six digits: the manifest is text."""
        background, bone, changed = (([float(f"{p:.6g}") for p in row]) for row in self.table)
        return {"exams": self.exams, "bone": bone, "background": background, "changed": changed[0]}


def calibration_of(review: Mapping | None, domain: str) -> Calibration:
    """A domain's, from the manifest's `review` ({domain: …}); `Calibration.none()` where it has none."""
    return Calibration.from_dict(review[domain]) if review and domain in review else Calibration.none()


def count_levels(stack: SliceStack, raw: np.ndarray, labels: np.ndarray, changed: np.ndarray) -> np.ndarray:
    """How many voxels of each kind have each raw level, slice by slice: [stack.count, 3, LEVELS + 1].

    The three arrays are [i, j, k]; voxels that were not looked at do not count.
    """
    counts = np.zeros((stack.count, len(KINDS), NOT_LOOKED_AT + 1), np.int64)
    for index, one, kind in _kinds(stack, raw, labels, changed):
        counts[index].flat = np.bincount((kind.astype(np.intp) * 256 + one).ravel(), minlength=counts[index].size)
    return counts[..., : LEVELS + 1]


def calibrate(stack: SliceStack, raw: np.ndarray, labels: np.ndarray, changed: np.ndarray, calibration: Calibration):
    """Turns raw doubt into 254 × the probability of error, in place; 255 stays."""
    table = np.full((len(KINDS), 256), NOT_LOOKED_AT, np.uint8)
    table[:, : LEVELS + 1] = np.rint(calibration.table * LEVELS)
    for _, one, kind in _kinds(stack, raw, labels, changed):
        one[...] = table[kind, one]


def bone_areas(stack: SliceStack, labels: np.ndarray) -> np.ndarray:
    """Voxels of each bone in each slice: [stack.count, bones]. `labels` is [i, j, k]."""
    slices, bones = stack.oriented(labels), range(1, int(labels.max()) + 1)
    areas = [[np.count_nonzero(slices[index] == bone) for bone in bones] for index in range(stack.count)]
    return np.array(areas, float).reshape(stack.count, len(bones))


def review(stack: SliceStack, counts: np.ndarray, areas: np.ndarray, calibration: Calibration) -> dict:
    """The JSON object: `axis` and `index` in the volume's own voxels, the slices in the order to look at them, from the
    first that holds some of the body to the last. `counts`, `areas`: see `count_levels`, `bone_areas`."""
    scores, seen = (counts * calibration.table).sum(axis=(1, 2)), stack.occupied
    listed = np.arange(seen[0], seen[-1] + 1) if len(seen) else seen
    unseen = np.setdiff1d(listed, seen)
    if len(unseen):
        scores[unseen] = np.interp(unseen, seen, areas[seen].sum(1))
    urgency = scores.copy()
    urgency[seen] += jumps(areas[seen]) / 2  # a slice that does not go with its neighbours is wrong, or they are
    order = listed[ranked(urgency[listed], stack.spacing)]
    total = scores[listed].sum()
    shares = scores[order].cumsum() / total if total > 0 else np.ones(len(order))
    slices = [
        {"index": stack.own_index(index), "score": round(float(scores[index]), 1), "share": round(float(share), 4)}
        for index, share in zip(order, shares, strict=True)
    ]
    return {"axis": int(stack.axis), "slices": slices}


def jumps(areas: np.ndarray) -> np.ndarray:
    """By how much each slice's bones differ in area [slices, bones] from the mean of the slices beside it, added up."""
    if len(areas) < 2:
        return np.zeros(len(areas))
    beside = np.concatenate([areas[1:2], areas, areas[-2:-1]])  # at either end, the one neighbour that there is
    return np.abs(areas - (beside[:-2] + beside[2:]) / 2).sum(1)


def ranked(urgency: np.ndarray, spacing: float) -> np.ndarray:
    """Indices of the slices, `spacing` mm apart, in the order to look at them.

    Next is always the most urgent slice, weighed down (to nothing at distance 0) near slices already listed:
    `1 − exp(−(distance / REACH_MM)²)`. Slices of 2 mm and more hardly feel it; of slices of half a millimeter, it takes
    every third or so first.
    """
    indices, weight, order = np.arange(len(urgency)), np.ones(len(urgency)), []
    left = np.ones(len(urgency), bool)
    for _ in indices:
        best = int(np.where(left, urgency * weight, -1.0).argmax())
        left[best] = False
        order.append(best)
        weight = np.minimum(weight, 1 - np.exp(-(((indices - best) * spacing / REACH_MM) ** 2)))
    return np.array(order, int)


def _kinds(stack: SliceStack, raw: np.ndarray, labels: np.ndarray, changed: np.ndarray):
    """For every occupied slice: its index, its crop of `raw` (a view) and the kind of each voxel (uint8)."""
    views = [stack.oriented(array) for array in (raw, labels, changed)]
    for index in stack.occupied:
        one, label, other = (view[index][stack.crop] for view in views)
        kind = (label > 0).astype(np.uint8)
        kind[other] = KINDS.index("changed")
        yield int(index), one, kind
