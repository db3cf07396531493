"""What a model is given beyond its weights when it is exported or adapted: temperature, signatures with their
thresholds, and the calibration of the review, domain by domain, from the exams that training never saw.

With fewer than 8 such exams a domain gets temperature 1, no signatures (so no verdict) and no calibrated review, and
its card says so. Every exam's distance is its distance to the *other* exams (leave one out), so that all of them serve
as references and for the threshold, the 95th percentile.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from PedBoneSegLib.inference.passes import stacks_by_domain
from PedBoneSegLib.inference.predictor import Predictor
from PedBoneSegLib.inference.signature import Apart, Moments, Whitened, nearest
from PedBoneSegLib.models.manifest import FEWEST_REFERENCES

from ..data.dataset import LoadedCase
from .calibration import MAX_EXAMS, MIN_EXAMS, fit_review, fit_temperature, sample_voxels, segment_for_review
from .draft import Draft

LAYER = 3  # the encoder's level of the published signature; see docs/studies/detection.md for the choice
POOLED_LAYER: int | None = 3  # that of the channels' means and deviations; None: the published method alone
PERCENTILE = 95.0
LOWEST = 1e-6  # threshold: references that are all alike leave no room otherwise


def add_reference_data(draft: Draft, layer: int = LAYER, pooled_layer: int | None = POOLED_LAYER) -> Draft:
    """A part of the export: temperature, signatures and calibrated review of every measured domain.

    An exam is looked at under its own domain's normalization and, so that domains can be told apart, under those of the
    other joints. Only the exams that temperature and review are fitted on stay in memory.
    """
    enough = [name for name in draft.measured if len(draft.exams[name].reserved) >= MIN_EXAMS]
    deepest = len(draft.network.encoder.channels) - 1
    layer, pooled_layer = min(layer, deepest), None if pooled_layer is None else min(pooled_layer, deepest)
    predictor, card_of = Predictor(draft.bundle(), draft.device), draft.manifest.domain
    own: dict[str, list[dict[int, Moments]]] = {name: [] for name in enough}
    others: dict[str, list[np.ndarray]] = {name: [] for name in enough}
    for name in draft.measured:
        if name not in enough:
            draft = _noted(draft, name, f"{len(draft.exams[name].reserved)} exams")
            continue
        samples, kept = [], []
        for load in draft.exams[name].reserved:
            case = load()
            stacks = stacks_by_domain(case.volume)
            layers = sorted({layer, pooled_layer} - {None})
            own[name].append(predictor.observe(stacks(card_of(name)), card_of(name), layers))
            for other in enough:
                if pooled_layer is not None and card_of(other).joint != card_of(name).joint:
                    moments = predictor.observe(stacks(card_of(other)), card_of(other), [pooled_layer])
                    others[other].append(moments[pooled_layer].pooled)
            if len(kept) < MAX_EXAMS and case.known.all() and (sample := sample_voxels(predictor, card_of(name), case)):
                samples.append(sample)
                kept.append(case)
        draft = _calibrated(draft, name, samples, kept)
    for name in enough:
        entry, tensors = make_signature(
            name,
            layer,
            np.stack([moments[layer].signature for moments in own[name]]),
            pooled_layer,
            None if pooled_layer is None else np.stack([moments[pooled_layer].pooled for moments in own[name]]),
            np.stack(others[name]) if others[name] else None,
        )
        draft = replace(draft.with_card(name, signature=entry), tensors={**draft.tensors, **tensors})
    return draft


def _calibrated(draft: Draft, name: str, samples: list, cases: list[LoadedCase]) -> Draft:
    """Temperature first, since the doubt that the review is fitted on depends on it."""
    if len(cases) < MIN_EXAMS:
        return _noted(draft, name, f"{len(cases)} fully labelled exams")
    draft = draft.with_card(name, temperature=fit_temperature(samples))
    predictor = Predictor(draft.bundle(), draft.device)
    fitted = fit_review(segment_for_review(predictor, draft.manifest.domain(name), case) for case in cases)
    review = {**(draft.manifest.review or {}), name: fitted.to_dict()}
    return replace(draft, manifest=replace(draft.manifest, review=review))


def _noted(draft: Draft, name: str, what: str) -> Draft:
    card = draft.manifest.domain(name)
    note = f"{what} were kept from training: too few for a temperature, a verdict and a review."
    return draft.with_card(name, note=" ".join(filter(None, (card.note, note))))


def make_signature(
    domain: str,
    layer: int,
    signatures: np.ndarray,
    pooled_layer: int | None = None,
    pooled: np.ndarray | None = None,
    others: np.ndarray | None = None,
) -> tuple[dict, dict[str, np.ndarray]]:
    """A card's `signature` and its tensors, from the reference exams' signatures [exams, C] and, where they are to be
    used too, pooled values [exams, 2·C], of exams of other joints as well. All thresholds together pass PERCENTILE of
    the exams."""
    if len(signatures) < FEWEST_REFERENCES:
        raise ValueError(f"{len(signatures)} references are too few")
    distances = [left_out(signatures, lambda rest: partial(nearest, others=rest))]
    tensors = {f"signatures.{domain}": signatures.astype(np.float32)}
    if pooled is not None:
        distances.append(left_out(pooled, lambda rest: Whitened(rest).distance))
        tensors[f"pooled.{domain}"] = pooled.astype(np.float32)
        if others is not None:
            distances.append(left_out(pooled, lambda rest: Apart(rest, others).place))
            tensors[f"others.{domain}"] = others.astype(np.float32)
    limits = [max(float(np.percentile(row, PERCENTILE)), LOWEST) for row in distances]
    worst = np.max([row / limit for row, limit in zip(distances, limits, strict=True)], axis=0)
    limits = [limit * max(float(np.percentile(worst, PERCENTILE)), LOWEST) for limit in limits]
    entry = {"layer": layer, "threshold": limits[0], "references": len(signatures)}
    if pooled is not None:
        count, apart = (0, 1.0) if others is None else (len(others), limits[2])
        entry["pooled"] = {"layer": pooled_layer, "threshold": limits[1], "others": count, "apart": apart}
    return entry, tensors


def left_out(rows: np.ndarray, measure: Callable[[np.ndarray], Callable[[np.ndarray], float]]) -> np.ndarray:
    """Each row's distance by what `measure` makes of all other rows."""
    return np.array([measure(np.delete(rows, i, 0))(row) for i, row in enumerate(rows)])
