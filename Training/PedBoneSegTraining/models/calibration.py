"""Measures and fits how well the model's probabilities match its errors: measures of calibration, the temperature of a
domain, and the probability of error that the review goes by; all from exams that the training never used.

Measures are taken over the voxels in the foreground's box, dilated by BOX_MM: over whole volumes, air and distant
muscle would drown what matters. Predictions are those before post-processing, on the exam's own voxels, where the
network looked. Exams in which a bone is unlabeled are left out: nobody knows what is right in them.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from PedBoneSegLib.inference.exam_statistics import ExamNetworks
from PedBoneSegLib.inference.passes import Pass, VolumeWriter, on_own_pixels
from PedBoneSegLib.inference.postprocess import clean
from PedBoneSegLib.inference.predictor import Predictor
from PedBoneSegLib.inference.review import LEVELS, NOT_LOOKED_AT, Calibration, count_levels, uncalibrated_error
from PedBoneSegLib.inference.slices import SliceSettings, SliceStack
from PedBoneSegLib.models.manifest import DomainCard

from ..data.dataset import LoadedCase

BOX_MM = 10.0
BINS = 15  # of confidence, equally wide
MIN_EXAMS = 8  # exams below which nothing is fitted
MAX_EXAMS = 24  # exams that are segmented for it; more hardly change the result
SAMPLE = 20_000  # voxels of an exam that the temperature is fitted on
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.2, 10.0
PRIOR = 10.0  # pseudo-count for each level: as many voxels with the network's own error rate are added


@dataclass
class Reliability:
    """Sums over voxels, of which the measures are made; `+` joins two. Each bin holds (i/BINS, (i+1)/BINS] of the
    chosen label's probability."""

    voxels: np.ndarray = field(default_factory=lambda: np.zeros(BINS, np.int64))
    confidence: np.ndarray = field(default_factory=lambda: np.zeros(BINS))  # sum of the chosen label's probability
    right: np.ndarray = field(default_factory=lambda: np.zeros(BINS, np.int64))
    squares: float = 0.0  # sum over voxels and classes of (probability − truth)²
    logs: float = 0.0  # sum of −log of the true label's probability

    def add(self, logits: Tensor, truth: Tensor) -> None:
        """`logits` [n, classes] as the folded head gives them, temperature included; `truth` int64 [n]."""
        log_chances = logits.double().log_softmax(1)
        chances = log_chances.exp()
        highest, chosen = chances.max(1)
        bins = (highest * BINS).ceil().long().clamp(1, BINS) - 1
        self.voxels += torch.bincount(bins, minlength=BINS).cpu().numpy()
        self.confidence += torch.bincount(bins, highest, BINS).cpu().numpy()
        self.right += torch.bincount(bins[chosen == truth], minlength=BINS).cpu().numpy()
        true = chances.gather(1, truth[:, None])[:, 0]
        self.squares += float(((chances**2).sum(1) - 2 * true + 1).sum())
        self.logs -= float(log_chances.gather(1, truth[:, None]).sum())

    def __add__(self, other: "Reliability") -> "Reliability":
        return Reliability(
            self.voxels + other.voxels,
            self.confidence + other.confidence,
            self.right + other.right,
            self.squares + other.squares,
            self.logs + other.logs,
        )

    @property
    def ece(self) -> float:
        """Expected calibration error: mean over voxels of |share of right ones − mean confidence| of their bin."""
        return float(np.abs(self.right - self.confidence).sum() / max(1, self.voxels.sum()))

    @property
    def brier(self) -> float:
        """Mean over voxels of the squared error summed over classes: 0 (perfect) to 2."""
        return self.squares / max(1, int(self.voxels.sum()))

    @property
    def nll(self) -> float:
        return self.logs / max(1, int(self.voxels.sum()))

    def to_dict(self) -> dict:
        bins = [
            {"voxels": int(n), "confidence": float(c / n) if n else None, "accuracy": float(r / n) if n else None}
            for n, c, r in zip(self.voxels, self.confidence, self.right, strict=True)
        ]
        return {"ece": self.ece, "brier": self.brier, "nll": self.nll, "bins": bins}


def foreground_box(labels: np.ndarray, spacing: tuple[float, float, float]) -> tuple[slice, ...] | None:
    """The box of all bones [i, j, k], BOX_MM larger on every side; None where there is no bone."""
    if not labels.any():
        return None
    box = []
    for axis, mm in enumerate(spacing):
        hit = np.flatnonzero(labels.any(axis=tuple({0, 1, 2} - {axis})))
        margin = int(np.ceil(BOX_MM / mm - 1e-9))
        box.append(slice(max(0, int(hit[0]) - margin), int(hit[-1]) + 1 + margin))
    return tuple(box)


def voxels_in_box(predictor: Predictor, card: DomainCard, case: LoadedCase) -> Iterator[tuple[Tensor, Tensor]]:
    """(logits float32 [n, classes], truth int64 [n]) of the voxels to be judged, a batch of slices at a time."""
    if not case.known.all() or (box := foreground_box(case.labels, case.volume.grid.spacing)) is None:
        return
    stack = SliceStack(case.volume, SliceSettings.from_dict(card.settings))
    inside = np.zeros(case.labels.shape, bool)
    inside[box] = True
    inside, truth, found = stack.oriented(inside), stack.oriented(case.labels), []

    def place(indices: np.ndarray, logits: Tensor) -> None:
        logits = on_own_pixels(logits, stack).cpu()
        for index, of_slice in zip(indices, logits, strict=True):
            chosen = torch.from_numpy(np.ascontiguousarray(inside[index][stack.crop]))
            true = torch.from_numpy(np.ascontiguousarray(truth[index][stack.crop]).astype(np.int64))
            found.append((of_slice[:, chosen].T, true[chosen]))

    with Pass(ExamNetworks(predictor, lambda _: stack), card, stack, place, [], stack.occupied) as run:
        for _ in run:
            yield from found
            found.clear()


def reliability(predictor: Predictor, card: DomainCard, case: LoadedCase) -> Reliability:
    """Of one exam."""
    sums = Reliability()
    for logits, truth in voxels_in_box(predictor, card, case):
        sums.add(logits, truth)
    return sums


def sample_voxels(predictor: Predictor, card: DomainCard, case: LoadedCase) -> tuple[Tensor, Tensor] | None:
    """About SAMPLE of an exam's voxels in its box, the same ones each time; None where there is nothing to judge."""
    box = foreground_box(case.labels, case.volume.grid.spacing)
    if box is None:
        return None
    random, share = torch.Generator().manual_seed(0), SAMPLE / max(1, case.labels[box].size)
    parts = []
    for logits, truth in voxels_in_box(predictor, card, case):
        kept = torch.rand(len(truth), generator=random) < share
        parts.append((logits[kept], truth[kept]))
    return (torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])) if parts else None


def fit_temperature(samples: Iterable[tuple[Tensor, Tensor]]) -> float:
    """What (logits, truth) must be divided by for the lowest negative log-likelihood, every exam counting alike.

    The likelihood has one maximum along 1/temperature, so that a bounded search in one dimension finds it.
    """
    samples = [(logits.double(), truth) for logits, truth in samples if len(truth)]

    def loss(log_temperature: float) -> float:
        scale = float(np.exp(-log_temperature))
        return float(
            np.mean([torch.nn.functional.cross_entropy(logits * scale, truth).item() for logits, truth in samples])
        )

    bounds = np.log([MIN_TEMPERATURE, MAX_TEMPERATURE])
    best = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-3})
    return round(float(np.exp(best.x)), 4)


@dataclass(frozen=True)
class SegmentedExam:
    """An exam segmented as the runtime does it, with what the review is fitted on."""

    stack: SliceStack
    labels: np.ndarray  # the final ones; all arrays [i, j, k]
    raw: np.ndarray  # levels of doubt
    changed: np.ndarray  # by post-processing
    wrong: np.ndarray


def segment_for_review(predictor: Predictor, card: DomainCard, case: LoadedCase) -> SegmentedExam:
    stack = SliceStack(case.volume, SliceSettings.from_dict(card.settings))
    labels = np.zeros(case.labels.shape, np.uint8, order="F")
    raw = np.full(case.labels.shape, NOT_LOOKED_AT, np.uint8, order="F")
    networks, write = ExamNetworks(predictor, lambda _: stack), VolumeWriter(stack, labels, None, raw)
    with Pass(networks, card, stack, write, [], stack.occupied) as run:
        for _ in run:
            pass
    first = labels.copy(order="F")
    clean(labels, case.volume.grid.spacing, card.table.names)
    return SegmentedExam(stack, labels, raw, labels != first, labels != case.labels)


def fit_review(exams: Iterable[SegmentedExam]) -> Calibration:
    """The table of `review.Calibration`: rising curves for bone and background, one number for what was changed."""
    voxels, wrong, count = np.zeros((3, LEVELS + 1)), np.zeros((3, LEVELS + 1)), 0
    for exam in exams:
        count += 1
        voxels += count_levels(exam.stack, exam.raw, exam.labels, exam.changed).sum(0)
        only = np.where(exam.wrong, exam.raw, NOT_LOOKED_AT).astype(np.uint8)
        wrong += count_levels(exam.stack, only, exam.labels, exam.changed).sum(0)
    curves = [
        rising((wrong[kind] + PRIOR * uncalibrated_error()) / (voxels[kind] + PRIOR), voxels[kind] + PRIOR)
        for kind in (0, 1)
    ]
    changed = (wrong[2].sum() + 1) / (voxels[2].sum() + 2)
    return Calibration(np.stack([*curves, np.full(LEVELS + 1, changed)]), count)


def rising(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The nearest sequence that never falls, by weighted squares: neighbors out of order are pooled."""
    blocks: list[list[float]] = []  # mean, weight, length
    for value, weight in zip(values, weights, strict=True):
        blocks.append([float(value), float(weight), 1])
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            value, weight, length = blocks.pop()
            last = blocks[-1]
            last[0] = (last[0] * last[1] + value * weight) / (last[1] + weight)
            last[1] += weight
            last[2] += length
    return np.repeat([block[0] for block in blocks], [int(block[2]) for block in blocks])
