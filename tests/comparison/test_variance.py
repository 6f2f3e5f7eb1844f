"""The formulas of the issue, by hand and against other tools."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from segweave.comparison.variance import (
    Effect,
    fold_effect,
    group_effect,
    mean_squares,
    paired_effect,
    unpaired_effect,
)

TABLES = arrays(
    np.float64,
    st.tuples(st.integers(2, 7), st.integers(2, 5)),
    elements=st.floats(-1, 1, width=16),
)


def table(groups: int = 7, seeds: int = 4, seed: int = 1) -> np.ndarray:
    generator = np.random.default_rng(seed)
    rows, columns = generator.normal(0, 2, (groups, 1)), generator.normal(0, 1, (1, seeds))
    return rows + columns + generator.normal(0, 0.5, (groups, seeds))


def test_by_hand() -> None:
    # Group means 2, 5; seed means 3, 4; mean 3.5; no rest but ±0.5.
    squares = mean_squares(np.array([[1.0, 3.0], [5.0, 5.0]]))
    assert squares.mean == 3.5
    assert squares.groups == pytest.approx(2 * (1.5**2 + 1.5**2))
    assert squares.seeds == pytest.approx(2 * (0.5**2 + 0.5**2))
    assert squares.rest == pytest.approx(4 * 0.5**2)
    effect = paired_effect(np.array([[1.0, 3.0], [5.0, 5.0]]))
    # MS rest = MS seeds = 1, not above it: (9 + 1 − 1) / 4, dof 81 / (81 + 1 + 1).
    assert effect.variance == pytest.approx(9 / 4)
    assert effect.dof == pytest.approx(81 / 83)


@given(TABLES)
def test_sums_of_squares_add_up(values: np.ndarray) -> None:
    groups, seeds = values.shape
    squares = mean_squares(values)
    total = (
        squares.groups * (groups - 1)
        + squares.seeds * (seeds - 1)
        + squares.rest * (groups - 1) * (seeds - 1)
    )
    assert total == pytest.approx(((values - values.mean()) ** 2).sum(), abs=1e-9)


@given(TABLES, st.floats(-2, 2))
def test_a_shift_moves_the_mean_alone(values: np.ndarray, shift: float) -> None:
    one, other = paired_effect(values), paired_effect(values + shift)
    assert other.difference == pytest.approx(one.difference + shift, abs=1e-9)
    assert other.variance == pytest.approx(one.variance, abs=1e-9)


@given(TABLES)
def test_the_variance_is_never_below_zero_nor_the_dof_absurd(values: np.ndarray) -> None:
    effect = paired_effect(values)
    groups, seeds = values.shape
    assert effect.variance >= 0
    assert 0 < effect.dof <= groups + seeds
    assert 0 <= effect.p <= 1


def test_where_the_rest_is_larger_the_larger_stands_alone() -> None:
    values = table()
    values -= values.mean(0)  # no seed differs
    squares, effect = mean_squares(values), paired_effect(values)
    assert squares.rest > squares.seeds
    assert effect.variance == pytest.approx(squares.groups / values.size)
    assert effect.dof == len(values) - 1
    # Then it is Student's t over the groups.
    assert effect.p == pytest.approx(stats.ttest_1samp(values.mean(1), 0).pvalue)
    flat = values.T
    assert paired_effect(flat).dof == flat.shape[1] - 1


def test_seeds_that_differ_widen_the_interval() -> None:
    values = table()
    assert paired_effect(values).variance > group_effect(values.mean(1)).variance


def test_many_experiments_at_once_are_the_same_as_one_by_one() -> None:
    many = np.stack([table(seed=k) for k in range(5)])
    whole = paired_effect(many)
    for k, values in enumerate(many):
        one = paired_effect(values)
        assert whole.p[k] == pytest.approx(float(one.p))
    ours, theirs = many, many[::-1]
    assert unpaired_effect(ours, theirs).p[1] == pytest.approx(
        float(unpaired_effect(ours[1], theirs[1]).p)
    )


def test_unpaired_adds_what_seeds_add_in_each_arm() -> None:
    ours, theirs = table(seed=3), table(seeds=3, seed=4)
    effect = unpaired_effect(ours, theirs)
    expected = (ours.mean(1) - theirs.mean(1)).var(ddof=1) / 7
    for values in (ours, theirs):
        squares = mean_squares(values)
        assert squares.seeds > squares.rest
        expected += (squares.seeds - squares.rest) / values.size
    assert effect.variance == pytest.approx(float(expected))
    quiet = [values - values.mean(0) for values in (ours, theirs)]
    plain = unpaired_effect(*quiet)
    assert plain.dof == pytest.approx(6)
    assert plain.p == pytest.approx(stats.ttest_rel(quiet[0].mean(1), quiet[1].mean(1)).pvalue)


def test_folds_by_hand() -> None:
    effect = fold_effect(np.array([0.01, 0.02, 0.03, 0.04, 0.05]), 20 / 80)
    assert effect.difference == pytest.approx(0.03)
    assert effect.variance == pytest.approx((1 / 5 + 1 / 4) * 0.00025)
    assert effect.dof == 4


def test_interval_and_p_agree() -> None:
    effect = paired_effect(table())
    low, high = effect.interval(1 - float(effect.p))
    assert min(abs(low), abs(high)) == pytest.approx(0, abs=1e-9)


def test_equal_differences() -> None:
    nothing = paired_effect(np.zeros((6, 3)))
    assert nothing.p == 1
    always = paired_effect(np.full((6, 3), 0.1))
    assert always.p == 0
    assert np.sign(always.statistic) == 1


@pytest.mark.parametrize("dof", [2.0, 5.5, 40.0])
def test_what_is_detectable_is_found_four_times_in_five(dof: float) -> None:
    effect = Effect(np.float64(0.3), np.float64(0.04), np.float64(dof))
    true = effect.detectable()
    found = stats.nct.sf(stats.t.ppf(0.975, dof), dof, true / 0.2)
    assert found == pytest.approx(0.8, abs=1e-6)
    elsewhere = Effect(np.float64(-7.0), np.float64(0.04), np.float64(dof))
    assert elsewhere.detectable() == pytest.approx(true)


def test_components_find_what_was_put_in() -> None:
    generator = np.random.default_rng(5)
    rows, columns = generator.normal(0, 3, (2000, 12, 1)), generator.normal(0, 2, (2000, 1, 5))
    squares = mean_squares(rows + columns + generator.normal(0, 1, (2000, 12, 5)))
    groups, seeds, rest = (part.mean() for part in squares.components())
    assert (groups, seeds, rest) == (
        pytest.approx(9, rel=0.05),
        pytest.approx(4, rel=0.05),
        pytest.approx(1, rel=0.05),
    )
