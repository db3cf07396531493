"""A whole run: its stages one after the other, each from where it stands, and the models at the end."""

import hashlib
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from PedBoneSegLib.errors import BadInput
from PedBoneSegLib.models.bundle import Bundle
from PedBoneSegLib.models.store import resolve
from PedBoneSegLib.network.config import DomainSpec

from ..configuration import Configuration
from ..configuration.extensions import AuxiliaryStage, Batches, Stage
from ..data.domains import DomainData, describe, open_domains
from ..data.source import Source
from ..evaluation.validation import validation
from ..loop.distributed import Ranks
from ..loop.initial_weights import copy_weights
from ..loop.natural_images import load_natural_images
from ..loop.networks import build_model
from ..loop.runfolder import RunFolder
from ..loop.sources import open_source
from ..loop.stages import NetworkStage, stages
from ..loop.trainer import Trainer
from ..synthesis.anatomy import JOINTS
from .export import export_run, report

ACCEPTANCE_BATCHES = 16  # that a finished auxiliary module is judged on


def train(config: Configuration, folder: Path, ranks: Ranks, init: str | None = None) -> None:
    """Brings every stage of the run in `folder` to its end, and writes its models there."""
    ranks.own(config.training.micro_batches)  # complains before anything is read
    domains = open_domains(config)
    _check_synthetic(config)
    start = Bundle.load(resolve(init)) if init else None
    run_folder = RunFolder(folder)
    facts = None
    if ranks.first:
        _report_splits(domains)
        begins = {"model": start.manifest.name, "sha256": start.manifest.sha256} if start else None
        if natural := config.network.natural_images:
            begins = {"natural_images": hashlib.sha256(Path(natural).read_bytes()).hexdigest()} | (begins or {})
        facts = run_folder.enter(config, describe(domains), begins)
    run = _Run(config, domains, run_folder, ranks, ranks.from_first(facts), start)
    for stage in stages(config):
        if not ranks.from_first(run_folder.is_done(stage) if ranks.first else None):
            run.train(stage)
    if ranks.first:
        _export(config, folder, ranks)


class _Run:
    """What the stages of a run share: the exams, and the modules that earlier stages trained."""

    def __init__(
        self,
        config: Configuration,
        domains: Mapping[str, DomainData],
        folder: RunFolder,
        ranks: Ranks,
        facts: dict[str, Any],
        start: Bundle | None,
    ) -> None:
        self.config, self.domains, self.folder, self.ranks = config, domains, folder, ranks
        self.facts, self.start = facts, start
        self.stages = {stage.name: stage for stage in stages(config)}
        self._sources: dict[str, Source] = {}

    def train(self, stage: Stage) -> None:
        model = build_model(stage, self.config, self._specs(stage), self._trained)
        validate = None
        if isinstance(stage, NetworkStage):
            self._set_initial_weights(stage, model)
            if stage.result:
                validate = validation(self.domains, stage.domains, self.config, self.ranks)
        sources = {name: self._source(name) for name in stage.domains}
        folder = self.folder.stage(stage)
        Trainer(stage, self.config, model, sources, folder, self.ranks, self.facts, validate).run()

    def _specs(self, stage: Stage) -> list[DomainSpec]:
        return [self.domains[name].spec for name in stage.domains]

    def _set_initial_weights(self, stage: NetworkStage, model: nn.Module) -> None:
        """From natural images, a finished model and an earlier stage, in that order; each replaces what it has."""
        if self.config.network.natural_images:
            load_natural_images(model.network, self.config.network.natural_images)
        if self.start:
            copy_weights(model.network, self.start.network())
        if stage.start:
            earlier = self.stages[stage.start]
            assert isinstance(earlier, NetworkStage)
            copy_weights(model.network, self.folder.network(earlier).network)

    def _trained(self, name: str) -> nn.Module:
        """The module of a finished auxiliary stage, in evaluation mode; BadInput where it is not good enough."""
        stage = self.stages[name]
        assert isinstance(stage, AuxiliaryStage)
        module = stage.build(self._specs(stage))
        state = self.folder.state(stage)
        module.load_state_dict(state.part("model") | state.part("average"))
        module.to(self.ranks.device).eval()
        with torch.no_grad():
            scores = stage.accept(module, self._unseen_batches(stage))
        if scores and self.ranks.first:
            print(f"{name}: " + ", ".join(f"{key} {value:.2f}" for key, value in scores.items()), file=sys.stderr)
        return module

    def _unseen_batches(self, stage: Stage) -> Iterator[Batches]:
        """Batches that the stage's training did not draw."""
        training = self.config.training
        first = stage.steps * training.micro_batches
        for draw in range(first, first + ACCEPTANCE_BATCHES):
            yield {name: self._source(name).batch(draw, training.batch) for name in stage.domains}

    def _source(self, name: str) -> Source:
        if name not in self._sources:
            domain, silent = self.domains[name], None if self.ranks.first else True  # None: a bar on a terminal only
            exams = len(domain.cases("train"))
            with tqdm(total=exams, desc=f"reading {name}", unit="exam", disable=silent) as bar:
                self._sources[name] = open_source(domain, self.config, self.ranks.device, lambda case: bar.update())
        return self._sources[name]


def _export(config: Configuration, folder: Path, ranks: Ranks) -> None:
    """Writes the run's models, also when a kill came between the last checkpoint and the end of this."""
    if not config.run.export:
        print(f"finished; next: pedboneseg export {folder}")
        return
    print("finished; writing the model and measuring it", file=sys.stderr)
    written = export_run(
        folder, device=str(ranks.device), synthetic=config.run.synthetic_reserve, jobs=max(1, config.run.workers)
    )
    print("\n".join(report(written)))


def _check_synthetic(config: Configuration) -> None:
    for name, domain in config.domains.items():
        if domain.synthetic and domain.joint not in JOINTS:
            raise BadInput(
                f"domain {name}: there are no synthetic exams of the joint {domain.joint!r}",
                f"set domains.{name}.synthetic = 0; it can be {', '.join(sorted(JOINTS))}",
            )


def _report_splits(domains: Mapping[str, DomainData]) -> None:
    for name, domain in domains.items():
        counts = {group: len(domain.cases(group)) for group in ("train", "validation", "selection", "reserved")}
        parts = [f"{count} {group}" for group, count in counts.items() if count] or ["synthetic exams alone"]
        print(f"{name}: {', '.join(parts)}", file=sys.stderr)
        for dataset in domain.datasets:
            for notice in dataset.notices:
                print(f"{dataset.folder.name}: {notice}", file=sys.stderr)
