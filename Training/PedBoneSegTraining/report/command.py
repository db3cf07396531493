"""The verb `report`: cross-validated runs side by side, as a page to read and print, and as CSVs."""

import argparse
import csv
import sys
from pathlib import Path

DEFAULT = Path("report")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    runs = "folders that `pedboneseg crossval` wrote; every other one is compared with the first"
    parser.add_argument("runs", metavar="RUN", type=Path, nargs="+", help=runs)
    parser.add_argument("-o", "--output", metavar="DIR", type=Path, default=DEFAULT, help="default: report")
    parser.add_argument("--title", default="Cross-validated segmentation of pediatric bones", help="the page's heading")


def run(args: argparse.Namespace) -> int:
    from PedBoneSegLib.files import write_text

    from .collect import collect, comparisons
    from .page import document

    runs = collect(args.runs)
    rows = comparisons(runs)
    args.output.mkdir(parents=True, exist_ok=True)
    _write_csvs(args.output, runs, rows)
    command = "pedboneseg report " + " ".join(run.name for run in runs)
    write_text(args.output / "index.html", document(args.title, command, _sections(runs, rows)))
    print(f"open {args.output / 'index.html'}")
    return 0


def _sections(runs, rows):
    from ..evaluation.metrics import MEASURES
    from . import page

    first = runs[0].name
    note = f'<p class="note">{page.MEASURES_EXPLAINED}</p>'
    stars = f'<p class="note">Mean ± standard deviation. *, **, ***: differs from {first} with p &lt; 0.05, 0.01, 0.001'
    stars += " (Wilcoxon's signed-rank test over exams, Holm's correction over all bones and runs of the table).</p>"
    yield "Runs", page.table(
        "What was trained",
        ["run", "scheme", "domains", "steps", "folds done", "hours of training"],
        [
            [run.name, run.study.config.scheme, ", ".join(run.study.config.domains),
             str(run.study.config.training.steps),
             f"{len(run.study.folds) - len(run.study.unfinished)} of {len(run.study.folds)}",
             f"{run.seconds / 3600:.2f}"]
            for run in runs
        ],
        texts=3,
    )  # fmt: skip
    yield "Dice", note + page.scores_table(runs, "dice", rows) + (stars if len(runs) > 1 else "") + _boxes(runs)
    yield "Bones not found", page.missing_table(runs)
    others = [measure for measure in MEASURES if measure != "dice"]
    yield "Other measures", "".join(page.scores_table(runs, measure, rows) for measure in others)
    yield f"Differences from {first}", "".join(page.comparisons_table(rows, measure, first) for measure in MEASURES)
    yield "Learning curves", _curves(runs)
    yield "Exams", _exams(runs)


def _boxes(runs) -> str:
    from .collect import bones_of
    from .figures import box_plots

    drawings = []
    for domain in dict.fromkeys(domain for domain, _ in bones_of(runs)):
        bones = [bone for own, bone in bones_of(runs) if own == domain]
        values = {
            run.name: [[v for v in run.values(domain, bone, "dice").values() if v is not None] for bone in bones]
            for run in runs
        }
        drawings.append(f"<figure>{box_plots(f'Dice: {domain}', bones, values, 'Dice')}</figure>")
    return "".join(drawings)


def _curves(runs) -> str:
    from .figures import curves

    lines = {}
    for run in runs:
        lines[run.name] = [
            ([record["step"] for record in log if "loss" in record], [r["loss"] for r in log if "loss" in r])
            for log in run.curves
        ]
    return f"<figure>{curves('Loss while training, a line a fold', lines, 'loss')}</figure>"


def _exams(runs) -> str:
    """Of each joint, the best, the median and the worst exam of the first run, by mean Dice over its bones."""
    from PedBoneSegLib.errors import PedBoneSegError
    from PedBoneSegLib.formats.reading import read_volume

    from ..data.dataset import load_case
    from ..data.domains import open_domains
    from .exams import picture_exam
    from .page import exam_viewer

    run, viewers = runs[0], []
    for name, domain in open_domains(run.study.config).items():
        means: dict[tuple[int, str], list[float]] = {}
        for entry in run.scores:
            if entry.domain == name and entry.in_view:
                means.setdefault((entry.fold, entry.exam), []).append(entry.score.dice)
        ranked = sorted(means, key=lambda key: sum(means[key]) / len(means[key]))
        chosen = {"worst": 0, "median": len(ranked) // 2, "best": -1}
        for word, place in chosen.items() if ranked else ():
            fold, exam = ranked[place]
            try:
                dataset = next(each for each in domain.datasets if exam in {case.name for case in each.cases})
                case = load_case(dataset, dataset.case(exam))
                prediction = read_volume(run.study.labels_file(fold, name, exam)).array
            except PedBoneSegError as error:  # the images may lie elsewhere by now; the tables stand without them
                print(f"no pictures of {name} {exam}: {error}", file=sys.stderr)
                continue
            dice = sum(means[fold, exam]) / len(means[fold, exam])
            title = f"{name}, {word} exam of {run.name}: {exam}, mean Dice {dice:.3f}"
            viewers.append(exam_viewer(picture_exam(title, case.volume, case.labels, prediction)))
    key = '<p class="note">Outlines: <span class="key" style="background:#0072B2"></span> reference, '
    key += '<span class="key" style="background:#E69F00"></span> prediction; white where both run.</p>'
    return f'{key}<div class="exams">{"".join(viewers)}</div>' if viewers else ""


def _write_csvs(folder: Path, runs, rows) -> None:
    from dataclasses import asdict

    from PedBoneSegLib.files import whole_file

    from ..crossval.tables import summary

    def write(name: str, head: list[str], lines) -> None:
        with whole_file(folder / name) as temporary, open(temporary, "w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(head)
            writer.writerows([f"{cell:.6g}" if isinstance(cell, float) else cell for cell in line] for line in lines)

    described = [
        [run.name, domain, bone, measure, *asdict(found).values()]
        for run in runs
        for domain, bone, measure, found in summary(run.scores)
    ]
    write("scores.csv", ["run", "domain", "bone", "measure", "n", "missing", "mean", "sd", "median", "low", "high"],
          described)  # fmt: skip
    compared = [[row.run, row.domain, row.bone, row.measure, *asdict(row.comparison).values()] for row in rows]
    names = ["pairs", "unpaired", "mean_difference", "median_difference", "low", "high", "wilcoxon", "kolmogorov",
             "effect", "holm"]  # fmt: skip
    write("comparisons.csv", ["run", "domain", "bone", "measure", *names], compared)
