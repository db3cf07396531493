"""Statistics of scores over exams: what one scheme reaches, and whether two schemes differ.

Schemes are compared exam by exam: both have segmented the same held-out exams, so the difference of each pair is what
counts. The test is Wilcoxon's signed-rank test (two-sided), its p-values corrected by Holm's method over the family of
comparisons that a table shows. The Kolmogorov–Smirnov test stands beside it for comparison with the publications; it
assumes independent samples, which paired exams are not. The effect size is the matched-pairs rank-biserial correlation

    r = (W₊ − W₋) / (W₊ + W₋)

with W₊ and W₋ the sums of the ranks of |difference| over positive and negative differences: +1 where every exam is
better, −1 where every one is worse. Intervals are bootstrap intervals (bias-corrected and accelerated) of the mean.

The folds of a cross-validation share training exams, so all of these p-values are approximate. Five pairs cannot reach
p < 0.05: the smallest two-sided p-value of n pairs is 2 / 2ⁿ.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

RESAMPLES = 9999
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Description:
    """One measure of one bone over exams. `missing` counts the exams in which the measure does not exist (a distance to
    a bone that was not found); they are in none of the other numbers. `low` and `high` are the interval of the mean;
    None where fewer than two exams have the measure."""

    n: int
    missing: int
    mean: float | None
    sd: float | None
    median: float | None
    low: float | None
    high: float | None


def describe(values: Sequence[float | None], seed: int = 0) -> Description:
    """`values`: one an exam, None where the measure does not exist. `sd` has n − 1 in its denominator."""
    known = np.array([value for value in values if value is not None], float)
    missing = len(values) - len(known)
    if not len(known):
        return Description(0, missing, None, None, None, None, None)
    low, high = mean_interval(known, seed)
    sd = float(known.std(ddof=1)) if len(known) > 1 else None
    return Description(len(known), missing, float(known.mean()), sd, float(np.median(known)), low, high)


def mean_interval(values: np.ndarray, seed: int = 0) -> tuple[float | None, float | None]:
    """The bootstrap interval of the mean; (None, None) for fewer than two values."""
    if len(values) < 2:
        return None, None
    if np.ptp(values) == 0:  # all resamples are alike, and the method divides by their spread
        return float(values[0]), float(values[0])
    interval = stats.bootstrap(
        (values,), np.mean, n_resamples=RESAMPLES, confidence_level=CONFIDENCE, method="BCa",
        rng=np.random.default_rng(seed),
    ).confidence_interval  # fmt: skip
    return float(interval.low), float(interval.high)


@dataclass(frozen=True)
class Comparison:
    """Scheme A against scheme B on the same exams; differences are A − B.

    pairs       exams in which both have the measure; the numbers below speak of these alone
    unpaired    exams in which one of the two lacks it
    wilcoxon    p-value of the signed-rank test; 1 where no pair differs, None without pairs
    holm        the same, corrected for the family (`correct`); None until then
    kolmogorov  p-value of the two-sample Kolmogorov–Smirnov test
    effect      rank-biserial correlation, −1 to 1; 0 where no pair differs
    low, high   bootstrap interval of the mean difference
    """

    pairs: int
    unpaired: int
    mean_difference: float | None
    median_difference: float | None
    low: float | None
    high: float | None
    wilcoxon: float | None
    kolmogorov: float | None
    effect: float | None
    holm: float | None = None


def compare(a: Mapping[str, float | None], b: Mapping[str, float | None], seed: int = 0) -> Comparison:
    """`a` and `b` map exams to a measure (None where it does not exist); exams that only one of them has are
    unpaired."""
    exams = [exam for exam in a if a[exam] is not None and b.get(exam) is not None]
    unpaired = len({exam for values in (a, b) for exam, value in values.items() if value is not None}) - len(exams)
    if not exams:
        return Comparison(0, unpaired, None, None, None, None, None, None, None)
    first, second = (np.array([values[exam] for exam in exams], float) for values in (a, b))
    difference = first - second
    low, high = mean_interval(difference, seed)
    return Comparison(
        len(exams), unpaired, float(difference.mean()), float(np.median(difference)), low, high,
        wilcoxon=signed_rank_p(difference),
        kolmogorov=float(stats.ks_2samp(first, second).pvalue),
        effect=rank_biserial(difference),
    )  # fmt: skip


def signed_rank_p(difference: np.ndarray) -> float:
    """Two-sided p-value of Wilcoxon's signed-rank test; pairs without a difference are left out, as he did."""
    if not np.any(difference):
        return 1.0
    return float(stats.wilcoxon(difference, zero_method="wilcox").pvalue)


def rank_biserial(difference: np.ndarray) -> float:
    changed = difference[difference != 0]
    if not len(changed):
        return 0.0
    ranks = stats.rankdata(np.abs(changed))
    return float((ranks * np.sign(changed)).sum() / ranks.sum())


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's correction: sorted upward, the i-th of m p-values is multiplied by m − i + 1, and none is smaller than one
    before it. None stays None and does not count in m."""
    known = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, place) in enumerate(known):
        largest = max(largest, min(1.0, p * (len(known) - rank)))
        corrected[place] = largest
    return corrected
