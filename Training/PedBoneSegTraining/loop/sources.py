"""Opens what a domain's training samples come from: exams on disk, exams drawn on the fly, or both."""

from collections.abc import Callable
from pathlib import Path

import torch

from PedBoneSegLib.errors import BadInput

from ..configuration.sections import Configuration
from ..data.bank import Bank
from ..data.domains import DomainData
from ..data.source import DatasetSource, MixedSource, Source
from ..synthesis.anatomy.sources import Parametric, shape_source
from ..synthesis.source import SyntheticSource


def open_source(domain: DomainData, config: Configuration, device: torch.device, done: Callable[[str], None]) -> Source:
    """The domain's source of training samples, its exams read into a bank on `device`."""
    share = config.domains[domain.name].synthetic
    parts: list[tuple[float, Source]] = []
    if share < 1:
        bank = Bank(domain.loaded("train", done), config.slices, device)
        if not bank.cases:
            raise BadInput(f"domain {domain.name}: no training exam shows anything", "see check-data")
        data = config.data
        parts.append(
            (1 - share, DatasetSource(domain.name, bank, config.augmentation, data.patch, data.foreground, config.seed))
        )
    if share > 0:
        joint = domain.table.joint
        shapes = (shape_source(Path(path), joint) for path in config.domains[domain.name].shapes)
        parts.append(
            (
                share,
                SyntheticSource(
                    domain.name,
                    joint,
                    config.slices,
                    config.seed,
                    device,
                    size=config.data.patch,
                    sources=(Parametric(), *shapes),
                    augmentation=config.augmentation,
                    workers=config.run.workers,
                ),
            )
        )
    return parts[0][1] if len(parts) == 1 else MixedSource(parts)
