"""A volume goes in, labels on its own voxels come out: batch of slices → network → the volume's pixels → labels.

The network's output is never kept for more than one batch. The order of the work and all choices depend only on the
volume, the model and the device, so the same input always gives the same labels.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..models.bundle import Bundle
from ..models.manifest import DomainCard, Manifest
from ..network.fold import FoldedNetwork
from ..network.segmenter import Segmenter
from ..progress import Progress, no_progress
from ..volume import Notice, Volume
from .detection import candidates, decide, undecided
from .devices import choose_device, faster_precisions
from .exam_statistics import ExamNetworks
from .notices import detection_notices, image_notices
from .passes import Pass, VolumeWriter, stacks_by_domain
from .postprocess import clean
from .result import NOT_LOOKED_AT, Detection, SegmentationResult
from .review import review_and_calibrate
from .signature import Moments, Reference, spread_slices
from .slices import SliceStack


class Predictor:
    """A model on a device. The folded network of a domain is made when it is first needed and kept.

    `device`: auto, cpu, cuda, cuda:N or mps.
    """

    def __init__(self, bundle: Bundle, device: str = "auto") -> None:
        self.bundle = bundle
        self.device = choose_device(device)
        self._networks: dict[tuple[str, str, torch.dtype], FoldedNetwork] = {}
        self._references: dict[str, Reference | None] = {}
        self._segmenters: dict[str, Segmenter] = {}

    @classmethod
    def for_network(cls, segmenter: Segmenter, cards: tuple[DomainCard, ...], device: str = "auto") -> "Predictor":
        """For a network in training: a copy of it as it is now, in float32."""
        manifest = Manifest("in-training", "0", "", {}, segmenter.config, tuple(cards))
        state = {f"network.{name}": tensor.detach().cpu().numpy() for name, tensor in segmenter.state_dict().items()}
        return cls(Bundle(Path("in-training"), manifest, state), device)

    def segment(
        self,
        volume: Volume,
        joint: str,
        side: str | None = None,
        *,
        progress: Progress = no_progress,
        on_detection: Callable[[Detection], None] = lambda detection: None,
        new_probabilities: Callable[[int], np.ndarray] | None = None,
        uncertainty: np.ndarray | None = None,
    ) -> SegmentationResult:
        """`joint` names a joint, a domain, or is "auto"; `side` ("left", "right") overrides what the volume says.

        `new_probabilities` is called with the number of bones and returns an array of zeros (uint8 [bones, i, j, k],
        possibly on disk); it is filled with 255 × the probability of each bone, before the clean-up. `uncertainty`
        (uint8 [i, j, k]) is filled with 254 × the probability that the final label is wrong, 255 where the network did
        not look. `on_detection` is called before the segmentation starts, if the model has signatures.

        Raises Undecided if "auto" has no clear answer.
        """
        started = time.perf_counter()
        check = partial(progress, 0.0, "preparing")
        check()
        stacks, memory_notices = stacks_by_domain(volume), list[Notice]()
        networks = ExamNetworks(self, stacks)

        def detect(moments: Mapping[str, Mapping[int, Moments]]) -> Detection:
            detection = self.detect(volume, networks, memory_notices, check, moments)
            on_detection(detection)
            if joint == "auto" and detection.verdict != "joint":
                raise undecided(volume.name, detection, self.bundle.manifest)
            return detection

        detection: Detection | None = None
        card, *others = candidates(self.bundle.manifest, joint)
        if others:
            scores = (detection := detect({})).scores
            card = min((card, *others), key=lambda domain: scores.get(domain.name, math.inf))
        stack = stacks(card)

        labels = np.zeros(volume.array.shape, np.uint8, order="F")
        has_review = card.name in (self.bundle.manifest.review or {})
        doubt = np.empty_like(labels) if uncertainty is None and has_review else uncertainty
        if doubt is not None:
            doubt[...] = NOT_LOOKED_AT
        probabilities = new_probabilities(len(card.table.bones)) if new_probabilities else None
        write = VolumeWriter(stack, labels, probabilities, doubt)

        remaining = stack.occupied
        if detection is None and any(self.reference(domain) for domain in self.bundle.manifest.domains):
            moments = {}
            if reference := self.reference(card):  # one run over these slices serves the detection and the labels
                moments[card.name] = self.observe(stack, card, reference.layers, memory_notices, check, write, networks)
                remaining = np.setdiff1d(remaining, networks.observed(card))
            detection = detect(moments)
        with Pass(networks, card, stack, write, memory_notices, remaining) as batches:
            for fraction in batches:
                progress(0.05 + 0.85 * fraction, "segmenting")

        before = labels.copy(order="F") if doubt is not None else None
        warnings = [*volume.warnings, *image_notices(volume, stack), *detection_notices(detection, card)]
        warnings += memory_notices
        warnings += clean(labels, volume.grid.spacing, card.table.names, partial(progress, 0.9, "cleaning up"))
        review = None
        if doubt is not None and before is not None:
            changed = np.not_equal(labels, before, out=before.view(bool))
            review = review_and_calibrate(
                stack,
                doubt,
                labels,
                changed,
                self.bundle.manifest.review,
                card.name,
                calibrated=uncertainty is not None,
            )
        return SegmentationResult(
            labels, volume.grid, card.name, card.table, side or volume.side, str(batches.device),
            str(batches.precision).removeprefix("torch."), time.perf_counter() - started, warnings,
            detection if detection and card.name in detection.scores else None, review, uncertainty, probabilities,
            networks.own_statistics_share(card),
        )  # fmt: skip

    def detect(
        self,
        volume: Volume,
        networks: ExamNetworks | None = None,
        notices: list[Notice] | None = None,
        check: Callable[[], None] = lambda: None,
        observed: Mapping[str, Mapping[int, Moments]] | None = None,
    ) -> Detection:
        """Compares the volume, under the normalization of each domain, with the domain's reference exams. The verdict
        is None if the model has no signatures.

        Notices about the memory are appended to `notices`. `observed` are moments, by domain, that are known already.
        `check` is called now and then and may raise Cancelled.
        """
        networks, scores, observed = networks or ExamNetworks(self, stacks_by_domain(volume)), {}, observed or {}
        for card in self.bundle.manifest.domains:
            if reference := self.reference(card):
                moments = observed.get(card.name)
                if moments is None:
                    stack = networks.stacks(card)
                    moments = self.observe(stack, card, reference.layers, notices, check, networks=networks)
                scores[card.name] = reference.score(moments)
        return decide(scores, self.bundle.manifest.domains)

    def observe(
        self,
        stack: SliceStack,
        card: DomainCard,
        layers: Sequence[int],
        notices: list[Notice] | None = None,
        check: Callable[[], None] = lambda: None,
        write: Callable[[np.ndarray, Tensor], None] | None = None,
        networks: ExamNetworks | None = None,
    ) -> dict[int, Moments]:
        """The moments of the encoder's features at `layers`, over the slices that signatures look at. `write` is called
        with the logits of these slices too. `networks` are those of the volume, if there are some already."""
        networks = networks or ExamNetworks(self, lambda _: stack)
        precision = self.precision(self.device)
        channels = self.network(card.name, self.device, precision).encoder.channels
        moments = {layer: Moments(channels[layer]) for layer in layers}

        def add(indices: np.ndarray, features: list[Tensor], network: FoldedNetwork) -> None:
            if write:
                write(indices, network.decode(features, stack.shape).float())
            for layer in layers:
                moments[layer].add(features[layer])

        if networks.own_statistics_share(card):  # these slices have passed through the encoder already
            first, network = networks.first_slices(card), networks.network(card.name, self.device, precision)
            add(first.indices, [features.to(self.device, precision) for features in first.features], network)
            check()
            return moments

        def add_batch(indices: np.ndarray, features: list[Tensor]) -> None:
            add(indices, features, batches.network)

        level = len(channels) - 1 if write else max(layers)
        notices = [] if notices is None else notices
        with Pass(networks, card, stack, add_batch, notices, spread_slices(stack.occupied), level) as batches:
            for _ in batches:
                check()
        return moments

    def reference(self, card: DomainCard) -> Reference | None:
        """What the domain's score is measured against; None if it has too few exams for a verdict."""
        if card.name not in self._references:
            self._references[card.name] = Reference.of(self.bundle, card)
        return self._references[card.name]

    def network(self, domain: str, device: torch.device, precision: torch.dtype) -> FoldedNetwork:
        """The folded network of a domain: images → logits, temperature included."""
        key = (domain, str(device), precision)
        if key not in self._networks:
            network = self.bundle.folded(domain).to(device=device, dtype=precision)
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's annotations lack it
            self._networks[key] = network
        return self._networks[key]

    def segmenter(self, device: torch.device) -> Segmenter:
        """The network that is not folded, in float32."""
        if str(device) not in self._segmenters:
            self._segmenters[str(device)] = self.bundle.network().to(device)
        return self._segmenters[str(device)]

    def precision(self, device: torch.device) -> torch.dtype:
        """The fastest number format of the device that export validated for this model."""
        allowed = self.bundle.manifest.precisions
        return next((getattr(torch, name) for name in faster_precisions(device) if name in allowed), torch.float32)
