"""How much of an exam's own normalization statistics a domain uses (see `PedBoneSegLib.network.exam`): chosen domain by
domain on exams that training never saw, each as it is and degraded once.

Mixing in the exam's statistics helps where an image looks strange and can cost a little where it does not. So a share
above 0 is taken only if it is better on average over all these images and not noticeably worse on those as they are.
"""

from dataclasses import replace

import numpy as np

from PedBoneSegLib.anatomy import JointTable
from PedBoneSegLib.inference.predictor import Predictor
from PedBoneSegLib.models.manifest import Manifest

from ..data.dataset import LoadedCase
from ..data.degraded import DEGRADED, apply
from ..evaluation.evaluate import labels_of, without_signatures
from .calibration import MIN_EXAMS
from .draft import Draft

SHARES = (0.0, 0.2, 0.4, 0.6)
MOST = 8  # exams that are looked at
TOLERATED = 0.002  # Dice that may be lost on the exams as they are


def choose_exam_statistics(draft: Draft) -> Draft:
    """A part of the export. A domain with fewer than 8 reserved exams keeps the share 0."""
    for name in draft.measured:
        reserved = draft.exams[name].reserved
        if len(reserved) < MIN_EXAMS:
            continue
        predictors = []
        for share in SHARES:
            bundle = without_signatures(draft.with_card(name, exam_statistics=share).bundle())
            predictors.append(Predictor(bundle, draft.device))
        table = draft.manifest.domain(name).table
        dice = []  # [exam][as it is, degraded][share]
        for number, load in enumerate(reserved[:MOST]):
            case = load()
            kind = list(DEGRADED)[number % len(DEGRADED)]
            images = (case, apply(DEGRADED[kind], kind, case, number))
            dice.append([[mean_dice(labels_of(each, name)(image.volume), case, table) for each in predictors]
                         for image in images])  # fmt: skip
        draft = draft.with_card(name, exam_statistics=best_share(np.array(dice)))
    return draft


def best_share(dice: np.ndarray) -> float:
    """From the Dice [exams, 2 (as they are, degraded), shares]; NaN where an exam has no bone."""
    means = np.nanmean(dice, axis=0)
    allowed = means[0] >= means[0, 0] - TOLERATED
    return SHARES[int(np.where(allowed, means.mean(0), -np.inf).argmax())]  # of equal ones the smallest


def mean_dice(labels: np.ndarray, case: LoadedCase, table: JointTable) -> float:
    """Over the bones that are in view and labeled; NaN where there is none."""
    scores = []
    for bone, known in zip(table.bones, case.known[1:], strict=True):
        truth, found = case.labels == bone.label, labels == bone.label
        if known and truth.any():
            scores.append(2 * np.count_nonzero(truth & found) / (np.count_nonzero(truth) + np.count_nonzero(found)))
    return float(np.mean(scores)) if scores else float("nan")


def domain_statistics_alone(manifest: Manifest) -> Manifest:
    """The manifest with every share at 0, for comparing a stored network with the trained one."""
    return replace(manifest, domains=tuple(replace(card, exam_statistics=0.0) for card in manifest.domains))
