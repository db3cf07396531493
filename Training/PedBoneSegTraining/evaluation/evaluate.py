"""The verb `evaluate`: a model on a data set, every bone of every exam, as the user's own `segment` would answer.

The table on the screen has a line a bone: means over the exams where the bone is in view, and beside them the number of
those exams, how many of them the prediction lacks (`missing`: Dice 0, no distance) and in how many others it found the
bone where there is none (`spurious`). The CSV has a line per bone and exam; an empty field is a measure that does not
exist there. Bones that nobody labeled in an exam are not scored in it.
"""

import argparse
import csv
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from PedBoneSegLib.anatomy import JointTable
from PedBoneSegLib.files import whole_file
from PedBoneSegLib.formats.names import check_folder
from PedBoneSegLib.inference.predictor import Predictor
from PedBoneSegLib.models.bundle import Bundle
from PedBoneSegLib.models.store import resolve
from PedBoneSegLib.plaintext import cell
from PedBoneSegLib.volume import Volume

from ..data.dataset import LoadedCase, load_case, read_dataset
from .metrics import MEASURES, BoneScore, score_exam, summarize

UNITS = {"mssd": "mm", "assd": "mm", "hd95": "mm"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, metavar="M", help="name of an installed model, or a file")
    parser.add_argument("--data", required=True, type=Path, metavar="DATASET", help="an nnU-Net v2 raw folder")
    parser.add_argument("--joint", required=True, metavar="NAME", help="one of the model's joints or domains")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.csv", help="a line per exam and bone")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")


def run(args: argparse.Namespace) -> int:
    exams = evaluate(args.model, args.data, args.joint, args.output, args.device)
    print("\n".join(table_lines(metrics_of(exams))))
    return 0


@dataclass(frozen=True)
class ExamScores:
    """One exam's bones by name, in label order; bones that are not labeled in it are not there."""

    exam: str
    bones: dict[str, BoneScore]


def evaluate(
    model: str | Path, data: str | Path, joint: str, output: str | Path | None = None, device: str = "auto"
) -> list[ExamScores]:
    """Segments and scores every exam of the folder; writes the CSV where `output` is given.

    `joint` is one of the model's joints or domains. Labels are matched by bone name.
    """
    if output is not None:
        check_folder(Path(output).absolute().parent)
    bundle = Bundle.load(resolve(str(model)))
    card = bundle.manifest.domains_of(joint)[0]
    dataset = read_dataset(data, joint=card.joint, table=card.table)
    predictor = Predictor(bundle, device)

    def cases() -> Iterator[LoadedCase]:
        for case in tqdm(dataset.cases, unit="exam", disable=None):  # a bar on a terminal, nothing in a pipe
            yield load_case(dataset, case)

    exams = score_cases(lambda volume: predictor.segment(volume, joint).labels, cases(), dataset.table)
    if output is not None:
        write_csv(output, exams)
    return exams


def score_cases(
    segment: Callable[[Volume], np.ndarray], cases: Iterable[LoadedCase], table: JointTable
) -> list[ExamScores]:
    """Scores whatever answers a volume with a label array [i, j, k] on its grid, in the table's values."""
    exams = []
    for case in cases:
        unlabelled = [name for name, known in zip(table.names, case.known[1:], strict=True) if not known]
        spacing = case.volume.grid.spacing
        scores = score_exam(segment(case.volume), case.labels, spacing, table.labels, unlabelled=unlabelled)
        exams.append(ExamScores(case.name, scores))
    return exams


def without_signatures(bundle: Bundle) -> Bundle:
    """The model without signatures and review: it uses the very domain that is named, where signatures may prefer
    another one of the joint, and finds labels alone."""
    cards = tuple(replace(card, signature=None) for card in bundle.manifest.domains)
    return replace(bundle, manifest=replace(bundle.manifest, domains=cards, review=None))


def labels_of(predictor: Predictor, domain: str) -> Callable[[Volume], np.ndarray]:
    return lambda volume: predictor.segment(volume, domain).labels


def by_bone(exams: Iterable[ExamScores]) -> dict[str, list[BoneScore]]:
    """All scores of each bone, in the order of first appearance."""
    bones: dict[str, list[BoneScore]] = {}
    for exam in exams:
        for name, score in exam.bones.items():
            bones.setdefault(name, []).append(score)
    return bones


def mean_dice(exams: Iterable[ExamScores]) -> float | None:
    """Mean over bones of the mean over exams, missing bones counting 0; None where no bone is in view."""
    means = [summarize(scores).means["dice"] for scores in by_bone(exams).values()]
    means = [mean for mean in means if mean is not None]
    return float(np.mean(means)) if means else None


def metrics_of(exams: list[ExamScores]) -> dict:
    """What a model says of itself: {"exams": n, "bones": {bone: {"exams", "missing", "spurious", measure: mean}}}."""
    bones = {name: summarize(scores) for name, scores in by_bone(exams).items()}
    return {
        "exams": len(exams),
        "bones": {
            name: {
                "exams": summary.exams,
                "missing": summary.missing,
                "spurious": summary.spurious,
                **{measure: None if mean is None else round(mean, 5) for measure, mean in summary.means.items()},
            }
            for name, summary in bones.items()
        },
    }


def table_lines(metrics: dict) -> list[str]:
    """The table for people, from `metrics_of`; "–" where nothing can be said."""
    counts = ("exams", "missing", "spurious")
    rows = [["bone", *counts, *(_title(name) for name in MEASURES)]]
    for bone, row in metrics["bones"].items():
        means = ("–" if row.get(name) is None else f"{row[name]:.3f}" for name in MEASURES)
        rows.append([bone, *(str(row[key]) for key in counts), *means])
    return aligned(rows)


def _title(measure: str) -> str:
    return f"{measure} [{UNITS[measure]}]" if measure in UNITS else measure.replace("_", " ")


def aligned(rows: list[list[str]]) -> list[str]:
    """Rows of cells as lines: the first column to the left, numbers to the right."""
    first, *others = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([row[0].ljust(first), *(cell.rjust(width) for cell, width in zip(row[1:], others, strict=True))])
        for row in rows
    ]


def write_csv(path: str | Path, exams: list[ExamScores]) -> None:
    with whole_file(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["exam", "bone", *(field.name for field in fields(BoneScore))])
        for exam in exams:
            for bone, score in exam.bones.items():
                writer.writerow([cell(exam.exam), cell(bone), *map(_cell, asdict(score).values())])


def _cell(value: str | float | None) -> str:
    """Six significant digits, which is more than any measure means."""
    return "" if value is None else value if isinstance(value, str) else f"{value:.6g}"
