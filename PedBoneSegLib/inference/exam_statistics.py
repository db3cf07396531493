"""The networks for one volume: those of the model, with the volume's own normalization statistics where a domain wants
them (see `network.exam`).

A domain's `exam_statistics` is the share of the exam's own statistics; 0 means that the domain's are used alone. The
statistics come from at most 8 evenly spaced slices of the body, the ones that the signatures look at, so they depend on
the volume and the model only. A volume with one slice of the body has too little to measure: its share is 0.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ..models.bundle import Bundle
from ..models.manifest import DomainCard
from ..network.exam import ExamEncoder
from ..network.fold import FoldedNetwork
from ..network.segmenter import Segmenter
from .passes import Networks, StacksByDomain, is_out_of_memory
from .signature import MOST_SLICES, spread_slices

# The statistics need all slices in one batch, so large slices must be fewer. This takes about 0.4 GB.
MOST_PIXELS = 16 << 16


class ModelNetworks(Networks, Protocol):
    """What is needed of the `Predictor`."""

    bundle: Bundle

    def segmenter(self, device: torch.device) -> Segmenter: ...


@dataclass(frozen=True)
class FirstSlices:
    """The slices that gave the statistics, the encoder's features of them, fine to coarse, and the encoder itself."""

    indices: np.ndarray
    features: list[Tensor]
    encoder: ExamEncoder


class ExamNetworks:
    """The networks of `model` for one volume; a `Pass` takes it in place of the predictor."""

    def __init__(self, model: ModelNetworks, stacks: StacksByDomain) -> None:
        self.model, self.stacks, self.device = model, stacks, model.device
        self._first: dict[str, FirstSlices] = {}
        self._folded: dict[tuple[str, str, torch.dtype], FoldedNetwork] = {}

    def own_statistics_share(self, card: DomainCard) -> float:
        """The share of the exam's own statistics in this volume's normalization."""
        return card.exam_statistics if len(self.stacks(card).occupied) > 1 else 0.0

    def observed(self, card: DomainCard) -> np.ndarray:
        """The slices that the signatures look at; if the exam's own statistics are used, they come from these slices
        too."""
        if self.own_statistics_share(card):
            return self.first_slices(card).indices
        return spread_slices(self.stacks(card).occupied)

    def precision(self, device: torch.device) -> torch.dtype:
        return self.model.precision(device)

    def network(self, domain: str, device: torch.device, precision: torch.dtype) -> FoldedNetwork:
        """The folded network of a domain for this volume."""
        card, folded = self.model.bundle.manifest.domain(domain), self.model.network(domain, device, precision)
        if not self.own_statistics_share(card):
            return folded
        key = (domain, str(device), precision)
        if key not in self._folded:
            self._folded[key] = self.first_slices(card).encoder.fold(folded)
        return self._folded[key]

    def first_slices(self, card: DomainCard) -> FirstSlices:
        """Runs the slices that the statistics are taken from through the encoder, at the first call. Only for a domain
        whose share is above 0."""
        if card.name not in self._first:
            self._first[card.name] = self._run(card)
        return self._first[card.name]

    def _run(self, card: DomainCard) -> FirstSlices:
        stack = self.stacks(card)
        rows, columns = stack.shape
        indices = spread_slices(stack.occupied, max(2, min(MOST_SLICES, MOST_PIXELS // (rows * columns))))
        images = torch.from_numpy(stack.images(indices))
        # Apple's devices lack the operation that takes the statistics.
        device = self.device if self.device.type == "cuda" else torch.device("cpu")
        try:
            encoder = ExamEncoder(self.model.segmenter(device), card.name, card.exam_statistics)
            features = encoder.features(images.to(device))
        except RuntimeError as error:
            if device.type == "cpu" or not is_out_of_memory(error):
                raise
            encoder = ExamEncoder(self.model.segmenter(torch.device("cpu")), card.name, card.exam_statistics)
            features = encoder.features(images)
        return FirstSlices(indices, features, encoder)
