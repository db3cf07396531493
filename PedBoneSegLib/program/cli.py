"""The program `pedboneseg`: its options, what it prints, and its exit codes. What each verb does is in the file of that
name in this folder. Research software, not a medical device."""

import argparse
import importlib
import importlib.util
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from .. import __version__
from ..errors import BadInput, foreseen
from ..plaintext import lines, one_line
from .detect import detect
from .logbook import log_bug, open_log, silence_libraries
from .measure import measure
from .models import models
from .protocol import EXIT_CODES, failure, to_json
from .segment import SIDES, SegmentOptions, segment
from .session import Session

if TYPE_CHECKING:
    from ..results.documents import Document

TRAINING_VERBS = ("synthesize", "check-data", "train", "crossval", "report", "evaluate", "export", "adapt")
TRAINING_PACKAGES = ("nibabel", "matplotlib", "tqdm", "tensorboard", "vtk")  # the extra `training` in pyproject.toml


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    verb = argv[0] if argv else ""
    silence_libraries()
    try:
        if verb in TRAINING_VERBS:
            return _training(argv)
        args = _parser().parse_args(argv)
        return args.run(args) or 0
    except BrokenPipeError:  # the reader of our output has gone, as `head` does
        sys.stdout = None
        return 0
    except Exception as error:
        if foreseen(error) is None:
            open_log("cli.log")
            log_bug(verb, error)
        return _fail(error)


def _fail(error: BaseException) -> int:
    """One line on stderr; the exit code of that kind of failure."""
    fault = failure(error)
    line = "; ".join(part for part in (fault["message"], fault["hint"]) if part)
    print(f"pedboneseg: {line}", file=sys.stderr)
    return EXIT_CODES[fault["kind"]]


# ---------------------------------------------------------------------------------------------------------- options


Option: TypeAlias = tuple[tuple[str, ...], dict[str, Any]]  # the names, and the arguments of `add_argument`
Verb: TypeAlias = tuple[Callable[[Namespace], int | None] | None, str, tuple[Option, ...]]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {one_line(message)}; see {self.prog} --help\n")


def _option(*names: str, **settings: Any) -> Option:
    return names, settings


def _verb(run: Callable[[Namespace], int | None] | None, text: str, *options: Option) -> Verb:
    return run, text, options


def _verbs() -> dict[str, Verb]:
    """For each verb: the function that runs it, what it does, its options. "models list" is the verb "list" below
    "models"."""
    json_ = _option("--json", action="store_true", help="print one JSON object")
    limit = _option("--max-voxels", type=int, metavar="N", help="refuse larger files; by default 2^28 = 268,435,456")
    image = (
        _option("--model", metavar="NAME_OR_PATH", help="the model; without it the built-in one"),
        _option("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps"),
        _option("--series", metavar="UID", help="one of several DICOM series in a folder"),
        _option("--frame", type=int, metavar="N", help="one of several frames, from 0"),
        limit,
    )
    model = _option("name", metavar="MODEL", help="a name or a path")
    return {
        "segment": _verb(
            _segment, "segment a volume, a DICOM folder, or a folder of volumes",
            _option("input", metavar="INPUT", help="NIfTI, NRRD, MetaImage or DICOM; a folder of them is a batch"),
            _option("-o", "--output", help="by default NAME_bones.nii.gz beside the input, or FOLDER_bones/"),
            _option("--joint", default="auto", help="ankle, knee, shoulder, auto, or another that the model knows"),
            _option("--side", choices=SIDES, help="which side it is; the image cannot tell"), *image,
            _option("--probabilities", metavar="P", help="also write 8-bit probabilities, one component for each bone"),
            _option("--uncertainty", metavar="P", help="also write how probably each label is wrong, 0-254"),
            _option("--overwrite", action="store_true", help="replace outputs that are there"),
            _option("--json", action="store_true", help="print a JSON object for each file, and for a batch a summary"),
        ),
        "detect": _verb(
            _detect, "say which joint an image shows, and whether it is like any the model knows",
            _option("input", metavar="INPUT"), *image, json_,
        ),
        "measure": _verb(
            _measure, "measure the bones of a segmentation",
            _option("input", metavar="SEGMENTATION", help=".seg.nrrd, or a label map with --joint"),
            _option("--joint", help="whose label values a plain label map has"),
            _option("--model", metavar="NAME_OR_PATH", help="the model that knows the joint, if it is not built in"),
            _option("--surfaces", metavar="DIR", help="also write a surface mesh of each bone"), limit, json_,
            _option("--csv", action="store_true", help="print a table"),
        ),
        "models": _verb(None, "list, show, verify, install or remove models"),
        "models list": _verb(_models, "list the models", json_),
        "models show": _verb(_models, "show a model's joints, labels and card",
            _option("name", metavar="MODEL", nargs="?", help="a name or a path"), json_),
        "models verify": _verb(_models, "check a model's contents", model, json_),
        "models install": _verb(
            _models, "copy a model into the store", model,
            _option("--name", dest="as", help="install it under this name"),
            _option("--overwrite", action="store_true", help="replace a model of that name"), json_,
        ),
        "models remove": _verb(_models, "delete an installed model", model, json_),
        "serve": _verb(_serve, "run the worker: JSON lines on stdin and stdout"),
        "demo": _verb(
            _demo, "segment the bundled sample; write pictures and a report",
            _option("-o", "--output", metavar="DIR", default="demo-output", help="the folder to write to"),
        ),
        "doctor": _verb(_doctor, "print versions, devices and models: what a bug report needs", json_),
    }  # fmt: skip


def _parser() -> argparse.ArgumentParser:
    about = "Segments the bones of children's joints in MR. Research software, not a medical device."
    training = f"With the training library installed also: {', '.join(TRAINING_VERBS)}."
    parser = _Parser(prog="pedboneseg", description=about, epilog=training)
    parser.add_argument("--version", action="version", version=f"pedboneseg {__version__}")
    groups = {"": parser.add_subparsers(metavar="VERB", required=True)}
    for verb, (run, text, options) in _verbs().items():
        group, _, name = verb.rpartition(" ")
        subparser = groups[group].add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        if run is None:
            groups[verb] = subparser.add_subparsers(metavar="ACTION", dest="action", required=True)
        for names, settings in options:
            subparser.add_argument(*names, **settings)
        subparser.set_defaults(run=run)
    return parser


# ------------------------------------------------------------------------------------------------------------ verbs


def _fields(args: Namespace) -> dict[str, Any]:
    """The options as the fields of a request, as the worker gets them."""
    return {key: value for key, value in vars(args).items() if key not in ("run", "json", "csv")}


def _segment(args: Namespace) -> int:
    from ..formats.reading import is_dicom_series

    options, show = SegmentOptions.of(_fields(args)), _print_json if args.json else _print_result
    with closing(_Bar()) as bar:
        if options.source.is_dir() and not is_dicom_series(options.source):
            from .batch import segment_folder

            open_log("cli.log")
            for row in segment_folder(Session(), options, bar):
                bar.close()
                show(row)
            exit_code: int = row["summary"]["exit_code"]
            return exit_code
        result = segment(Session(), options, bar)
    show(result)
    return 0


def _detect(args: Namespace) -> None:
    answer = detect(Session(), _fields(args))
    if args.json:
        _print_json(answer)
    elif answer["verdict"] is None:
        print("no verdict: the model carries no signatures of the images it was made for")
    else:
        print(f"{answer['verdict']}: {answer['joint'] or 'not one of the joints that the model knows'}")
        print("\n".join(f"  {domain:<20} {score:.3f}" for domain, score in answer["scores"].items()))


def _measure(args: Namespace) -> None:
    from ..results.documents import measure_csv

    answer = measure(_fields(args))
    if args.json:
        _print_json(answer)
    elif args.csv:
        print(measure_csv(answer["bones"]), end="")
    else:
        for bone, values in answer["bones"].items():
            print(f"{bone:<12} {values['volume_ml']:9.2f} ml" if values["volume_ml"] else f"{bone:<12} not there")


def _models(args: Namespace) -> None:
    answer = models(_fields(args))
    if args.json:
        _print_json(answer)
    elif args.action == "list":
        for model in answer["models"]:
            state = model.get("fault") or f"{model['version']}, {', '.join(model['joints'])}"
            print(f"{model['name']:<24} {one_line(state)}{' (built in)' if model['built_in'] else ''}")
        if not answer["models"]:
            print("no model is installed; pedboneseg models install FILE adds one")
    elif args.action == "show":
        print(one_line(f"{answer['name']} {answer['version']}, {answer['licence']}"))
        for domain, entry in answer["joints"].items():
            print(f"  {domain}: " + ", ".join(f"{value} {bone}" for bone, value in entry["labels"].items()))
        print(f"\n{lines(answer['card'])}")
    elif args.action == "verify":
        print(one_line(f"{answer['name']} {answer['version']} is whole: SHA-256 {answer['sha256']}"))
    else:
        print(f"installed {answer['name']}" if args.action == "install" else f"removed {answer['removed']}")


def _serve(_args: Namespace) -> NoReturn:
    from .worker import main as serve

    serve()


def _demo(args: Namespace) -> None:
    from .demo import run

    with closing(_Bar()) as bar:
        page = run(Path(args.output), bar)
    print(one_line(f"open {page}"))


def _doctor(args: Namespace) -> None:
    from .doctor import examine, to_text

    document = examine()
    print(to_json(document) if args.json else lines(to_text(document)))


def _training(argv: list[str]) -> int:
    """Runs a verb of the training library. BadInput says what to install if the library or one of its packages is
    missing."""
    if importlib.util.find_spec("PedBoneSegTraining") is None:
        raise BadInput(f"{argv[0]} needs the training library, which is not here", "install it: pip install pedboneseg")
    try:
        code: int = importlib.import_module("PedBoneSegTraining.program.commands").main(argv)
        return code
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package not in TRAINING_PACKAGES:
            raise
        hint = f"install what training needs: {sys.executable} -m pip install {' '.join(TRAINING_PACKAGES)}"
        raise BadInput(f"{argv[0]} needs the package {package}, which is not installed", hint) from error


# ---------------------------------------------------------------------------------------------------------- printing


def _print_json(document: "Document") -> None:
    print(to_json(document), flush=True)


def _print_result(row: "Document") -> None:
    if summary := row.get("summary"):
        counts = ", ".join(f"{summary[key]} {key}" for key in ("done", "skipped", "failed"))
        files = f"{summary['files']} file{'' if summary['files'] == 1 else 's'}"
        print(one_line(f"{files}: {counts}; see {summary['csv']}"), flush=True)
    elif fault := row.get("error"):
        line = one_line(f"pedboneseg: {row['input']}: {fault['message']}; {fault['hint']}")
        print(line, file=sys.stderr, flush=True)
    elif row.get("status") != "skipped":
        volumes = ", ".join(f"{bone} {entry['volume_ml']:.1f} ml" for bone, entry in row["bones"].items())
        print(one_line(f"{row['output']}: {volumes}"), flush=True)
        for notice in row["warnings"]:
            print(one_line(f"pedboneseg: warning: {notice['message']}"), file=sys.stderr, flush=True)


class _Bar:
    """A progress bar on a terminal; nothing in a pipe."""

    WIDTH = 30

    def __init__(self) -> None:
        self._shown, self._last = sys.stderr.isatty(), 0.0

    def __call__(self, fraction: float, stage: str) -> None:
        if self._shown and (time.monotonic() - self._last > 0.05 or fraction >= 1):
            self._last = time.monotonic()
            full = round(self.WIDTH * fraction)
            bar = "█" * full + "░" * (self.WIDTH - full)
            print(f"\r\x1b[K{bar} {fraction:4.0%} {one_line(stage)[:60]}", end="", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Removes the bar, so that other lines can be printed. The next step shows it again."""
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
