"""A run's folder: what it is a run of, how far it came, and the networks that it made.

configuration.json   as resolved, paths included
data.json            splits, and the SHA-256 of every file
run.json             versions, and the model that it started from
<stage>/checkpoints, selected, log.jsonl, pictures, tensorboard
"""

import hashlib
import json
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy
import safetensors
import torch

import PedBoneSegLib
from PedBoneSegLib.errors import BadInput
from PedBoneSegLib.files import read_text, sweep_partials, whole_file
from PedBoneSegLib.network.config import DomainSpec
from PedBoneSegLib.network.segmenter import Segmenter

from ..configuration import Configuration, changes, flat, from_dict
from ..configuration.extensions import Stage
from ..data.domains import read_table
from . import checkpoint
from .networks import network_of
from .stages import NetworkStage, stages

STEPS = "training.steps"


@dataclass(frozen=True)
class Result:
    """One of a run's networks, with the weights that are to be used: averaged where the run averages, selected where it
    selects, else those of the final step."""

    stage: NetworkStage
    network: Segmenter
    step: int
    selected: bool


class RunFolder:
    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @classmethod
    def open(cls, path: str | Path) -> "RunFolder":
        """An existing run, to read."""
        if not (Path(path) / "configuration.json").exists():
            raise BadInput(f"{path} is not a run's folder", "name the folder that `pedboneseg train -o` wrote")
        return cls(path)

    @property
    def config(self) -> Configuration:
        return from_dict(self._read("configuration.json"), str(self.path))

    @property
    def data(self) -> dict:
        """Per domain its data sets with `folder`, `split` and `files`."""
        return self._read("data.json")

    @property
    def about(self) -> dict:
        return self._read("run.json")

    def enter(self, config: Configuration, data: dict, start: dict | None) -> dict:
        """Begins the run or goes on with it; returns the facts that its checkpoints must share.

        The same folder goes with the same configuration, data and start, or BadInput says what differs. A finished run
        may be given more steps.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        sweep_partials(self.path)
        if (self.path / "configuration.json").exists():
            remedy = "take it back, or choose another folder with -o"
            old, new = self.config.identity(), config.identity()
            if new[STEPS] != old[STEPS]:
                if new[STEPS] < old[STEPS] or not self.finished:
                    state = "finished" if self.finished else "not finished"
                    raise BadInput(
                        f"{self.path} is a run of {old[STEPS]} steps that is {state}, now {new[STEPS]} are asked for",
                        "only a finished run may be given more steps",
                    )
                old[STEPS] = new[STEPS]
            if differs := changes(old, new):
                raise BadInput(f"{self.path} is a run of another configuration: {'; '.join(differs[:3])}", remedy)
            if differs := changes(_by_folder(self.data), _by_folder(data)):
                names = "; ".join(line.partition(" was ")[0] for line in differs[:3])
                raise BadInput(f"{self.path} is a run on other data: {names} changed", remedy)
            if self.about["start"] != start:
                raise BadInput(f"{self.path} is a run that starts from {self.about['start']}, not {start}", remedy)
        self._write("data.json", data)
        self._write("run.json", {"start": start, "versions": versions()})
        self._write("configuration.json", config.to_dict())
        identity = {key: value for key, value in config.identity().items() if key != STEPS}
        return {"configuration": _hash(identity), "data": _hash(data), "start": _hash(start)}

    def stage(self, stage: Stage) -> Path:
        return self.path / stage.name

    @property
    def finished(self) -> bool:
        return all(self.is_done(stage) for stage in stages(self.config))

    def is_done(self, stage: Stage) -> bool:
        """Whether nothing is left to do. What others start from is not trained further when the run is given more
        steps."""
        found = checkpoint.newest(self.stage(stage) / "checkpoints", lambda text: None)
        further = isinstance(stage, NetworkStage) and stage.result
        return bool(found and found.facts["finished"] and (not further or found.facts["step"] >= stage.steps))

    def specs(self, stage: Stage) -> tuple[DomainSpec, ...]:
        config = self.config
        tables = {name: read_table(config.domains[name].joint, config.domains[name].table) for name in stage.domains}
        return tuple(DomainSpec(name, table.joint, table.names) for name, table in tables.items())

    def state(self, stage: Stage) -> checkpoint.Checkpoint:
        """The stage's last checkpoint; BadInput where it has not come to its end."""
        found = checkpoint.newest(self.stage(stage) / "checkpoints", print)
        if found is None or not found.facts["finished"]:
            raise BadInput(f"{self.path}: {stage.name} is not finished", "give the same train command again")
        return found

    def network(self, stage: NetworkStage) -> Result:
        """The stage's network on the CPU, in evaluation mode."""
        found, config = self.state(stage), self.config
        network = network_of(stage, config, self.specs(stage))
        step, best = found.facts["step"], found.facts["best"]
        if best:
            step = best["step"]
            tensors = checkpoint.load(self.stage(stage) / "selected" / best["file"]).tensors
        else:
            tensors = found.part("average") or found.part("model.network")
        network.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
        return Result(stage, network.eval(), step, bool(best))

    def results(self) -> Iterator[Result]:
        """The networks that the run is for: one, or one a domain."""
        for stage in stages(self.config):
            if isinstance(stage, NetworkStage) and stage.result:
                yield self.network(stage)

    def _read(self, name: str) -> dict:
        try:
            return json.loads(read_text(self.path / name))
        except (OSError, ValueError, RecursionError) as error:
            raise BadInput(f"{self.path / name} cannot be read: {error}", "the run's folder is damaged") from None

    def _write(self, name: str, content: dict) -> None:
        with whole_file(self.path / name) as temporary:
            temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def versions() -> dict[str, str]:
    return {
        "pedboneseg": PedBoneSegLib.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "safetensors": safetensors.__version__,
        "system": platform.platform(),
        "threads": str(torch.get_num_threads()),
    }


def _by_folder(data: dict) -> dict:
    """Flat, with lists of data sets keyed by folder."""
    return flat({name: {dataset["folder"]: dataset for dataset in datasets} for name, datasets in data.items()})


def _hash(content) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
