"""A model in the making: the network, what the model will say of itself, and the exams that may be looked at."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from PedBoneSegLib.models.bundle import Bundle
from PedBoneSegLib.models.manifest import Manifest
from PedBoneSegLib.network.segmenter import Segmenter

from ..data.dataset import LoadedCase

AGREEMENT = 0.999  # smallest Dice with the trained network's labels at which a storage or number format is accepted

Loader = Callable[[], LoadedCase]


@dataclass(frozen=True)
class Exams:
    """A domain's exams, each as a function that loads it. Only `reserved` were kept from every choice of the training;
    `validation` were used for validation, `train` for training."""

    train: tuple[Loader, ...] = ()
    validation: tuple[Loader, ...] = ()
    reserved: tuple[Loader, ...] = ()

    @property
    def proof(self) -> Loader | None:
        """One exam to compare labels on; whether training used it does not matter there."""
        return next(iter((*self.train, *self.validation, *self.reserved)), None)


@dataclass(frozen=True)
class Draft:
    """`tensors` go into the file beside the network's (`signatures.<domain>`). `only`: the domains that this export may
    measure; the others' cards stay as they are (a model that was only adapted). `agreement`: the Dice of a bone's
    labels with the trained network's below which a number format or a storage is not claimed."""

    network: Segmenter
    manifest: Manifest
    exams: Mapping[str, Exams]
    device: str = "cpu"
    tensors: Mapping[str, Tensor | np.ndarray] = field(default_factory=dict)
    only: tuple[str, ...] = ()
    agreement: float = AGREEMENT

    @property
    def measured(self) -> tuple[str, ...]:
        return self.only or tuple(card.name for card in self.manifest.domains)

    def with_card(self, name: str, **changes) -> "Draft":
        """The draft with some fields of one domain's card changed."""
        cards = tuple(replace(card, **changes) if card.name == name else card for card in self.manifest.domains)
        return replace(self, manifest=replace(self.manifest, domains=cards))

    def all_tensors(self) -> dict[str, Tensor | np.ndarray]:
        return {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()} | dict(self.tensors)

    def bundle(self) -> Bundle:
        """The model in memory as it would be read from its file."""
        arrays = {name: np.asarray(torch.as_tensor(tensor).cpu()) for name, tensor in self.all_tensors().items()}
        if self.manifest.storage == "float16":
            arrays = {
                name: array.astype(np.float16).astype(np.float32) if array.ndim == 4 else array
                for name, array in arrays.items()
            }
        return Bundle(Path(self.manifest.name), self.manifest, arrays)
