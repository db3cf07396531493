"""The verb `train`: a study's configuration in, a run's folder with its networks out. Resumes by itself."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", metavar="CONFIG", type=Path, help="a TOML file, see Training/configs")
    parser.add_argument("-o", "--output", metavar="RUN", type=Path, help="the run's folder (default: runs/NAME)")
    parser.add_argument("--init", metavar="MODEL", help="start from this model's filters, normalization and heads")
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        nargs="+",
        action="extend",
        default=[],
        dest="overrides",
        help="override keys of the configuration, for example training.steps=2000",
    )


def run(args: argparse.Namespace) -> int:
    from .. import configuration
    from ..loop.distributed import Ranks
    from ..models.training_run import train

    config = configuration.load(args.config, args.overrides)
    ranks = Ranks.start(config.run.device)
    try:
        train(config, args.output or Path("runs") / config.name, ranks, args.init)
    finally:
        ranks.stop()
    return 0
