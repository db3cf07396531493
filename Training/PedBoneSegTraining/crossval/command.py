"""The verb `crossval`: a configuration cross-validated, fold by fold, here or on a cluster."""

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("config", metavar="CONFIG", type=Path, help="a TOML file, see Training/configs")
    add("-o", "--output", metavar="RUN", type=Path, help="the folder (default: runs/NAME-crossval)")
    folds = "leave one exam of every joint out (the default), a number of folds, or a JSON file that lists them"
    add("--folds", default="loo", metavar="loo|K|FILE", help=folds)
    add("--init", metavar="MODEL", help="every fold starts from this model")
    overrides = {"nargs": "+", "action": "extend", "default": [], "dest": "overrides"}
    add("--set", metavar="KEY=VALUE", help="override keys of the configuration", **overrides)
    add("--executor", choices=("local", "slurm"), default="local", help="where the folds run")
    add("--at-once", type=int, default=1, metavar="N", help="folds that run side by side on this machine")
    option = "a line for sbatch, such as --slurm-option=--gres=gpu:1; may be given several times"
    add("--slurm-option", action="append", default=[], metavar="OPTION", help=option)
    add("--fold", type=int, metavar="I", help="do only this fold, counted from 0; this is what the jobs call")


def run(args: argparse.Namespace) -> int:
    from PedBoneSegLib.errors import BadInput

    from .. import configuration
    from ..evaluation.evaluate import aligned
    from .executors import Job, run_here, submit_to_slurm, this_program
    from .study import CrossValidation

    config = configuration.load(args.config, args.overrides)
    folder = args.output or Path("runs") / f"{config.name}-crossval"
    study = CrossValidation(folder, config, _folds(config, args.folds), args.init)
    study.enter()
    if args.fold is not None:
        from .fold import run_fold

        if not 0 <= args.fold < len(study.folds):
            raise BadInput(f"there is no fold {args.fold}", f"name one from 0 to {len(study.folds) - 1}")
        run_fold(study, args.fold)
        return 0
    if args.at_once < 1:
        raise BadInput(f"--at-once {args.at_once} runs nothing", "give 1 or more")
    again = ["crossval", str(args.config), "-o", str(folder), "--folds", args.folds]
    again += ["--init", args.init] if args.init else []
    again += ["--set", *args.overrides] if args.overrides else []
    jobs = [
        Job(f"fold {number}", this_program(*again, "--fold", str(number)), study.scores_file(number),
            study.fold_folder(number) / "log.txt")
        for number in study.unfinished
    ]  # fmt: skip
    if jobs and args.executor == "slurm":
        print(submit_to_slurm(jobs, folder, args.slurm_option))
    worst = run_here(jobs, args.at_once) if args.executor == "local" else 0
    scores = study.write_tables()
    left = len(study.unfinished)
    if scores:
        print("\n".join(aligned(_table(scores))))
    print(f"{len(study.folds) - left} of {len(study.folds)} folds are done; their scores are in {folder}/scores.csv")
    return worst


def _folds(config, wanted: str) -> list:
    """The folds that are asked for, over the exams that training may see: not those that a data set reserves for
    calibration, nor those that the configuration holds out."""
    from PedBoneSegLib.errors import BadInput

    from ..data.domains import open_domains
    from .folds import k_folds, leave_one_out, read_folds

    exams = {}
    for name, domain in open_domains(config).items():
        cases = [case for dataset in domain.datasets for case in dataset.cases]
        kept_out = set(config.domains[name].hold_out)
        exams[name] = [case.name for case in cases if not case.reserved and case.name not in kept_out]
        if len(set(exams[name])) < len(exams[name]):
            raise BadInput(f"two exams of {name} have the same name", "rename one: scores are kept by name")
        if left_out := len(cases) - len(exams[name]):
            print(f"{name}: {left_out} exams are reserved or held out for good, and are in no fold", file=sys.stderr)
    if wanted == "loo":
        return leave_one_out(exams)
    return k_folds(exams, int(wanted), config.seed) if wanted.isdecimal() else read_folds(wanted, exams)


def _table(scores) -> list[list[str]]:
    """Bones down; Dice and two distances across, mean ± standard deviation."""
    from .tables import summary

    shown = {"dice": "Dice", "assd": "ASSD [mm]", "mssd": "MSSD [mm]"}
    bones: dict[tuple[str, str], dict[str, str]] = {}
    for domain, bone, measure, found in summary(scores):
        row = bones.setdefault((domain, bone), {"exams": str(found.n + found.missing)})
        spread = "" if found.sd is None else f" ± {found.sd:.3f}"
        row[measure] = "–" if found.mean is None else f"{found.mean:.3f}{spread}"
    head = ["bone", "exams", *shown.values()]
    return [head, *([f"{domain}: {bone}", row["exams"], *map(row.get, shown)] for (domain, bone), row in bones.items())]
