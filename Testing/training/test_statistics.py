"""The statistics: hand-worked values, SciPy on known samples, and the edges."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PedBoneSegTraining.evaluation.statistics import (
    compare,
    describe,
    holm,
    mean_interval,
    rank_biserial,
    signed_rank_p,
)


def test_a_description_by_hand():
    found = describe([0.8, None, 0.9, 1.0])
    assert (found.n, found.missing) == (3, 1)
    assert found.mean == pytest.approx(0.9) and found.median == pytest.approx(0.9) and found.sd == pytest.approx(0.1)
    assert 0.8 <= found.low < 0.9 < found.high <= 1.0


def test_without_values_there_is_nothing_to_say():
    found = describe([None, None])
    assert (found.n, found.missing, found.mean, found.sd, found.low) == (0, 2, None, None, None)
    alone = describe([0.5])
    assert (alone.mean, alone.sd, alone.low, alone.high) == (0.5, None, None, None)


def test_five_pairs_cannot_reach_five_percent():
    assert signed_rank_p(np.array([0.1, 0.2, 0.3, 0.4, 0.5])) == pytest.approx(2 / 2**5)
    assert signed_rank_p(np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])) == pytest.approx(2 / 2**6)


def test_the_signed_rank_test_by_counting_signs():
    """All 2⁷ sign patterns of the ranks 1 … 7: the share whose smaller rank sum is as small as the one seen."""
    difference = np.array([0.7, -0.1, 0.5, 0.2, -0.3, 0.4, 0.6])
    ranks = np.argsort(np.argsort(np.abs(difference))) + 1
    seen = min(ranks[difference > 0].sum(), ranks[difference < 0].sum())
    patterns = (np.arange(2**7)[:, None] >> np.arange(7)) & 1
    positive = (patterns * np.arange(1, 8)).sum(1)
    assert signed_rank_p(difference) == pytest.approx(np.mean(np.minimum(positive, 28 - positive) <= seen))


def test_equal_schemes_do_not_differ():
    same = {f"exam{i}": 0.9 for i in range(8)}
    found = compare(same, same)
    assert (found.pairs, found.wilcoxon, found.kolmogorov, found.effect) == (8, 1.0, 1.0, 0.0)
    assert (found.mean_difference, found.low, found.high) == (0.0, 0.0, 0.0)


def test_pairs_are_by_exam_and_what_lacks_a_partner_is_counted():
    a = {"e1": 0.9, "e2": 0.8, "e3": None, "e4": 0.7}
    b = {"e2": 0.7, "e1": 0.7, "e3": 0.5, "e5": None}
    found = compare(a, b)
    assert (found.pairs, found.unpaired) == (2, 2)  # e3 lacks a value in one, e4 is in one alone
    assert found.mean_difference == pytest.approx(0.15) and found.median_difference == pytest.approx(0.15)
    assert found.effect == 1.0


def test_the_effect_by_hand():
    """Ranks of |d| = 1, 2, 3, 4: (1 + 3 + 4 − 2) / 10."""
    assert rank_biserial(np.array([0.1, -0.2, 0.3, 0.4])) == pytest.approx(0.6)
    assert rank_biserial(np.array([-1.0, -2.0, 0.0])) == -1.0


def test_holm_by_hand():
    """0.01 · 4, 0.02 · 3, then 0.03 · 2 = 0.06 and 0.05 · 1, which may not be below the one before."""
    assert holm([0.05, 0.01, None, 0.03, 0.02]) == pytest.approx([0.06, 0.04, None, 0.06, 0.06], nan_ok=True)
    assert holm([0.6, 0.9]) == [1.0, 1.0] and holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_no_smaller_than_the_p_value_and_no_larger_than_bonferroni(values):
    corrected = holm(values)
    for p, q in zip(values, corrected, strict=True):
        assert p <= q <= min(1.0, p * len(values)) + 1e-12
    order = np.argsort(values, kind="stable")
    assert np.all(np.diff(np.array(corrected)[order]) >= 0)


def test_the_interval_is_the_same_each_time_and_holds_the_mean():
    values = np.random.default_rng(5).normal(0.9, 0.02, 15)
    assert mean_interval(values) == mean_interval(values)
    low, high = mean_interval(values)
    # The usual interval of a mean of normal values; the bootstrap's is somewhat narrower at n = 15.
    half = 2.145 * values.std(ddof=1) / np.sqrt(15)
    assert low < values.mean() < high
    assert 0.75 * 2 * half < high - low < 1.1 * 2 * half
