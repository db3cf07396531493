"""The training library's verbs of `pedboneseg`. Each verb's file brings its options (`add_arguments`) and its work
(`run`), and is imported when it is asked for: the list of verbs costs nothing, `--help` needs no torch."""

import argparse
import importlib
import sys

from PedBoneSegLib.errors import PedBoneSegError

VERBS = {  # verb → its file, and what it does
    "synthesize": ("synthesis.command", "write a cohort of synthetic joints as nnU-Net raw folders"),
    "check-data": ("data.check", "say, case by case, what is wrong with data sets"),
    "train": ("program.train", "train the networks of a configuration; resumes a run that was interrupted"),
    "crossval": ("crossval.command", "cross-validate a configuration; goes on where it was stopped"),
    "report": ("report.command", "put cross-validated runs side by side on one page"),
    "evaluate": ("evaluation.evaluate", "score a model on a data set, bone by bone"),
    "export": ("models.export", "write a run's networks as models that the runtime opens"),
    "adapt": ("models.adapt", "add a joint, or an own scanner for a known one, to a model"),
}


def main(argv: list[str] | None = None) -> int:
    """Exit codes: 0 done, 1 a bug, 2 bad input or usage, 3 bad model, 4 out of memory, 5 cancelled."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="pedboneseg", description="Training: research software, no medical device.")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for verb, (where, text) in VERBS.items():
        chosen = verbs.add_parser(verb, help=text, description=text[0].upper() + text[1:] + ".")
        if argv[:1] == [verb]:
            module = importlib.import_module(f"PedBoneSegTraining.{where}")
            module.add_arguments(chosen)
    try:
        args = parser.parse_args(argv)
        return module.run(args)
    except PedBoneSegError as error:
        print(f"pedboneseg: {error}", file=sys.stderr)
        return error.exit_code
