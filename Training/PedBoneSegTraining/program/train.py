"""The verb `train`: a study's configuration in, a run's folder with its networks out. Resumes by itself."""

import argparse
import hashlib
import sys
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

    config = configuration.load(args.config, args.overrides)
    ranks = Ranks.start(config.run.device)
    try:
        train(config, args.output or Path("runs") / config.name, ranks, args.init)
    finally:
        ranks.stop()
    return 0


def train(config, folder: Path, ranks, init: str | None = None) -> None:
    """Brings every stage of the run in `folder` to its end, and writes its models there."""
    from PedBoneSegLib.models.bundle import Bundle
    from PedBoneSegLib.models.store import resolve

    from ..loop.runfolder import RunFolder
    from ..loop.scheme import stages
    from ..loop.study import describe, open_study

    ranks.own(config.training.micro_batches)  # complains before anything is read
    study = open_study(config)
    _check_synthetic(config, study)
    start = Bundle.load(resolve(init)) if init else None
    run_folder = RunFolder(folder)
    facts = None
    if ranks.first:
        _say_splits(study)
        told = {"model": start.manifest.name, "sha256": start.manifest.sha256} if start else None
        natural = config.network.natural_images
        if natural:
            told = {"natural_images": hashlib.sha256(Path(natural).read_bytes()).hexdigest()} | (told or {})
        facts = run_folder.enter(config, describe(study), told)
    facts = ranks.from_first(facts)

    sources = {}
    for stage in stages(config):
        if ranks.from_first(run_folder.is_done(stage) if ranks.first else None):
            continue
        for name in stage.domains:
            if name not in sources:
                sources[name] = _open_source(study[name], config, ranks)
        _train_stage(stage, config, study, sources, run_folder, ranks, facts, start)
    if ranks.first:
        _export(config, folder, ranks)


def _export(config, folder: Path, ranks) -> None:
    """Writes the run's models anew, also when a kill came between the last checkpoint and the end of this."""
    from ..models.export import export_run, report

    if not config.run.export:
        print(f"finished; next: pedboneseg export {folder}")
        return
    print("finished; writing the model and measuring it", file=sys.stderr)
    written = export_run(
        folder, device=str(ranks.device), synthetic=config.run.synthetic_reserve, jobs=max(1, config.run.workers)
    )
    print("\n".join(report(written)))


def _train_stage(stage, config, study, sources, run_folder, ranks, facts, start) -> None:
    from ..loop.natural_images import load_natural_images
    from ..loop.scheme import stages
    from ..loop.start import start_from
    from ..loop.trainer import Trainer, build_model
    from ..losses.shape_prior import ShapeAutoencoder

    earlier = {each.name: each for each in stages(config)}
    autoencoder = None
    if config.loss.prior.weight and stage.kind == "segmenter":
        autoencoder = ShapeAutoencoder(config.loss.prior, [study[name].spec for name in earlier["prior"].domains])
        found = run_folder.state(earlier["prior"])
        autoencoder.load_state_dict(found.part("model") | found.part("average"))
    model = build_model(stage, config, [study[name].spec for name in stage.domains], autoencoder)
    if stage.kind == "segmenter":
        if config.network.natural_images:
            load_natural_images(model.network, config.network.natural_images)
        if start:
            start_from(model.network, start.network())
        if stage.start:
            start_from(model.network, run_folder.network(earlier[stage.start]).network)
    validate = None
    if stage.kind == "segmenter" and stage.result:
        validate = _validation(stage, config, study, ranks)
    Trainer(stage, config, model, sources, run_folder.stage(stage), ranks, facts, validate).run()


def _validation(stage, config, study, ranks):
    """Mean Dice on whole exams, as a user's `segment` would answer; exams are shared out among the ranks."""
    from PedBoneSegLib.inference.predictor import Predictor
    from PedBoneSegLib.models.manifest import DomainCard

    from ..data.dataset import load_case
    from ..evaluation.evaluate import mean_dice, score_cases

    groups = {"validation": "", "selection": "selection/"}
    exams = [
        (group, name, dataset, case)
        for group in groups
        for name in stage.domains
        for dataset, case in study[name].cases(group)
    ]
    if not exams:
        return None
    tables = {name: study[name].table for name in stage.domains}
    cards = tuple(DomainCard(name, table.joint, table, config.slices.to_dict()) for name, table in tables.items())

    def validate(network, step: int) -> dict[str, float]:
        predictor = Predictor.for_network(network, cards, str(ranks.device))
        own = []
        for group, name, dataset, case in exams[ranks.rank :: ranks.count]:

            def segment(volume, name=name):
                return predictor.segment(volume, name).labels

            own.append((group, name, score_cases(segment, [load_case(dataset, case)], tables[name])))
        scores: dict[tuple[str, str], list] = {}
        for group, name, scored in ranks.gather(own):
            scores.setdefault((group, name), []).extend(scored)
        values = {f"{groups[group]}dice/{name}": mean_dice(each) for (group, name), each in sorted(scores.items())}
        values = {name: value for name, value in values.items() if value is not None}
        chosen = [value for name, value in values.items() if name.startswith("selection/")]
        if chosen:
            values["selection"] = sum(chosen) / len(chosen)
        return values

    return validate


def _open_source(domain, config, ranks):
    from tqdm import tqdm

    from ..loop.study import open_source

    quiet = None if ranks.first else True  # None: a bar on a terminal, nothing in a pipe
    with tqdm(total=len(domain.cases("train")), desc=f"reading {domain.name}", unit="exam", disable=quiet) as bar:
        return open_source(domain, config, ranks.device, lambda name: bar.update())


def _check_synthetic(config, study) -> None:
    from PedBoneSegLib.errors import BadInput

    for name, domain in config.domains.items():
        if domain.synthetic:
            from ..synthesis.anatomy import JOINTS

            if domain.joint not in JOINTS:
                raise BadInput(
                    f"domain {name}: there are no synthetic exams of the joint {domain.joint!r}",
                    f"set domains.{name}.synthetic = 0; it can be {', '.join(sorted(JOINTS))}",
                )


def _say_splits(study) -> None:
    for name, domain in study.items():
        counts = {group: len(domain.cases(group)) for group in ("train", "validation", "selection", "reserved")}
        parts = [f"{count} {group}" for group, count in counts.items() if count] or ["synthetic exams alone"]
        print(f"{name}: {', '.join(parts)}", file=sys.stderr)
        for dataset in domain.datasets:
            for notice in dataset.notices:
                print(f"{dataset.folder.name}: {notice}", file=sys.stderr)
