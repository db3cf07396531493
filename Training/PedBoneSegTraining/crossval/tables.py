"""What the folds found, collected: a line per exam and bone, and a summary per bone.

scores.csv    fold, domain, exam, bone, state, and every measure of `evaluation.metrics`; empty where a measure does
              not exist. Every exam's own scores: means are made of them, never kept in their place
summary.csv   domain, bone, measure, n, missing, mean, sd, median, and the interval of the mean
"""

import csv
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from PedBoneSegLib.errors import BadInput
from PedBoneSegLib.files import whole_file

from ..evaluation.metrics import ABSENT, MEASURES, SPURIOUS, BoneScore
from ..evaluation.statistics import Description, describe

COLUMNS = ("fold", "domain", "exam", "bone", "state", *MEASURES)
DIGITS = 6  # significant ones: an exam's scores mean nothing beyond


@dataclass(frozen=True)
class Score:
    """One bone of one held-out exam."""

    fold: int
    domain: str
    exam: str
    bone: str
    score: BoneScore

    @property
    def in_view(self) -> bool:
        return self.score.state not in (ABSENT, SPURIOUS)


def write_scores(path: Path, scores: Iterable[Score]) -> None:
    with whole_file(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        for entry in scores:
            values = asdict(entry.score)
            measures = (_text(values[measure]) for measure in MEASURES)
            writer.writerow([entry.fold, entry.domain, entry.exam, entry.bone, values["state"], *measures])


def read_scores(path: Path) -> list[Score]:
    try:
        with open(path, newline="", encoding="utf-8") as stream:
            return [_score(row) for row in csv.DictReader(stream)]
    except (OSError, KeyError, ValueError) as error:
        raise BadInput(f"the scores {path} cannot be read: {error}", "delete the file and run the fold again") from None


def write_summary(path: Path, scores: Iterable[Score]) -> None:
    with whole_file(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["domain", "bone", "measure", *Description.__dataclass_fields__])
        for domain, bone, measure, found in summary(scores):
            writer.writerow([domain, bone, measure, *map(_text, asdict(found).values())])


def summary(scores: Iterable[Score]) -> Iterator[tuple[str, str, str, Description]]:
    """Every measure of every bone over the exams in which the bone is in view; a bone that was not found counts with
    Dice 0, and as missing where a measure does not exist without it."""
    bones: dict[tuple[str, str], list[BoneScore]] = {}
    for entry in scores:
        if entry.in_view:
            bones.setdefault((entry.domain, entry.bone), []).append(entry.score)
    for (domain, bone), found in bones.items():
        for measure in MEASURES:
            yield domain, bone, measure, describe([getattr(score, measure) for score in found])


def _score(row: dict[str, str]) -> Score:
    measures = {measure: float(row[measure]) if row[measure] else None for measure in MEASURES}
    return Score(int(row["fold"]), row["domain"], row["exam"], row["bone"], BoneScore(row["state"], **measures))


def _text(value: float | int | None) -> str:
    return "" if value is None else f"{value:.{DIGITS}g}" if isinstance(value, float) else str(value)
