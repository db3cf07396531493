"""The data of a study: for each domain of the configuration its table of bones, its data sets and their splits."""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PedBoneSegLib.anatomy import JointTable, joint_table, known_joints
from PedBoneSegLib.errors import BadInput
from PedBoneSegLib.network.config import DomainSpec

from .dataset import Case, Dataset, LoadedCase, Split, fingerprint, load_case, read_dataset, split_cases

if TYPE_CHECKING:  # torch, which the configuration's extensions load, is not needed to look at data
    from ..configuration.sections import Configuration


@dataclass(frozen=True)
class DomainData:
    name: str
    table: JointTable
    datasets: tuple[Dataset, ...]
    splits: tuple[Split, ...]

    @property
    def spec(self) -> DomainSpec:
        return DomainSpec(self.name, self.table.joint, self.table.names)

    def cases(self, group: str) -> list[tuple[Dataset, Case]]:
        """Those of "train", "validation", "selection" or "reserved", over all data sets."""
        return [
            (dataset, dataset.case(name))
            for dataset, split in zip(self.datasets, self.splits, strict=True)
            for name in getattr(split, group)
        ]

    def loaded(self, group: str, done: Callable[[str], None] = lambda name: None) -> Iterator[LoadedCase]:
        for dataset, case in self.cases(group):
            yield load_case(dataset, case)
            done(case.name)


def open_domains(config: "Configuration") -> dict[str, DomainData]:
    """Reads the descriptions of all data sets and splits their cases; no voxel is read."""
    domains = {name: _open_domain(name, config) for name in config.domains}
    folds = [len(dataset.folds) for domain in domains.values() for dataset in domain.datasets if dataset.folds]
    if folds and config.data.fold >= max(folds):
        raise BadInput(f"the data sets have up to {max(folds)} folds, none is {config.data.fold}", "set data.fold")
    return domains


def _open_domain(name: str, config: "Configuration") -> DomainData:
    domain = config.domains[name]
    table = read_table(domain.joint, domain.table)
    datasets = tuple(read_dataset(folder, domain.joint, name, table) for folder in domain.datasets)
    known = {case.name for dataset in datasets for case in dataset.cases}
    for case in set(domain.hold_out) - known:
        raise BadInput(f"domains.{name}.hold_out names {case!r}, which no data set has", "correct the name")
    splits = []
    for dataset in datasets:
        own = set(domain.hold_out) & {case.name for case in dataset.cases}
        split = split_cases(dataset, config.data, config.seed, own)
        if domain.synthetic == 1:  # trained on the fly alone: its data sets are only looked at
            split = Split((), tuple(sorted(split.train + split.validation)), split.selection, split.reserved)
        splits.append(split)
    return DomainData(name, table, datasets, tuple(splits))


def read_table(joint: str, path: str = "") -> JointTable:
    """The joint's table of bones: a CSV's, or the one that comes with the software."""
    if path:
        try:
            return JointTable.from_csv(Path(path).read_text(encoding="utf-8"), joint)
        except OSError as error:
            raise BadInput(f"the table {path} cannot be read: {error.strerror}", "check the path") from None
    if joint not in known_joints():
        raise BadInput(f"the joint {joint!r} has no table of bones", "give domains.NAME.table, a CSV of its bones")
    return joint_table(joint)


def describe(domains: dict[str, DomainData]) -> dict[str, list]:
    """Splits and SHA-256 of every file, as a run's folder keeps them: changed data have another description."""
    return json.loads(
        json.dumps(
            {
                name: [
                    {"folder": dataset.folder.name, "split": asdict(split), "files": fingerprint(dataset)}
                    for dataset, split in zip(domain.datasets, domain.splits, strict=True)
                ]
                for name, domain in domains.items()
            }
        )
    )
