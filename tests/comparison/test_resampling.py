"""Sign flips, exact and drawn; intervals for the weights at hand; Holm."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from segweave.comparison import holm
from segweave.comparison.resampling import group_interval, sign_flip_p


def test_the_rarest_pattern() -> None:
    assert sign_flip_p(np.array([0.1, 0.2, 0.3, 0.1, 0.4])) == 2 / 32
    assert sign_flip_p(np.array([0.1] * 6)) == 2 / 64
    assert sign_flip_p(np.zeros(6)) == 1


@given(st.lists(st.integers(-9, 9), min_size=2, max_size=8))
def test_all_patterns_are_counted(values: list[int]) -> None:
    differences = np.array(values, dtype=float) / 100
    sums = [
        abs(sum(s * v for s, v in zip(signs, values, strict=True)))
        for signs in itertools.product((-1, 1), repeat=len(values))
    ]
    expected = np.mean(np.array(sums) >= abs(sum(values)))
    assert sign_flip_p(differences) == pytest.approx(expected)
    assert sign_flip_p(-differences) == pytest.approx(expected)


def test_drawn_patterns_come_near_the_exact_ones() -> None:
    generator = np.random.default_rng(2)
    short = generator.normal(0.25, 1, 20)
    exact = sign_flip_p(short)
    # A group that never differs changes nothing but takes the way of drawing.
    drawn = sign_flip_p(np.append(short, 0.0))
    assert drawn == pytest.approx(exact, abs=0.005)
    assert sign_flip_p(np.append(short, 0.0)) == drawn


def test_permutation_agrees_with_scipy() -> None:
    values = np.random.default_rng(3).normal(0.4, 1, 9)
    other = stats.permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=np.inf
    )
    assert sign_flip_p(values) == pytest.approx(other.pvalue)


@pytest.mark.parametrize("groups", [12, 40])
def test_the_interval_is_by_t(groups: int) -> None:
    values = np.random.default_rng(4).normal(0.1, 1, groups)
    low, high = stats.t.interval(0.95, groups - 1, np.mean(values), stats.sem(values))
    interval = group_interval({str(k): float(v) for k, v in enumerate(values)})
    assert (interval.low, interval.high) == (pytest.approx(low), pytest.approx(high))


def test_holm_by_hand() -> None:
    adjusted = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert adjusted == pytest.approx({"d": 0.02, "a": 0.03, "c": 0.06, "b": 0.06})
    assert holm({}) == {}
    assert holm({"a": 0.6, "b": 0.7}) == {"a": 1.0, "b": 1.0}
