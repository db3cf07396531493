"""How many of all wrong voxels a reviewer meets in the first 10, 20 and 30 % of the slices, in the order that the model
gives, against natural order, random order and the best possible one. On a frozen mix of `held-out`: every exam as it is
and once degraded (noise, blur, shading, lost slices in turn). Also: expected against true numbers of wrong voxels."""

from collections.abc import Sequence

import numpy as np

from PedBoneSegLib.inference.predictor import Predictor
from PedBoneSegLib.inference.result import ReviewSlice
from PedBoneSegLib.models.bundle import Bundle
from PedBoneSegLib.models.store import resolve

from ..data.degraded import DEGRADED, apply
from .detection import JOINTS
from .exams import cohort
from .tables import keep, options, table

SHARES = (0.1, 0.2, 0.3)


def main() -> None:
    parser = options(__doc__, 8)
    parser.add_argument("--model", required=True)
    args = parser.parse_args()
    bundle = Bundle.load(resolve(args.model))
    predictor, exams = Predictor(bundle, args.device), []
    for joint in JOINTS:
        for number, case in enumerate(cohort("held-out", joint, args.exams, args.cache)):
            what = list(DEGRADED)[number % len(DEGRADED)]
            for kind, one in (("clean", case), (what, apply(DEGRADED[what], what, case, number))):
                result = predictor.segment(one.volume, joint)
                if result.review is None:
                    parser.error(f"the model's review of the {joint} is not calibrated")
                wrong = (result.labels != case.labels).sum(tuple({0, 1, 2} - {result.review.axis}))
                exams.append({"exam": case.name, "joint": joint, "kind": kind, **found(result.review.slices, wrong)})
    text = f"{summary(exams)}\n\n{expectation(exams)}"
    keep("review", args, {"exams": exams}, text, {"model": bundle})


def found(listed: Sequence[ReviewSlice], wrong: np.ndarray) -> dict:
    """Shares of the wrong voxels [slices] in the first tenths of the slices, by each order."""
    order = [entry.index for entry in listed]
    order += [index for index in range(len(wrong)) if index not in set(order)]  # never looked at: last
    total, entries = max(1, int(wrong.sum())), {}
    for share in SHARES:
        first = max(1, round(share * len(wrong)))
        entries[f"{share:g}"] = {
            "model": int(wrong[order[:first]].sum()) / total,
            "natural": int(wrong[:first].sum()) / total,
            "random": first / len(wrong),
            "best": int(np.sort(wrong)[::-1][:first].sum()) / total,
        }
    return {
        "shares": entries,
        "wrong": int(wrong.sum()),
        "expected": sum(entry.score for entry in listed),
        "slices": len(wrong),
    }


def summary(exams: list[dict]) -> str:
    """Means over exams, and the share of all wrong voxels of all exams together."""
    rows = []
    for kind in ("clean", "degraded", "all"):
        chosen = [each for each in exams if kind == "all" or (each["kind"] == "clean") == (kind == "clean")]
        for share in (f"{each:g}" for each in SHARES):
            means = {
                order: float(np.mean([each["shares"][share][order] for each in chosen]))
                for order in ("model", "natural", "random", "best")
            }
            weights = [each["wrong"] for each in chosen]
            pooled, best = (
                float(np.average([each["shares"][share][order] for each in chosen], weights=weights))
                for order in ("model", "best")
            )
            rows.append(
                [
                    f"{kind}, first {float(share):.0%}",
                    len(chosen),
                    *means.values(),
                    means["model"] / max(means["best"], 1e-9),
                    pooled / max(best, 1e-9),
                ]
            )
    header = ["exams, slices", "n", "model's order", "natural", "random", "best", "of the best", "of the best, pooled"]
    return table(header, rows)


def expectation(exams: list[dict]) -> str:
    rows = []
    for joint in JOINTS:
        for kind in dict.fromkeys(each["kind"] for each in exams):
            chosen = [each for each in exams if (each["joint"], each["kind"]) == (joint, kind)]
            if chosen:
                expected, wrong = (sum(each[key] for each in chosen) for key in ("expected", "wrong"))
                rows.append([f"{joint}, {kind}", len(chosen), round(expected), wrong, expected / max(1, wrong)])
    return table(["exams", "n", "wrong voxels expected", "found", "ratio"], rows)


if __name__ == "__main__":
    main()
