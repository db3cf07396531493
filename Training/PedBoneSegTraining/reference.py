"""What a model is given beyond its weights when it is exported or adapted: temperature, signatures with their
thresholds, and the calibration of the review, domain by domain, from the exams that training never saw.

With fewer than 8 such exams a domain gets temperature 1, no signatures (so no verdict) and no calibrated review, and
its card says so. Every exam's distance is its distance to the *other* exams (leave one out), so that all of them serve
as references and for the threshold, the 95th percentile.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from PedBoneSegLib.anatomy import JointTable
from PedBoneSegLib.predictor import Predictor
from PedBoneSegLib.signature import FEWEST_REFERENCES, Whitened, nearest
from PedBoneSegLib.slices import SliceSettings, SliceStack

from .calibration import FEWEST, MOST, fit_review, fit_temperature, judge, sample_voxels
from .data.dataset import LoadedCase

if TYPE_CHECKING:
    from .export import Draft, Loader

LAYER = 3  # the encoder's level of the published signature; see docs/self-awareness.md for the choice
POOLED_LAYER: int | None = 3  # that of channel means and deviations; None: the published method alone
PERCENTILE = 95.0
SYNTHETIC_EXAMS = 96
UNSEEN_SEQUENCE = "STIR"  # every fourth synthetic reference is of this sequence, which training never draws


def know_itself(draft: "Draft", layer: int = LAYER, pooled_layer: int | None = POOLED_LAYER) -> "Draft":
    """The export's part: every measured domain's self-knowledge, and the signatures' tensors."""
    for name in draft.measured:
        cases = draft.exams[name].reserved
        if len(cases) < FEWEST:
            note = f"{len(cases)} exams were kept from training: too few for a temperature, a verdict or a review."
            draft = draft.with_card(name, temperature=1.0, signature=None, note=_joined(draft, name, note))
            continue
        draft = _domain(draft, name, cases, layer, pooled_layer)
    return draft


def _domain(draft: "Draft", name: str, cases: Sequence["Loader"], layer: int, pooled_layer: int | None) -> "Draft":
    """Two passes, since the review depends on the temperature; only its exams are kept in memory in between."""
    layers = sorted({layer} | ({pooled_layer} if pooled_layer is not None else set()))
    predictor, card = Predictor(draft.bundle(), draft.device), draft.manifest.domain(name)
    moments, samples, kept = [], [], []
    for load in cases:
        case = load()
        moments.append(predictor.observe(SliceStack(case.volume, SliceSettings.from_dict(card.settings)), card, layers))
        if len(kept) < MOST and case.known.all() and (sample := sample_voxels(predictor, card, case)):
            samples.append(sample)
            kept.append(case)
    signatures = np.stack([each[layer].signature for each in moments])
    pooled = None if pooled_layer is None else np.stack([each[pooled_layer].pooled for each in moments])
    signature, tensors = make_signature(name, layer, signatures, pooled_layer, pooled)
    draft = replace(draft.with_card(name, signature=signature), tensors={**draft.tensors, **tensors})
    if len(kept) < FEWEST:
        note = f"{len(kept)} fully labelled exams were kept from training: too few for a temperature or a review."
        return draft.with_card(name, temperature=1.0, note=_joined(draft, name, note))
    draft = draft.with_card(name, temperature=fit_temperature(samples))
    predictor = Predictor(draft.bundle(), draft.device)
    fitted = fit_review(judge(predictor, draft.manifest.domain(name), case) for case in kept)
    review = {**(draft.manifest.review or {}), name: fitted.to_dict()}
    return replace(draft, manifest=replace(draft.manifest, review=review))


def make_signature(
    domain: str, layer: int, signatures: np.ndarray, pooled_layer: int | None = None, pooled: np.ndarray | None = None
) -> tuple[dict, dict[str, np.ndarray]]:
    """A card's `signature` and its tensors, from the reference exams' signatures [exams, C] and, where they are to be
    used too, pooled values [exams, 2·C]. Both thresholds together pass PERCENTILE of the exams."""
    if len(signatures) < FEWEST_REFERENCES:
        raise ValueError(f"{len(signatures)} references are too few")
    distances = left_out(signatures, lambda rest: partial(nearest, others=rest))
    threshold = float(np.percentile(distances, PERCENTILE))
    entry = {"layer": layer, "threshold": threshold, "references": len(signatures)}
    tensors = {f"signatures.{domain}": signatures.astype(np.float32)}
    if pooled is not None:
        more = left_out(pooled, lambda rest: Whitened(rest).distance)
        other = float(np.percentile(more, PERCENTILE))
        both = float(np.percentile(np.maximum(distances / threshold, more / other), PERCENTILE))
        entry |= {"threshold": threshold * both, "pooled": {"layer": pooled_layer, "threshold": other * both}}
        tensors[f"pooled.{domain}"] = pooled.astype(np.float32)
    return entry, tensors


def left_out(rows: np.ndarray, measure: Callable[[np.ndarray], Callable[[np.ndarray], float]]) -> np.ndarray:
    """Each row's distance by what `measure` makes of all other rows."""
    return np.array([measure(np.delete(rows, i, 0))(row) for i, row in enumerate(rows)])


def synthetic_reserve(table: JointTable, count: int = SYNTHETIC_EXAMS, jobs: int = 1) -> tuple["Loader", ...]:
    """The first exams of the frozen cohort `reserved`, made when they are asked for, by `jobs` processes that run
    ahead. Every fourth is in UNSEEN_SEQUENCE, so that the threshold knows how far honest data may lie."""
    ahead = _Ahead(table, count, jobs)
    return tuple(partial(ahead.load, i) for i in range(count))


class _Ahead:
    def __init__(self, table: JointTable, count: int, jobs: int):
        self.table, self.count, self.jobs, self.pool = table, count, jobs, None
        self.made: dict[int, Future] = {}

    def load(self, i: int) -> LoadedCase:
        from .synthesis.workers import pool

        if self.jobs < 2:
            return synthetic_exam(self.table, i)
        self.pool = self.pool or pool(self.jobs)
        for number in range(i, min(self.count, i + 2 * self.jobs)):
            if number not in self.made:
                self.made[number] = self.pool.submit(synthetic_exam, self.table, number)
        case = self.made.pop(i).result()
        if i == self.count - 1:
            self.pool.shutdown()
            self.pool = None
        return case


def synthetic_exam(table: JointTable, i: int) -> LoadedCase:
    """Exam i of the cohort, in the size that training sees."""
    from .synthesis.cohort import COHORTS
    from .synthesis.source import STACK_VOXELS

    recipe = replace(COHORTS["reserved"].recipe(table.joint), most_voxels=STACK_VOXELS)
    if i % 4 == 3:
        recipe = replace(recipe, preset=UNSEEN_SEQUENCE)
    rendering = recipe.acquire(i, 0, recipe.body(i))
    known = np.ones(1 + len(table.bones), bool)
    return LoadedCase(rendering.volume.name, rendering.volume, rendering.labels, known)


def _joined(draft: "Draft", name: str, note: str) -> str:
    return " ".join(filter(None, (draft.manifest.domain(name).note, note)))
