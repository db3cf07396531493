"""The program `pedboneseg`. What the verbs do stands in `verbs`, `batch`, `worker`, `doctor` and `demo`; here are
their options, what is printed, and exit codes. Research software, not a medical device."""

import argparse
import importlib
import importlib.util
import json
import signal
import sys
import time
from pathlib import Path
from typing import NoReturn

from . import __version__
from .errors import PedBoneSegError
from .logbook import log_bug, open_log
from .protocol import failure
from .verbs import SIDES, SegmentOptions, Session

TRAINING_VERBS = ("synthesize", "check-data", "train", "evaluate", "export", "adapt")
EXIT_CODES = {"bug": 1, "bad-input": 2, "bad-model": 3, "out-of-memory": 4, "cancelled": 5, "undecided": 6}


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    verb = argv[0] if argv else ""
    if hasattr(signal, "SIGTERM"):
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: nothing half done is left
    try:
        if verb in TRAINING_VERBS:
            return _training(argv)
        args = _parser().parse_args(argv)
        return args.run(args)
    except KeyboardInterrupt:
        return _fail({"kind": "cancelled", "message": "cancelled", "hint": ""})
    except BrokenPipeError:  # the reader of our output has gone, as `head` does
        sys.stdout = None
        return 0
    except Exception as error:
        if not isinstance(error, (PedBoneSegError, MemoryError)):
            open_log("cli.log")
            log_bug(verb, error)
        return _fail(failure(error))


def _fail(fault: dict) -> int:
    """One line on stderr; the exit code of that kind of failure."""
    line = "; ".join(part for part in (fault["message"], fault["hint"]) if part)
    print(f"pedboneseg: {line}", file=sys.stderr)
    return EXIT_CODES[fault["kind"]]


# ---------------------------------------------------------------------------------------------------------- options


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    about = "Segments the bones of children's joints in MR. Research software, not a medical device."
    training = f"With the training library installed also: {', '.join(TRAINING_VERBS)}."
    parser = _Parser(prog="pedboneseg", description=about, epilog=training)
    parser.add_argument("--version", action="version", version=f"pedboneseg {__version__}")
    verbs = parser.add_subparsers(metavar="VERB", required=True)

    def verb(name: str, run, text: str) -> argparse.ArgumentParser:
        chosen = verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        chosen.set_defaults(run=run)
        return chosen

    def image_options(chosen: argparse.ArgumentParser) -> None:
        chosen.add_argument("--model", metavar="NAME_OR_PATH", help="the model; without it the built-in one")
        chosen.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
        chosen.add_argument("--series", metavar="UID", help="one of several DICOM series in a folder")
        chosen.add_argument("--frame", type=int, metavar="N", help="one of several frames, from 0")

    json_help = "print one JSON object"
    segment = verb("segment", _segment, "segment a volume, a DICOM folder, or a folder of volumes")
    segment.add_argument("input", metavar="INPUT", help="NIfTI, NRRD, MetaImage or DICOM; a folder of them is a batch")
    segment.add_argument("-o", "--output", help="by default NAME_bones.nii.gz beside the input, or FOLDER_bones/")
    segment.add_argument("--joint", default="auto", help="ankle, knee, shoulder, auto, or another that the model knows")
    segment.add_argument("--side", choices=SIDES, help="which side it is; the image cannot tell")
    image_options(segment)
    segment.add_argument("--probabilities", metavar="P", help="also write 8-bit probabilities, a component a bone")
    segment.add_argument("--uncertainty", metavar="P", help="also write how probably each label is wrong, 0-254")
    segment.add_argument("--overwrite", action="store_true", help="replace outputs that are there")
    segment.add_argument("--json", action="store_true", help="print one JSON object a file, and for a batch a summary")

    detect = verb("detect", _detect, "say which joint an image shows, and whether it is like any the model knows")
    detect.add_argument("input", metavar="INPUT")
    image_options(detect)
    detect.add_argument("--json", action="store_true", help=json_help)

    measure = verb("measure", _measure, "measure the bones of a segmentation")
    measure.add_argument("input", metavar="SEGMENTATION", help=".seg.nrrd, or a label map with --joint")
    measure.add_argument("--joint", help="whose label values a plain label map has")
    measure.add_argument("--model", metavar="NAME_OR_PATH", help="a model that knows the joint, where it is an own one")
    measure.add_argument("--surfaces", metavar="DIR", help="also write a surface mesh a bone")
    form = measure.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help=json_help)
    form.add_argument("--csv", action="store_true", help="print a table")

    models = verb("models", _models, "list, show, verify, install or remove models")
    actions = models.add_subparsers(metavar="ACTION", dest="action", required=True)
    for action, text in (
        ("list", "the models at hand"),
        ("show", "a model's joints, labels and card"),
        ("verify", "check a model's contents"),
        ("install", "copy a model into the store"),
        ("remove", "delete an installed model"),
    ):
        chosen = actions.add_parser(action, help=text)
        if action != "list":
            count = "?" if action == "show" else None
            chosen.add_argument("name", metavar="MODEL", nargs=count, help="a name or a path")
        if action == "install":
            chosen.add_argument("--name", dest="as_name", help="install it under this name")
            chosen.add_argument("--overwrite", action="store_true", help="replace a model of that name")
        chosen.add_argument("--json", action="store_true", help=json_help)

    verb("serve", _serve, "run the worker: JSON lines on stdin and stdout")
    demo = verb("demo", _demo, "segment the bundled sample; write pictures and a report")
    demo.add_argument("-o", "--output", metavar="DIR", default="demo-output", help="the folder to write to")
    doctor = verb("doctor", _doctor, "print versions, devices and models: what a bug report needs")
    doctor.add_argument("--json", action="store_true", help=json_help)
    return parser


# ------------------------------------------------------------------------------------------------------------ verbs


def _segment(args: argparse.Namespace) -> int:
    from .formats.reading import is_dicom_series

    options = SegmentOptions.of({key: value for key, value in vars(args).items() if key not in ("run", "json")})
    show = _print_json if args.json else _print_result
    with _Bar() as bar:
        if options.source.is_dir() and not is_dicom_series(options.source):
            from .batch import segment_folder

            open_log("cli.log")
            return segment_folder(Session(), options, lambda row: (bar.clear(), show(row)), bar, log=_log_segment)
        result = Session().segment(options, bar)
    show(result)
    return 0


def _log_segment(error: BaseException) -> None:
    log_bug("segment", error)


def _detect(args: argparse.Namespace) -> int:
    answer = Session().detect({key: value for key, value in vars(args).items() if key not in ("run", "json")})
    if args.json:
        _print_json(answer)
    elif answer["verdict"] is None:
        print("no verdict: the model carries no signatures of the images it was made for")
    else:
        print(f"{answer['verdict']}: {answer['joint'] or 'not one of the joints that the model knows'}")
        for domain, score in sorted(answer["scores"].items(), key=lambda item: item[1]):
            print(f"  {domain:<20} {score:.3f}")
    return 0


def _measure(args: argparse.Namespace) -> int:
    from .measure import to_csv

    fields = {"input": args.input, "joint": args.joint, "model": args.model, "surfaces": args.surfaces}
    answer = Session().measure(fields)
    if args.json:
        _print_json(answer)
    elif args.csv:
        print(to_csv(answer["bones"]), end="")
    else:
        for bone, values in answer["bones"].items():
            print(f"{bone:<12} {values['volume_ml']:9.2f} ml" if values["volume_ml"] else f"{bone:<12} not there")
    return 0


def _models(args: argparse.Namespace) -> int:
    entries = {"action": args.action, "name": getattr(args, "name", None), "as": getattr(args, "as_name", None)}
    answer = Session().models({**entries, "overwrite": getattr(args, "overwrite", None)})
    if args.json:
        _print_json(answer)
    elif args.action == "list":
        for model in answer["models"]:
            state = model.get("fault") or f"{model['version']}, {', '.join(model['joints'])}"
            print(f"{model['name']:<24} {state}{' (built in)' if model['built_in'] else ''}")
        if not answer["models"]:
            print("no model is installed; pedboneseg models install FILE adds one")
    elif args.action == "show":
        print(f"{answer['name']} {answer['version']}, {answer['licence']}")
        for domain, entry in answer["joints"].items():
            print(f"  {domain}: " + ", ".join(f"{value} {bone}" for bone, value in entry["labels"].items()))
        print(f"\n{answer['card']}")
    elif args.action == "verify":
        print(f"{answer['name']} {answer['version']} is whole: SHA-256 {answer['sha256']}")
    else:
        print(f"installed {answer['name']}" if args.action == "install" else f"removed {answer['removed']}")
    return 0


def _serve(_args: argparse.Namespace) -> NoReturn:
    from .worker import main as serve

    serve()


def _demo(args: argparse.Namespace) -> int:
    from .demo import run

    with _Bar() as bar:
        page = run(Path(args.output), bar)
    print(f"open {page}")
    return 0


def _doctor(args: argparse.Namespace) -> int:
    from .doctor import examine, to_text

    document = examine()
    print(json.dumps(document, ensure_ascii=False) if args.json else to_text(document))
    return 0


def _training(argv: list[str]) -> int:
    if importlib.util.find_spec("PedBoneSegTraining") is None:
        hint = 'pip install "pedboneseg[training]", or run it in a copy of the repository after `make setup`'
        return _fail({"kind": "bad-input", "message": f"{argv[0]} needs the training library", "hint": hint})
    return importlib.import_module("PedBoneSegTraining.commands").main(argv)


# ---------------------------------------------------------------------------------------------------------- printing


def _print_json(document: dict) -> None:
    print(json.dumps(document, ensure_ascii=False, allow_nan=False), flush=True)


def _print_result(row: dict) -> None:
    if summary := row.get("summary"):
        counts = ", ".join(f"{summary[key]} {key}" for key in ("done", "skipped", "failed"))
        print(f"{summary['files']} files: {counts}; see {summary['csv']}", flush=True)
    elif fault := row.get("error"):
        print(f"pedboneseg: {row['input']}: {fault['message']}; {fault['hint']}", file=sys.stderr, flush=True)
    elif row.get("status") != "skipped":
        volumes = ", ".join(f"{bone} {entry['volume_ml']:.1f} ml" for bone, entry in row["bones"].items())
        print(f"{row['output']}: {volumes}", flush=True)
        for notice in row["warnings"]:
            print(f"pedboneseg: warning: {notice['message']}", file=sys.stderr, flush=True)


class _Bar:
    """A progress bar on a terminal; silence in a pipe."""

    WIDTH = 30

    def __init__(self) -> None:
        self._shown, self._last = sys.stderr.isatty(), 0.0

    def __call__(self, fraction: float, stage: str) -> None:
        if self._shown and (time.monotonic() - self._last > 0.05 or fraction >= 1):
            self._last = time.monotonic()
            full = round(self.WIDTH * fraction)
            bar = "█" * full + "░" * (self.WIDTH - full)
            sys.stderr.write(f"\r\x1b[K{bar} {fraction:4.0%} {stage[:60]}")
            sys.stderr.flush()

    def clear(self) -> None:
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def __enter__(self) -> "_Bar":
        return self

    def __exit__(self, *_) -> None:
        self.clear()
