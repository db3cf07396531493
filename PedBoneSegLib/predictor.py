"""A volume goes in, labels on its own voxels come out: batch of slices → network → the volume's pixels → labels.

The network's output is never held for more than a batch. The order of work and every choice depend on the volume,
the model and the device alone, so that the same input gives the same labels again.
"""

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from .anatomy import JointTable
from .bundle import Bundle
from .errors import BadInput, Cancelled, OutOfMemory, Undecided
from .manifest import DomainCard, Manifest
from .network.segmenter import Segmenter
from .postprocess import clean
from .review import NOT_LOOKED_AT, calibrate, calibration_of, count_levels, raw_doubt, review
from .signature import Moments, Reference, ranking, spread_slices, verdict
from .slices import SliceSettings, SliceStack, linear_matrix
from .volume import Grid, Notice, Volume

BATCH_PIXELS = {"cpu": 4 << 16, "mps": 8 << 16, "cuda": 32 << 16}  # 4, 8, 32 slices of 256 × 256


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
        voxels = np.bincount(self.labels.ravel(order="K"), minlength=len(self.table.bones) + 1)
        found = self.detection or {}
        document = {
            "output": None if output is None else str(output),
            "joint": self.table.joint,
            "domain": self.domain,
            "side": self.side,
            "device": self.device,
            "precision": self.precision,
            "seconds": round(self.seconds, 3),
            "bones": {
                bone.name: {"label": bone.label, "volume_ml": round(int(voxels[bone.label]) * self.grid.voxel_ml, 4)}
                for bone in self.table.bones
            },
            "detected_joint": found.get("joint"),
            "verdict": found.get("verdict"),
            "in_distribution": found.get("in_distribution"),
            "score": found.get("scores", {}).get(self.domain),
            "scores": found.get("scores", {}),
            "warnings": [{"code": notice.code, "message": notice.message} for notice in self.warnings],
        }
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
        progress: Callable[[float, str], None] = lambda fraction, stage: None,
        cancelled: Callable[[], bool] = lambda: False,
        probabilities: Callable[[int], np.ndarray] | None = None,
        uncertainty: np.ndarray | None = None,
        detected: Callable[[dict], None] = lambda found: None,
    ) -> Segmentation:
        """`joint` names a joint, a domain, or is "auto"; `side` ("left", "right") overrides what the volume tells.

        `probabilities`, given the number of bones, makes an array of zeros (uint8 [bones, i, j, k], maybe on disk)
        that is filled with 255 × the probability of each bone, before post-processing. `uncertainty` (uint8 [i, j, k])
        is filled with 254 × the probability that the final label is wrong, 255 where the network did not look.
        `detected` hears the `detect` object before the work begins, where the model has signatures. Raises Cancelled
        soon after `cancelled()` is true, and Undecided where "auto" has no clear answer.
        """
        started = time.perf_counter()
        cards = candidates(self.bundle.manifest, joint)
        progress(0.0, "preparing")
        stacks, notices = Stacks(volume), []
        found = None
        if any(self.reference(card) for card in cards):
            found = self.detect(volume, stacks, notices, cancelled)
            detected(found)
            if joint == "auto" and found["verdict"] != "joint":
                raise _undecided(volume, found, self.bundle.manifest)
        card = min(cards, key=lambda card: found["scores"].get(card.name, math.inf)) if found else cards[0]
        stack = stacks(card)
        warnings = [*volume.warnings, *_notices(volume, stack), *_doubts(found, card), *notices]
        labels = np.zeros(volume.array.shape, np.uint8, order="F")
        calibrated = card.name in (self.bundle.manifest.review or {})
        doubt = uncertainty
        if doubt is None and calibrated:
            doubt = np.empty(volume.array.shape, np.uint8, order="F")
        if doubt is not None:
            doubt[...] = NOT_LOOKED_AT
        chances = probabilities(len(card.table.bones)) if probabilities else None
        place = Placing(stack, labels, chances, doubt)
        with Pass(self, card, stack, place, warnings, stack.occupied) as run:
            for fraction in run:
                if cancelled():
                    raise Cancelled()
                progress(0.05 + 0.85 * fraction, "segmenting")
        progress(0.9, "cleaning up")
        first = labels.copy(order="F") if doubt is not None else None
        warnings += clean(labels, volume.grid.spacing, card.table.names, cancelled)
        order = None
        if doubt is not None:
            changed = np.not_equal(labels, first, out=first.view(bool))
            calibration = calibration_of(self.bundle.manifest.review, card.name)
            if calibrated:
                order = review(stack, count_levels(stack, doubt, labels, changed), calibration)
            if uncertainty is not None:
                calibrate(stack, doubt, labels, changed, calibration)
        return Segmentation(
            labels=labels,
            grid=volume.grid,
            domain=card.name,
            table=card.table,
            side=side or volume.side,
            device=str(run.device),
            precision=run.precision_name,
            seconds=time.perf_counter() - started,
            warnings=warnings,
            detection=found if found and card.name in found["scores"] else None,
            review=order,
        )

    def detect(
        self,
        volume: Volume,
        stacks: "Stacks | None" = None,
        warnings: list[Notice] | None = None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> dict:
        """The `detect` object: the volume under every domain's normalization against the domain's reference exams. All
        null where the model has no signatures. What the user should know of the memory goes to `warnings`."""
        stacks, warnings, scores = stacks or Stacks(volume), [] if warnings is None else warnings, {}
        for card in self.bundle.manifest.domains:
            if reference := self.reference(card):
                moments = self.observe(stacks(card), card, reference.layers, warnings, cancelled)
                scores[card.name] = reference.score(moments)
        return verdict(scores, self.bundle.manifest.domains)

    def observe(
        self,
        stack: SliceStack,
        card: DomainCard,
        layers: Sequence[int],
        warnings: list[Notice] | None = None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> dict[int, Moments]:
        """The moments of the encoder's features at `layers`, over the slices that signatures look at."""
        moments = {}

        def place(indices: np.ndarray, features: list[Tensor]) -> None:
            for layer in layers:
                moments.setdefault(layer, Moments(features[layer].shape[1])).add(features[layer])

        indices = spread_slices(stack.occupied)
        if not len(indices):  # nothing with signal: features of nothing
            channels = self.network(card.name, self.device, self.precision(self.device)).encoder.channels
            return {layer: Moments(channels[layer]) for layer in layers}
        with Pass(self, card, stack, place, [] if warnings is None else warnings, indices, max(layers)) as run:
            for _ in run:
                if cancelled():
                    raise Cancelled()
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
        for name in faster_precisions(device):
            if name in allowed:
                return getattr(torch, name)
        return torch.float32


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
        joints = dict.fromkeys(card.joint for card in manifest.domains)
        raise BadInput(
            f"model {manifest.name} knows several joints and carries no signatures to tell them apart",
            f"say which it is: --joint {'|'.join(joints)}",
        )
    raise BadInput(
        f"model {manifest.name} has several domains for the joint {joint!r}",
        f"name one: --joint {'|'.join(card.name for card in cards)}",
    )


def choose_domain(manifest: Manifest, joint: str) -> DomainCard:
    """The one domain that `joint` names, for who has no image to ask: a domain's own name comes first."""
    cards = candidates(manifest, joint)
    named = [card for card in cards if card.name == joint]
    if len(cards) > 1 and not named:
        raise BadInput(
            f"model {manifest.name} has several domains for the joint {joint!r}",
            f"name one: --joint {'|'.join(card.name for card in cards)}",
        )
    return (named or cards)[0]


def choose_device(name: str) -> torch.device:
    """`auto` takes what is fastest of what works here; anything else must be there."""
    if name == "auto":
        for candidate in ("cuda", "mps"):
            if not _device_fault(candidate):
                return torch.device(candidate)
        return torch.device("cpu")
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (number and not (kind == "cuda" and number.isdecimal())):
        raise BadInput(f"there is no device {name!r}", "use auto, cpu, cuda, cuda:N or mps")
    if fault := _device_fault(name):
        raise BadInput(f"the device {name} cannot be used: {fault}", "use --device cpu, or auto")
    return torch.device(name)


def available_devices() -> list[str]:
    """All devices that work here, the fastest first."""
    cards = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    return [name for name in (*cards, "mps") if not _device_fault(name)] + ["cpu"]


def faster_precisions(device: torch.device) -> tuple[str, ...]:
    """Number formats below float32 with which the device itself calculates faster, the better first."""
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        return ("bfloat16", "float16") if capability >= (8, 0) else ("float16",) if capability >= (7, 0) else ()
    if device.type == "mps":
        return ("float16",)
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # without these bf16 is emulated, and slower
    return ("bfloat16",) if any(getattr(torch.cpu, probe, bool)() for probe in probes) else ()


def use_most_cores() -> None:
    """All cores but one, which is left to whoever looks at the screen; OMP_NUM_THREADS is respected."""
    if "OMP_NUM_THREADS" not in os.environ:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        torch.set_num_threads(max(1, cores - 1))


def on_own_pixels(logits: Tensor, stack: SliceStack) -> Tensor:
    """Network pixels [n, c, rows, columns] → the input's own pixels in the crop, [n, c, crop rows, crop columns].

    Linear between pixel centers, so that where the input is finer the borders of bones are smooth.
    """
    logits = logits[(..., *stack.window)]
    size = tuple(crop.stop - crop.start for crop in stack.crop)
    scales = [1.0 if abs(scale - 1) < 1e-6 else scale * (1 + 1e-6) for scale in stack.scale]  # torch rounds down
    if scales == [1.0, 1.0]:
        return logits[..., : size[0], : size[1]]
    if any(scale != 1 and int(n * scale) == n for n, scale in zip(logits.shape[-2:], scales, strict=True)):
        # torch's interpolation copies an axis whose length stays, whatever the scale
        rows, columns = (
            torch.from_numpy(linear_matrix(np.clip((np.arange(own) + 0.5) / scale - 0.5, 0, n - 1), 1, n)).to(logits)
            for own, n, scale in zip(size, logits.shape[-2:], stack.scale, strict=True)
        )
        return rows @ logits @ columns.T
    options = {"mode": "bilinear", "recompute_scale_factor": False}
    return functional.interpolate(logits.contiguous(), scale_factor=scales, **options)[..., : size[0], : size[1]]


class Stacks:
    """The volume's slices, made once for all domains with the same settings."""

    def __init__(self, volume: Volume):
        self._volume, self._made = volume, {}

    def __call__(self, card: DomainCard) -> SliceStack:
        settings = SliceSettings.from_dict(card.settings)
        if settings not in self._made:
            self._made[settings] = SliceStack(self._volume, settings)
        return self._made[settings]


class Placing:
    """Where a batch's results go."""

    def __init__(self, stack: SliceStack, labels, probabilities, uncertainty):
        self.stack, self.labels, self.probabilities, self.uncertainty = stack, labels, probabilities, uncertainty

    def __call__(self, indices: np.ndarray, logits: Tensor) -> None:
        logits = on_own_pixels(logits, self.stack)
        if self.probabilities is None and self.uncertainty is None:
            best = logits.max(dim=1).indices  # argmax alone is far slower than max on a CPU
        else:
            chances = logits.softmax(dim=1)
            highest, best = chances.max(dim=1)
            if self.uncertainty is not None:
                self._put(raw_doubt(highest), indices, self.uncertainty)
            if self.probabilities is not None:
                for bone, target in enumerate(self.probabilities, start=1):
                    self._put((chances[:, bone] * 255).round(), indices, target)
        self._put(best, indices, self.labels)

    def _put(self, values: Tensor, indices: np.ndarray, target: np.ndarray) -> None:
        self.stack.place(values.to(torch.uint8).cpu().numpy(), indices, target)


class Pass:
    """Slices through the network, a batch at a step; each step yields the fraction that is done.

    `place` gets a batch's indices and its logits; with `level`, the encoder's features up to that level instead.

    Where memory is short the batch is halved, and what cannot be done even singly on the device goes to the CPU; both
    are said in `warnings`. What was done before stays.
    """

    def __init__(
        self, predictor: Predictor, card: DomainCard, stack: SliceStack, place: Callable, warnings: list,
        indices: np.ndarray, level: int | None = None,
    ):
        self.predictor, self.card, self.stack, self.place, self.warnings = predictor, card, stack, place, warnings
        self.indices, self.level = indices, level
        self._use(predictor.device)

    def __enter__(self) -> "Pass":
        return self

    def __exit__(self, kind, *_) -> None:
        if kind is not None and self.device.type == "cuda":
            torch.cuda.empty_cache()  # a request that failed leaves the device's memory to others

    @property
    def precision_name(self) -> str:
        return str(self.precision).removeprefix("torch.")

    def __iter__(self):
        done = 0
        while done < len(self.indices):
            indices = self.indices[done:done + self.batch]
            try:
                self.place(indices, self._results(indices))
            except (MemoryError, RuntimeError) as error:
                if not _is_out_of_memory(error):
                    raise
                fault = str(error)
            else:
                done += len(indices)
                yield done / len(self.indices)
                continue
            self._back_off(fault)  # outside the handler, where the failed batch's tensors are let go

    @torch.inference_mode()
    def _results(self, indices: np.ndarray) -> Tensor | list[Tensor]:
        network = self.predictor.network(self.card.name, self.device, self.precision)
        images = torch.from_numpy(self.stack.images(indices)).to(self.device, self.precision)
        return network(images).float() if self.level is None else network.encoder_features(images, self.level)

    def _use(self, device: torch.device) -> None:
        rows, columns = self.stack.shape
        self.device, self.precision = device, self.predictor.precision(device)
        self.batch = max(1, BATCH_PIXELS[device.type] // (rows * columns))

    def _back_off(self, fault: str) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if self.batch > 1:
            self.batch //= 2
            message = f"memory is short on {self.device}: going on with {self.batch} slices at a time"
        elif self.device.type != "cpu":
            message = f"memory is too short on {self.device}: going on with the CPU, which is slower"
            self._use(torch.device("cpu"))
        else:
            rows, columns = self.stack.shape
            raise OutOfMemory(
                f"memory is too short for a single slice of {rows} × {columns} pixels ({fault[:200]})",
                "close other programs, or crop the volume",
            )
        self.warnings[:] = [notice for notice in self.warnings if notice.code != "memory"] + [Notice("memory", message)]


def _is_out_of_memory(error: Exception) -> bool:
    text = str(error).lower()
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(
        sign in text for sign in ("out of memory", "can't allocate memory", "not enough memory")
    )


def _device_fault(name: str) -> str:
    """Why a device cannot be used, in a few words; empty when it calculates."""
    if name == "cpu":
        return ""
    backend = torch.backends.mps if name == "mps" else torch.cuda
    if not backend.is_available():
        return "this PyTorch finds no such hardware"
    try:
        torch.ones(1, device=name).add_(1).item()
    except (RuntimeError, AssertionError) as error:
        return str(error).splitlines()[0][:200]
    return ""


def _notices(volume: Volume, stack: SliceStack) -> list[Notice]:
    notices = []
    if stack.non_finite and not any(notice.code == "non-finite" for notice in volume.warnings):
        message = f"{stack.non_finite} voxels are not finite (NaN or infinite) and were read as the darkest value"
        notices.append(Notice("non-finite", message))
    if stack.field_cut:
        message = f"the body is longer than {stack.settings.field_mm:g} mm; only its middle was looked at"
        notices.append(Notice("field-cut", message))
    if not len(stack.occupied):
        notices.append(Notice("no-signal", "the volume has no signal: there is nothing to segment"))
    return notices


def _doubts(found: Mapping | None, card: DomainCard) -> list[Notice]:
    """What the signatures have to say against the domain that is used."""
    if not found or card.name not in found["scores"]:
        return []
    if found["verdict"] == "unlike":
        return [Notice("unlike", f"the image is unlike anything that the model was made for ({ranking(found)})")]
    if found["verdict"] == "ambiguous":
        return [Notice("ambiguous", f"it is not clear which joint this is ({ranking(found)})")]
    if found["joint"] != card.joint:
        message = f"this looks like the {found['joint']}, it was segmented as the {card.joint} ({ranking(found)})"
        return [Notice("wrong-joint", message)]
    return []


def _undecided(volume: Volume, found: Mapping, manifest: Manifest) -> Undecided:
    said = "is unlike anything that the model was made for"
    if found["verdict"] == "ambiguous":
        said = "may be one joint or the other"
    joints = "|".join(dict.fromkeys(card.joint for card in manifest.domains))
    hint = f"to segment it all the same, say which joint it is: --joint {joints}"
    return Undecided(f"{volume.name}: the image {said} ({ranking(found)})", hint, found["verdict"], found["scores"])
