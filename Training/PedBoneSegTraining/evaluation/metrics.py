"""How good is a segmentation of one bone, in 3-D and in millimeters.

    Dice          2 |P ∩ R| / (|P| + |R|)
    sensitivity   |P ∩ R| / |R|
    specificity   |not P and not R| / |not R|, over the whole volume
    MSSD          the largest distance from either surface to the other                          [mm]
    HD95          the distance that 95 % of a surface's voxels do not exceed, of the two surfaces the larger one  [mm]
    ASSD          the mean of those distances, both surfaces' voxels pooled into one set         [mm]
    surface Dice  share of both surfaces' voxels that lie within TOLERANCE of the other surface
    RAVD          | |P| − |R| | / |R|

P is the prediction, R the reference. A surface is the set of a mask's voxels that have one of their six neighbors
outside it (outside the volume counts), and a distance is taken between voxel centers. Tools that weigh voxels by
surface area, or place the surface between voxels, give an ASSD some 10 to 20 % smaller on the same masks.

A bone that the reference has and the prediction lacks is *missing*: its Dice and surface Dice are 0 and it has no
distance. Whoever averages distances must say beside them how many bones they do not speak of; `summarize` does.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

FOUND, MISSING, ABSENT, SPURIOUS = "found", "missing", "absent", "spurious"
MEASURES = ("dice", "sensitivity", "specificity", "mssd", "assd", "ravd", "hd95", "surface_dice")
TOLERANCE = 1.0  # mm, of the surface Dice


@dataclass(frozen=True)
class BoneScore:
    """One bone of one exam; None where a measure does not exist.

    state: "found" (both masks have voxels), "missing" (the reference alone), "spurious" (the prediction alone: the bone
    is not in view) or "absent" (neither; every measure but specificity is None).
    """

    state: str
    dice: float | None
    sensitivity: float | None
    specificity: float | None
    mssd: float | None
    assd: float | None
    ravd: float | None
    hd95: float | None
    surface_dice: float | None


def score_bone(prediction: np.ndarray, reference: np.ndarray, spacing: Sequence[float]) -> BoneScore:
    """Compares two boolean masks of the same shape; `spacing` is millimeters along the arrays' axes, in their order."""
    predicted, present = int(np.count_nonzero(prediction)), int(np.count_nonzero(reference))
    both = int(np.count_nonzero(prediction & reference))
    outside = reference.size - present
    specificity = 1 - (predicted - both) / outside if outside else None
    if not present:
        state, dice = (SPURIOUS, 0.0) if predicted else (ABSENT, None)
        return BoneScore(state, dice, None, specificity, None, None, None, None, 0.0 if predicted else None)
    if not predicted:
        return BoneScore(MISSING, 0.0, 0.0, specificity, None, None, 1.0, None, 0.0)
    both_ways = surface_distances(prediction, reference, spacing)
    distances = np.concatenate(both_ways)
    return BoneScore(
        FOUND,
        dice=2 * both / (predicted + present),
        sensitivity=both / present,
        specificity=specificity,
        mssd=float(distances.max()),
        assd=float(distances.mean()),
        ravd=abs(predicted - present) / present,
        hd95=max(float(np.percentile(each_way, 95, method="inverted_cdf")) for each_way in both_ways),
        surface_dice=float((distances <= TOLERANCE).mean()),
    )


def surface_distances(a: np.ndarray, b: np.ndarray, spacing: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Distance in mm from each surface voxel of `a` to the nearest one of `b`, and the other way; neither is empty.

    Works inside the smallest box that holds both masks: no nearest surface voxel can lie outside it.
    """
    box = ndimage.find_objects((a | b).view(np.uint8))[0]
    surface_a, surface_b = _surface(a[box]), _surface(b[box])
    to_a = ndimage.distance_transform_edt(~surface_a, sampling=spacing)
    to_b = ndimage.distance_transform_edt(~surface_b, sampling=spacing)
    return to_b[surface_a], to_a[surface_b]


def _surface(mask: np.ndarray) -> np.ndarray:
    return mask & ~ndimage.binary_erosion(mask)  # six neighbors; beyond the edge is outside


def score_exam(
    prediction: np.ndarray,
    reference: np.ndarray,
    spacing: Sequence[float],
    bones: Mapping[str, int],
    reference_bones: Mapping[str, int] | None = None,
    unlabelled: Iterable[str] = (),
) -> dict[str, BoneScore]:
    """Scores every bone of a label volume. `bones` gives the prediction's label values by name.

    The reference may number its bones otherwise (`reference_bones`). Bones that the reference does not label
    (`unlabelled`, or without a value in it) cannot be scored and are left out.
    """
    reference_bones = bones if reference_bones is None else reference_bones
    skipped = set(unlabelled)
    return {
        name: score_bone(prediction == value, reference == reference_bones[name], spacing)
        for name, value in bones.items()
        if name in reference_bones and name not in skipped
    }


@dataclass(frozen=True)
class Summary:
    """One bone over several exams. Means are over the exams that have the measure; `exams` counts all in which the bone
    is in view, `missing` those of them that the prediction lacks (which count in both Dices, sensitivity and RAVD),
    `spurious` the exams without the bone where it was found all the same."""

    exams: int
    missing: int
    spurious: int
    means: dict[str, float | None]


def summarize(scores: Iterable[BoneScore]) -> Summary:
    """Means over the exams where the bone is in view."""
    scores = list(scores)
    in_view = [score for score in scores if score.state in (FOUND, MISSING)]
    means = {}
    for measure in MEASURES:
        values = [value for score in in_view if (value := getattr(score, measure)) is not None]
        means[measure] = float(np.mean(values)) if values else None
    return Summary(
        exams=len(in_view),
        missing=sum(score.state == MISSING for score in in_view),
        spurious=sum(score.state == SPURIOUS for score in scores),
        means=means,
    )
