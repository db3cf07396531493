"""The folder of a cross-validation.

crossval.json          the configuration, who each fold holds out, and the model that training starts from
folds/03/run/          the fold's training, as `pedboneseg train` leaves it
folds/03/labels/       what its networks made of the held-out exams: DOMAIN/EXAM.nii.gz
folds/03/scores.csv    its scores; written last, so that the fold is done when it is there
scores.csv, summary.csv   all folds together (see `tables`)
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from PedBoneSegLib.errors import BadInput
from PedBoneSegLib.files import write_text

from ..configuration import Configuration, changes, from_dict
from .folds import Fold
from .tables import Score, read_scores, write_scores, write_summary

FILE = "crossval.json"


class CrossValidation:
    def __init__(self, folder: Path, config: Configuration, folds: Sequence[Fold], init: str | None) -> None:
        self.folder, self.config, self.folds, self.init = folder, config, tuple(folds), init

    @classmethod
    def open(cls, folder: Path) -> "CrossValidation":
        """An existing one, to read or to go on with."""
        try:
            document = json.loads((folder / FILE).read_text(encoding="utf-8"))
            folds = [{domain: tuple(names) for domain, names in fold.items()} for fold in document["folds"]]
            return cls(folder, from_dict(document["configuration"], str(folder / FILE)), folds, document["init"])
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise BadInput(
                f"{folder} holds no cross-validation ({error})", "name the folder that `pedboneseg crossval -o` wrote"
            ) from None

    def enter(self) -> None:
        """Writes crossval.json, or checks that the one that is there says the same."""
        if (self.folder / FILE).exists():
            before = CrossValidation.open(self.folder)
            differs = changes(before.config.identity(), self.config.identity())
            if before.folds != self.folds:
                differs.append("the folds or the exams changed")
            if before.init != self.init:
                differs.append(f"it starts from {before.init}, not {self.init}")
            if differs:
                fault = f"{self.folder} is a cross-validation of another kind: {'; '.join(differs[:3])}"
                raise BadInput(fault, "take the change back, or choose another folder with -o")
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        document = {"configuration": self.config.to_dict(), "folds": self.folds, "init": self.init}
        write_text(self.folder / FILE, json.dumps(document, indent=1) + "\n")

    def fold_folder(self, number: int) -> Path:
        return self.folder / "folds" / f"{number:02d}"

    def scores_file(self, number: int) -> Path:
        return self.fold_folder(number) / "scores.csv"

    def labels_file(self, number: int, domain: str, exam: str) -> Path:
        return self.fold_folder(number) / "labels" / domain / f"{exam}.nii.gz"

    def fold_config(self, number: int) -> Configuration:
        """The study's configuration without the exams that this fold holds out. A domain that lists exams to hold out
        itself keeps them out of every fold."""
        domains = {
            name: replace(domain, hold_out=(*domain.hold_out, *self.folds[number].get(name, ())))
            for name, domain in self.config.domains.items()
        }
        return replace(self.config, domains=domains, run=replace(self.config.run, export=False))

    @property
    def unfinished(self) -> list[int]:
        return [number for number in range(len(self.folds)) if not self.scores_file(number).exists()]

    def scores(self) -> list[Score]:
        """Of the folds that are done."""
        done = [number for number in range(len(self.folds)) if self.scores_file(number).exists()]
        return [entry for number in done for entry in read_scores(self.scores_file(number))]

    def write_tables(self) -> list[Score]:
        scores = self.scores()
        write_scores(self.folder / "scores.csv", scores)
        write_summary(self.folder / "summary.csv", scores)
        return scores
