"""Which joint, and like anything seen: accuracy and false alarms on honest images, foreign images, and rival scores.

Honest: the cohorts `held-out` (clean, and upside down) and `held-out-sequence` (STIR, of which the thresholds saw other
exams). Foreign: hip and elbow of `not-a-joint`, and the first exams of `held-out` changed. `--real FOLDER` adds volumes
one by one. Rivals, all on the same slices: mean entropy and 1 − mean of the highest probability (of the domain with the
lowest such value, over the crop), and the signatures' own parts, each by its smallest value over the domains.
"""

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from PedBoneSegLib.formats.reading import find_inputs, read_volume
from PedBoneSegLib.inference.detection import decide
from PedBoneSegLib.inference.passes import Pass, stacks_by_domain
from PedBoneSegLib.inference.predictor import Predictor
from PedBoneSegLib.inference.signature import spread_slices
from PedBoneSegLib.models.bundle import Bundle
from PedBoneSegLib.models.store import resolve
from PedBoneSegLib.volume import Volume

from ..data.degraded import apply
from .exams import FOREIGN, cohort, upside_down
from .tables import auroc, keep, missed_at_95, options, table

JOINTS = ("ankle", "knee", "shoulder")
CHANGED = 8  # exams of each joint that are changed
METHODS = {
    "score": "as shipped",
    "spectral": "spectral signature alone",
    "pooled": "Mahalanobis, pooled features",
    "apart": "discriminant",
    "entropy": "mean entropy",
    "softmax": "1 − max softmax",
}


def main() -> None:
    parser = options(__doc__, 24)
    parser.add_argument("--model", required=True)
    parser.add_argument("--real", type=Path, metavar="FOLDER", help="volumes to report one by one")
    args = parser.parse_args()
    bundle = Bundle.load(resolve(args.model))
    predictor = Predictor(bundle, args.device)
    rows = [
        {"group": group, "name": volume.name, "joint": joint, **look(predictor, volume)}
        for group, joint, volume in images(args)
    ]
    args.output.mkdir(parents=True, exist_ok=True)
    with open(args.output / "detection.csv", "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        keys = ["group", "name", "joint", "detected", "verdict", *METHODS]
        writer.writerows([keys, *[[row.get(key) for key in keys] for row in rows]])
    text = "\n\n".join([honest(rows), foreign(rows), *([real(rows)] if args.real else [])])
    keep("detection", args, {"images": rows}, text, {"model": bundle})


def images(args) -> Iterator[tuple[str, str | None, Volume]]:
    """(group, true joint or None, volume)."""
    for joint in JOINTS:
        for number, case in enumerate(cohort("held-out", joint, args.exams, args.cache)):
            yield "held-out", joint, case.volume
            if number < CHANGED:
                yield "upside down", joint, apply(upside_down, "upside down", case, number).volume
                for name, change in FOREIGN.items():
                    yield name, None, apply(change, name, case, number).volume
        for case in cohort("held-out-sequence", joint, args.exams, args.cache):
            yield "unseen sequence", joint, case.volume
    for joint in ("hip", "elbow"):
        for case in cohort("not-a-joint", joint, args.exams, args.cache):
            yield joint, None, case.volume
    for path in find_inputs(args.real) if args.real else ():
        volume = read_volume(path)
        volume.name = path.name
        yield "real", None, volume


def look(predictor: Predictor, volume: Volume) -> dict:
    """Everything that any method has to say about a volume."""
    stacks, parts, doubts = stacks_by_domain(volume), {}, []
    for card in predictor.bundle.manifest.domains:
        if reference := predictor.reference(card):
            moments = predictor.observe(stacks(card), card, reference.layers)
            parts[card.name] = reference.parts(moments)
        doubts.append(doubt(predictor, stacks(card), card))
    scores = {name: max(each.values()) for name, each in parts.items()}
    detection = decide(scores, predictor.bundle.manifest.domains)
    lowest = {
        key: min((each[key] for each in parts.values() if key in each), default=None)
        for key in ("spectral", "pooled", "apart")
    }
    nearest = min(scores, key=scores.__getitem__, default=None)
    return {
        "detected": nearest and predictor.bundle.manifest.domain(nearest).joint,
        "verdict": detection.verdict,
        "score": detection.score,
        "scores": dict(detection.scores),
        "parts": parts,
        **lowest,
        "entropy": min(each[0] for each in doubts),
        "softmax": min(each[1] for each in doubts),
    }


def doubt(predictor: Predictor, stack, card) -> tuple[float, float]:
    """Mean entropy in nats and 1 − mean highest probability, over the slices that signatures look at; where there is
    nothing to look at, what complete doubt would be."""
    sums = []

    def place(indices: np.ndarray, logits: torch.Tensor) -> None:
        logs = logits[(..., *stack.window)].log_softmax(1)
        entropy = -(logs.exp() * logs).sum(1).mean((1, 2))
        sums.extend(zip(entropy.tolist(), (1 - logs.exp().amax(1)).mean((1, 2)).tolist(), strict=True))

    with Pass(predictor, card, stack, place, [], spread_slices(stack.occupied)) as run:
        for _ in run:
            pass
    classes = 1 + len(card.table.bones)
    return tuple(np.mean(sums, axis=0)) if sums else (float(np.log(classes)), 1 - 1 / classes)


def honest(rows: list[dict]) -> str:
    """Accuracy, and what a user would be told wrongly."""
    lines = []
    for group in ("held-out", "unseen sequence", "upside down"):
        for joint in (*JOINTS, None):
            chosen = [row for row in rows if row["group"] == group and (joint is None or row["joint"] == joint)]
            if chosen:
                right = [row["detected"] == row["joint"] for row in chosen]
                verdicts = [row["verdict"] for row in chosen]
                wrong = [v == "joint" and not r for v, r in zip(verdicts, right, strict=True)]
                shares = (
                    np.mean(right),
                    verdicts.count("unlike") / len(chosen),
                    verdicts.count("ambiguous") / len(chosen),
                    np.mean(wrong),
                )
                lines.append([f"{group}, {joint or 'all'}", len(chosen), *map(float, shares)])
    header = ["honest images", "exams", "nearest joint right", "false alarm: unlike", "ambiguous", "wrong, and sure"]
    return table(header, lines)


def foreign(rows: list[dict]) -> str:
    inside = [row for row in rows if row["group"] == "held-out"]
    lines = []
    for group in ("hip", "elbow", *FOREIGN):
        chosen = [row for row in rows if row["group"] == group]
        if chosen:
            noticed = np.mean([row["verdict"] == "unlike" for row in chosen])
            cells = []
            for key in METHODS:
                pair = [[row[key] for row in part if row[key] is not None] for part in (inside, chosen)]
                cells.append(f"{auroc(*pair):.3f} ({100 * missed_at_95(*pair):.0f} %)" if all(pair) else None)
            lines.append([group, len(chosen), float(noticed), *cells])
    text = table(["foreign images", "exams", "called unlike", *METHODS.values()], lines)
    return text + "\n\nAUROC against the held-out exams, and in brackets the false positives at 95 % true positives."


def real(rows: list[dict]) -> str:
    lines = [
        [row["name"], row["verdict"], row["detected"], ", ".join(f"{k} {v:.2f}" for k, v in row["scores"].items())]
        for row in rows
        if row["group"] == "real"
    ]
    return table(["real volume", "verdict", "nearest joint", "scores"], lines)


if __name__ == "__main__":
    main()
