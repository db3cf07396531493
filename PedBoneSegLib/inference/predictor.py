"""A volume goes in, labels on its own voxels come out: batch of slices → network → the volume's pixels → labels.

The network's output is never held for more than a batch. The order of work and every choice depend on the volume,
the model and the device alone, so that the same input gives the same labels again.
"""

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..anatomy import JointTable
from ..errors import BadInput, Undecided
from ..models.bundle import Bundle
from ..models.manifest import DomainCard, Manifest
from ..network.segmenter import Segmenter
from ..progress import Progress, no_progress
from ..volume import Grid, Notice, Volume
from .devices import choose_device, faster_precisions
from .passes import Pass, Placing, Stacks, stacks_of
from .postprocess import clean
from .review import NOT_LOOKED_AT, bone_areas, calibrate, calibration_of, count_levels, review
from .signature import Moments, Reference, ranking, spread_slices, verdict
from .slices import SliceStack

AIR_HU, AIR_SHARE = -500, 0.02  # a CT is known by the air around the body, at −1000; MR's magnitudes are not negative
SAID = {
    "unlike": "the image is unlike anything that the model was made for",
    "ambiguous": "the image may be of one joint or another",
}


@dataclass
class Segmentation:
    """The result on the volume's own grid. `labels` is uint8 [i, j, k]: 0 background, else the table's labels."""

    labels: np.ndarray
    grid: Grid
    domain: str
    table: JointTable
    side: str | None
    device: str
    precision: str
    seconds: float
    warnings: list[Notice] = field(default_factory=list)
    detection: dict | None = None  # joint, verdict, in_distribution, score, scores: the `detect` object
    review: dict | None = None  # axis, slices

    def to_json(self, output: str | os.PathLike | None) -> dict:
        """The `segment` object; `output` is where the labels were written."""
        found, ml = self.detection or {}, self.grid.voxel_ml
        volumes = {label: np.count_nonzero(self.labels == label) * ml for label in self.table.labels.values()}
        document = {
            "output": None if output is None else str(output), "joint": self.table.joint, "domain": self.domain,
            "side": self.side, "device": self.device, "precision": self.precision, "seconds": round(self.seconds, 3),
            "bones": {name: {"label": label, "volume_ml": round(volumes[label], 4)}
                      for name, label in self.table.labels.items()},
            "detected_joint": found.get("joint"), "verdict": found.get("verdict"),
            "in_distribution": found.get("in_distribution"),
            "score": found.get("scores", {}).get(self.domain), "scores": found.get("scores", {}),
            "warnings": [asdict(notice) for notice in self.warnings],
        }  # fmt: skip
        return document if self.review is None else {**document, "review": self.review}


class Predictor:
    """A model on a device, warm: a domain's folded network is made when it is first needed and kept.

    `device`: auto, cpu, cuda, cuda:N or mps.
    """

    def __init__(self, bundle: Bundle, device: str = "auto"):
        self.bundle = bundle
        self.device = choose_device(device)
        self._networks: dict[tuple, nn.Module] = {}
        self._references: dict[str, Reference | None] = {}

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
        detected: Callable[[dict], None] = lambda found: None,
        probabilities: Callable[[int], np.ndarray] | None = None,
        uncertainty: np.ndarray | None = None,
    ) -> Segmentation:
        """`joint` names a joint, a domain, or is "auto"; `side` ("left", "right") overrides what the volume tells.

        `probabilities`, given the number of bones, makes an array of zeros (uint8 [bones, i, j, k], maybe on disk)
        that is filled with 255 × the probability of each bone, before post-processing. `uncertainty` (uint8 [i, j, k])
        is filled with 254 × the probability that the final label is wrong, 255 where the network did not look.
        `detected` hears the `detect` object before the work begins, where the model has signatures. Raises Undecided
        where "auto" has no clear answer.
        """
        started = time.perf_counter()
        manifest, stacks, notices = self.bundle.manifest, stacks_of(volume), []
        cards = candidates(manifest, joint)
        check = partial(progress, 0.0, "preparing")
        check()

        def detect(known: dict) -> dict:
            found = self.detect(volume, stacks, notices, check, known)
            detected(found)
            if joint == "auto" and found["verdict"] != "joint":
                raise _undecided(volume, found, manifest)
            return found

        found = detect({}) if len(cards) > 1 else None
        card = min(cards, key=lambda card: found["scores"].get(card.name, math.inf)) if found else cards[0]
        stack, calibrated = stacks(card), card.name in (manifest.review or {})
        labels = np.zeros(volume.array.shape, np.uint8, order="F")
        doubt = np.empty_like(labels) if uncertainty is None and calibrated else uncertainty
        if doubt is not None:
            doubt[...] = NOT_LOOKED_AT
        place = Placing(stack, labels, probabilities(len(card.table.bones)) if probabilities else None, doubt)
        left = stack.occupied
        if found is None and any(self.reference(each) for each in manifest.domains):
            known = {}
            if reference := self.reference(card):  # these slices are looked at once for the verdict and the labels
                known[card.name] = self.observe(stack, card, reference.layers, notices, check, place)
                left = np.setdiff1d(left, spread_slices(left))
            found = detect(known)
        with Pass(self, card, stack, place, notices, left) as run:
            for fraction in run:
                progress(0.05 + 0.85 * fraction, "segmenting")
        warnings = [*volume.warnings, *_notices(volume, stack), *_doubts(found, card), *notices]
        first = labels.copy(order="F") if doubt is not None else None
        warnings += clean(labels, volume.grid.spacing, card.table.names, partial(progress, 0.9, "cleaning up"))
        order = None
        if doubt is not None:
            changed = np.not_equal(labels, first, out=first.view(bool))
            calibration = calibration_of(manifest.review, card.name)
            if calibrated:
                counts = count_levels(stack, doubt, labels, changed)
                order = review(stack, counts, bone_areas(stack, labels), calibration)
            if uncertainty is not None:
                calibrate(stack, doubt, labels, changed, calibration)
        return Segmentation(
            labels, volume.grid, card.name, card.table, side or volume.side, str(run.device),
            str(run.precision).removeprefix("torch."), time.perf_counter() - started, warnings,
            detection=found if found and card.name in found["scores"] else None, review=order,
        )  # fmt: skip

    def detect(
        self,
        volume: Volume,
        stacks: Stacks | None = None,
        warnings: list[Notice] | None = None,
        check: Callable[[], None] = lambda: None,
        known: Mapping[str, Mapping[int, Moments]] | None = None,
    ) -> dict:
        """The `detect` object: the volume under every domain's normalization against the domain's reference exams. All
        null where the model has no signatures. What the user should know of the memory goes to `warnings`; `known`
        are moments, by domain, that have been observed already; `check` is called now and then and may raise
        Cancelled."""
        stacks, scores, known = stacks or stacks_of(volume), {}, known or {}
        for card in self.bundle.manifest.domains:
            if reference := self.reference(card):
                moments = known.get(card.name)
                if moments is None:
                    moments = self.observe(stacks(card), card, reference.layers, warnings, check)
                scores[card.name] = reference.score(moments)
        return verdict(scores, self.bundle.manifest.domains)

    def observe(
        self,
        stack: SliceStack,
        card: DomainCard,
        layers: Sequence[int],
        warnings: list[Notice] | None = None,
        check: Callable[[], None] = lambda: None,
        place: Callable[[np.ndarray, Tensor], None] | None = None,
    ) -> dict[int, Moments]:
        """The moments of the encoder's features at `layers`, over the slices that signatures look at. `place` gets the
        logits of these slices too."""
        channels = self.network(card.name, self.device, self.precision(self.device)).encoder.channels
        moments = {layer: Moments(channels[layer]) for layer in layers}

        def take(indices: np.ndarray, features: list[Tensor]) -> None:
            if place:
                place(indices, run.network.decode(features, stack.shape).float())
            for layer in layers:
                moments[layer].add(features[layer])

        level = len(channels) - 1 if place else max(layers)
        warnings = [] if warnings is None else warnings
        with Pass(self, card, stack, take, warnings, spread_slices(stack.occupied), level) as run:
            for _ in run:
                check()
        return moments

    def reference(self, card: DomainCard) -> Reference | None:
        """What the domain's score is measured against; None where it has too few exams for a verdict."""
        if card.name not in self._references:
            self._references[card.name] = Reference.of(self.bundle, card)
        return self._references[card.name]

    def network(self, domain: str, device: torch.device, precision: torch.dtype) -> nn.Module:
        """The folded network of a domain: images → logits, temperature included."""
        key = (domain, str(device), precision)
        if key not in self._networks:
            network = self.bundle.folded(domain).to(device=device, dtype=precision)
            self._networks[key] = network.to(memory_format=torch.channels_last)
        return self._networks[key]

    def precision(self, device: torch.device) -> torch.dtype:
        """The cheapest number format that the device is faster with and that export validated for this model."""
        allowed = self.bundle.manifest.precisions
        return next((getattr(torch, name) for name in faster_precisions(device) if name in allowed), torch.float32)


def candidates(manifest: Manifest, joint: str) -> tuple[DomainCard, ...]:
    """The domains that an image called `joint` may go to, of which the best score decides; one where no score can.

    BadInput where several would do and there are no signatures to choose by.
    """
    cards = manifest.domains if joint == "auto" else manifest.domains_of(joint)
    if len(cards) == 1:
        return cards
    signed = tuple(card for card in cards if Reference.decides(card))
    named = tuple(card for card in cards if card.name == joint)
    if signed or named:
        return signed or named
    if joint == "auto":
        names, fault = dict.fromkeys(card.joint for card in manifest.domains), "knows several joints"
    else:
        names, fault = [card.name for card in cards], f"has several domains for the joint {joint!r}"
    fault = f"model {manifest.name} {fault} and carries no signatures to tell them apart"
    raise BadInput(fault, f"say which it is: --joint {'|'.join(names)}")


def _notices(volume: Volume, stack: SliceStack) -> list[Notice]:
    notices = []
    if foreign := _not_mr(volume):
        notices.append(Notice("not-mr", f"{foreign}; the model was made for MR, so the result means nothing"))
    if stack.non_finite and not any(notice.code == "non-finite" for notice in volume.warnings):
        message = f"{stack.non_finite} voxels are not finite (NaN or infinite) and were read as the darkest value"
        notices.append(Notice("non-finite", message))
    if stack.field_cut:
        message = f"the body is longer than {stack.settings.field_mm:g} mm; only its middle was looked at"
        notices.append(Notice("field-cut", message))
    if not len(stack.occupied):
        notices.append(Notice("no-signal", "the volume has no signal: there is nothing to segment"))
    return notices


def _not_mr(volume: Volume) -> str:
    """What tells that the image is no MR, in a few words; empty where nothing does. The signatures cannot be asked:
    a network that learns from contrasts drawn at random takes those of a CT for one more."""
    if volume.modality not in (None, "MR"):
        return f"the file says that it is of the modality {volume.modality}"
    air = np.count_nonzero(volume.array < AIR_HU) if volume.array.dtype.kind in "if" else 0
    return "many values lie far below zero, as a CT's do" if air > volume.array.size * AIR_SHARE else ""


def _doubts(found: Mapping | None, card: DomainCard) -> list[Notice]:
    """What the signatures have to say against the domain that is used."""
    if not found or card.name not in found["scores"]:
        return []
    if found["verdict"] in SAID:
        return [Notice(found["verdict"], f"{SAID[found['verdict']]} ({ranking(found)})")]
    if found["joint"] != card.joint:
        message = f"this looks like the {found['joint']}, it was segmented as the {card.joint} ({ranking(found)})"
        return [Notice("wrong-joint", message)]
    return []


def _undecided(volume: Volume, found: Mapping, manifest: Manifest) -> Undecided:
    joints = "|".join(dict.fromkeys(card.joint for card in manifest.domains))
    hint = f"to segment it all the same, say which joint it is: --joint {joints}"
    fault = f"{volume.name}: {SAID[found['verdict']]} ({ranking(found)})"
    return Undecided(fault, hint, found["verdict"], found["scores"])
