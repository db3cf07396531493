"""How probably each voxel of the final labels is wrong, and in which order a person should check the slices.

While the network runs, the raw doubt of each voxel is kept in 8 bits: `LEVELS · sqrt(1 − p)`, where p is the
probability of its label. The root gives more levels to small doubts, which nearly all voxels have. `Calibration` turns
raw doubt into a probability of error. Export fits it on exams that were not used for training: one rising curve for
voxels that are labeled as bone, one for background, and one number for voxels that the clean-up changed.

The score of a slice is the expected number of wrong voxels in it. The network may also be wrong without any doubt.
Since bones continue from slice to slice, a slice in which the bones' areas jump is listed earlier, and a slice without
signal between others is expected to lack the bones of its neighbors.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import BadModel
from .result import LEVELS, NOT_LOOKED_AT, Review, ReviewSlice
from .slices import SliceStack

if TYPE_CHECKING:
    from torch import Tensor

KINDS = ("background", "bone", "changed")
# A slice this close to one already listed shows little that is new. Larger values were worse: with 2 mm, a reviewer
# finds fewer errors in the same number of slices.
REACH_MM = 1.0


def raw_doubt(highest: "Tensor") -> "Tensor":
    """The levels (as floats) for probabilities of the chosen label."""
    return ((1 - highest).clamp(min=0).sqrt() * LEVELS).round()


def uncalibrated_error() -> np.ndarray:
    """The probability of error [LEVELS + 1] that each raw level stands for by itself."""
    return (np.arange(LEVELS + 1) / LEVELS) ** 2


@dataclass(frozen=True)
class Calibration:
    """`table` [3 kinds, LEVELS + 1]: raw level → probability that the final label is wrong. `exams`: the number of
    exams that it was fitted on, 0 if it was not fitted."""

    table: np.ndarray
    exams: int = 0

    @classmethod
    def none(cls) -> "Calibration":
        """Trusts the network's probabilities. Where the clean-up changed a label, the new label is wrong with the
        probability that the network's label was right."""
        error = uncalibrated_error()
        return cls(np.stack([error, error, 1 - error]))

    @classmethod
    def from_dict(cls, entries: Mapping[str, Any]) -> "Calibration":
        """The calibration of a domain, from the manifest's `review`."""
        try:
            bone, background = (np.asarray(entries[kind], float) for kind in ("bone", "background"))
            table = np.stack([background, bone, np.full(LEVELS + 1, float(entries["changed"]))])
            exams = int(entries["exams"])
        except (KeyError, TypeError, ValueError) as fault:
            raise BadModel(f"its calibration of the review is not readable ({fault})", "export it again") from None
        if table.shape != (3, LEVELS + 1) or not ((table >= 0) & (table <= 1)).all():
            raise BadModel("its calibration of the review holds no probabilities", "export the model again")
        return cls(table, exams)

    @classmethod
    def of(cls, entries: Mapping[str, Any] | None, domain: str) -> "Calibration":
        """A domain's calibration from the manifest's `review` ({domain: …}); `Calibration.none()` if it has none."""
        return cls.from_dict(entries[domain]) if entries and domain in entries else cls.none()

    def to_dict(self) -> dict[str, Any]:
        """With six digits, since the manifest is text."""
        background, bone, changed = (([float(f"{p:.6g}") for p in row]) for row in self.table)
        return {"exams": self.exams, "bone": bone, "background": background, "changed": changed[0]}


def review_and_calibrate(
    stack: SliceStack,
    doubt: np.ndarray,
    labels: np.ndarray,
    changed: np.ndarray,
    calibrations: Mapping[str, Any] | None,
    domain: str,
    calibrated: bool,
) -> Review | None:
    """The review of the final labels; None if the manifest's `calibrations` have none for the domain.

    `doubt` is raw, `changed` tells which labels the clean-up changed; all arrays are [i, j, k]. With `calibrated`,
    `doubt` is turned into 254 × the probability of error, in place.
    """
    calibration, review = Calibration.of(calibrations, domain), None
    if domain in (calibrations or {}):
        counts = count_levels(stack, doubt, labels, changed)
        review = review_order(stack, counts, bone_areas(stack, labels), calibration)
    if calibrated:
        calibrate(stack, doubt, labels, changed, calibration)
    return review


def count_levels(stack: SliceStack, raw: np.ndarray, labels: np.ndarray, changed: np.ndarray) -> np.ndarray:
    """The number of voxels of each kind with each raw level, slice by slice: [stack.count, 3, LEVELS + 1].

    The three arrays are [i, j, k]. Voxels that the network did not look at are not counted.
    """
    counts = np.zeros((stack.count, len(KINDS), NOT_LOOKED_AT + 1), np.int64)
    for index, level, kind in _kinds(stack, raw, labels, changed):
        counts[index].flat = np.bincount((kind.astype(np.intp) * 256 + level).ravel(), minlength=counts[index].size)
    return counts[..., : LEVELS + 1]


def calibrate(
    stack: SliceStack, raw: np.ndarray, labels: np.ndarray, changed: np.ndarray, calibration: Calibration
) -> None:
    """Turns raw doubt into 254 × the probability of error, in place. 255 stays."""
    table = np.full((len(KINDS), 256), NOT_LOOKED_AT, np.uint8)
    table[:, : LEVELS + 1] = np.rint(calibration.table * LEVELS)
    for _, level, kind in _kinds(stack, raw, labels, changed):
        level[...] = table[kind, level]


def bone_areas(stack: SliceStack, labels: np.ndarray) -> np.ndarray:
    """Voxels of each bone in each slice: [stack.count, bones]. `labels` is [i, j, k]."""
    slices, bones = stack.oriented(labels), range(1, int(labels.max()) + 1)
    areas = [[np.count_nonzero(slices[index] == bone) for bone in bones] for index in range(stack.count)]
    return np.array(areas, float).reshape(stack.count, len(bones))


def review_order(stack: SliceStack, counts: np.ndarray, areas: np.ndarray, calibration: Calibration) -> Review:
    """The slices from the first to the last that holds some of the body, in the order in which to check them.

    `counts` and `areas` come from `count_levels` and `bone_areas`.
    """
    scores, looked_at = (counts * calibration.table).sum(axis=(1, 2)), stack.occupied
    listed = np.arange(looked_at[0], looked_at[-1] + 1) if len(looked_at) else looked_at
    skipped = np.setdiff1d(listed, looked_at)
    if len(skipped):
        scores[skipped] = np.interp(skipped, looked_at, areas[looked_at].sum(1))
    urgency = scores.copy()
    urgency[looked_at] += jumps(areas[looked_at]) / 2  # a slice that does not fit its neighbors is wrong, or they are
    order = listed[ranked(urgency[listed], stack.spacing)]
    total = scores[listed].sum()
    shares = scores[order].cumsum() / total if total > 0 else np.ones(len(order))
    slices = (
        ReviewSlice(stack.own_index(index), round(float(scores[index]), 1), round(float(share), 4))
        for index, share in zip(order, shares, strict=True)
    )
    return Review(int(stack.axis), tuple(slices))


def jumps(areas: np.ndarray) -> np.ndarray:
    """The difference of each slice's bone areas [slices, bones] from the mean of the slices beside it, summed over the
    bones."""
    if len(areas) < 2:
        return np.zeros(len(areas))
    beside = np.concatenate([areas[1:2], areas, areas[-2:-1]])  # at either end, the only neighbor
    return np.asarray(np.abs(areas - (beside[:-2] + beside[2:]) / 2).sum(1))


def ranked(urgency: np.ndarray, spacing: float) -> np.ndarray:
    """Indices of the slices, `spacing` mm apart, in the order in which to check them.

    The next slice is always the most urgent one. Near slices that are listed already the urgency is multiplied by
    `1 − exp(−(distance / REACH_MM)²)`, which is 0 at distance 0. This hardly changes the order of slices of 2 mm and
    more; of slices of half a millimeter, about every third comes first.
    """
    indices, weight, order = np.arange(len(urgency)), np.ones(len(urgency)), []
    unlisted = np.ones(len(urgency), bool)
    for _ in indices:
        best = int(np.where(unlisted, urgency * weight, -1.0).argmax())
        unlisted[best] = False
        order.append(best)
        weight = np.minimum(weight, 1 - np.exp(-(((indices - best) * spacing / REACH_MM) ** 2)))
    return np.array(order, int)


def _kinds(
    stack: SliceStack, raw: np.ndarray, labels: np.ndarray, changed: np.ndarray
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """For every occupied slice: its index, its crop of `raw` (a view) and the kind of each voxel (uint8)."""
    views = [stack.oriented(array) for array in (raw, labels, changed)]
    for index in stack.occupied:
        level, label, was_changed = (view[index][stack.crop] for view in views)
        kind = (label > 0).astype(np.uint8)
        kind[was_changed] = KINDS.index("changed")
        yield int(index), level, kind
