"""What cross-validated runs left in their folders, read for the report."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PedBoneSegLib.errors import BadInput

from ..crossval.study import CrossValidation
from ..crossval.tables import Score
from ..evaluation.metrics import MEASURES
from ..evaluation.statistics import Comparison, compare, holm


@dataclass(frozen=True)
class RunScores:
    """One run: a scheme, cross-validated. `curves`: the log's records of each fold's result networks."""

    name: str
    study: CrossValidation
    scores: list[Score]
    curves: list[list[dict]]

    @property
    def seconds(self) -> float:
        """Time that training took, all folds added up."""
        return sum(record[-1]["step"] * record[-1]["seconds"] for record in self.curves if record)

    def values(self, domain: str, bone: str, measure: str) -> dict[str, float | None]:
        """The measure by exam, for the exams in which the bone is in view."""
        return {
            entry.exam: getattr(entry.score, measure)
            for entry in self.scores
            if (entry.domain, entry.bone) == (domain, bone) and entry.in_view
        }


def collect(folders: Sequence[Path]) -> list[RunScores]:
    """Reads the runs; their names are the folders', which must differ."""
    names = [folder.absolute().name for folder in folders]
    if twice := {name for name in names if names.count(name) > 1}:
        raise BadInput(f"two runs are called {', '.join(twice)}", "rename one of the folders")
    return [_collect(name, folder) for name, folder in zip(names, folders, strict=True)]


def _collect(name: str, folder: Path) -> RunScores:
    study = CrossValidation.open(folder)
    scores = study.scores()
    if not scores:
        raise BadInput(f"no fold of {folder} is finished", "give its crossval command again")
    logs = sorted(folder.glob("folds/*/run/*/log.jsonl"))
    return RunScores(name, study, scores, [_records(path) for path in logs])


def _records(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def bones_of(runs: Sequence[RunScores]) -> list[tuple[str, str]]:
    """(domain, bone) of all runs, in the order of first appearance."""
    return list(dict.fromkeys((entry.domain, entry.bone) for run in runs for entry in run.scores))


@dataclass(frozen=True)
class Row:
    """One comparison of the report: a run against the first one, for a bone and a measure."""

    run: str
    domain: str
    bone: str
    measure: str
    comparison: Comparison


def comparisons(runs: Sequence[RunScores]) -> list[Row]:
    """Every run against the first, bone by bone. Holm's correction is over all bones and runs of one measure."""
    first, rows = runs[0], []
    for measure in MEASURES:
        found = [
            Row(run.name, domain, bone, measure,
                compare(run.values(domain, bone, measure), first.values(domain, bone, measure)))
            for run in runs[1:]
            for domain, bone in bones_of(runs)
        ]  # fmt: skip
        corrected = holm([row.comparison.wilcoxon for row in found])
        for row, p in zip(found, corrected, strict=True):
            rows.append(replace(row, comparison=replace(row.comparison, holm=p)))
    return rows
