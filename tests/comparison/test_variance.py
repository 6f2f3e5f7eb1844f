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
    # (9 − 1)/4 of the groups and 1/4 of the seeds, each with one degree of freedom.
    assert effect.parts.tolist() == [pytest.approx(2), pytest.approx(1 / 4)]
    assert effect.variance == pytest.approx(9 / 4)
    assert effect.dof == (1, 1)
    assert effect.critical() == pytest.approx(stats.t.isf(0.025, 1))


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


@given(TABLES, st.sampled_from([0.1, 0.05, 0.01, 0.001]))
def test_the_critical_value_is_the_weighted_mean_of_the_quantiles(
    values: np.ndarray, level: float
) -> None:
    effect = paired_effect(values)
    groups, seeds = values.shape
    assert effect.variance >= 0
    quantiles = [stats.t.isf(level / 2, groups - 1), stats.t.isf(level / 2, seeds - 1)]
    if float(effect.variance) > 1e-12:
        expected = np.average(quantiles, weights=effect.parts)
        assert effect.critical(level) == pytest.approx(expected)
    assert min(quantiles) - 1e-9 <= effect.critical(level) <= max(quantiles) + 1e-9


@given(TABLES)
def test_p_is_the_level_whose_critical_value_is_the_statistic(values: np.ndarray) -> None:
    effect = paired_effect(values)
    p, t = float(effect.p), abs(float(effect.statistic))
    assert 0 <= p <= 1
    if np.isfinite(t) and 1e-12 < p < 1:
        assert float(effect.critical(p)) == pytest.approx(t, rel=1e-6, abs=1e-6)
    for level in (0.05, 0.01):
        if abs(p - level) > 1e-6:
            assert (p < level) == (t > float(effect.critical(level)))


@given(TABLES, st.floats(0.01, 1.5))
def test_two_one_sided_tests_are_the_interval_at_twice_the_level(
    values: np.ndarray, margin: float
) -> None:
    effect = paired_effect(values)
    p = float(effect.beyond(margin))
    assert 0 <= p <= 1
    for level in (0.05, 0.01):
        low, high = effect.interval(1 - 2 * level)
        if abs(p - level) > 1e-6:
            assert (p < level) == (-margin < low and high < margin)


def test_without_variance_between_groups_the_seeds_stand_alone() -> None:
    values = table().T.copy()
    values -= values.mean(1, keepdims=True)  # no group differs
    squares, effect = mean_squares(values), paired_effect(values)
    assert squares.rest > squares.groups
    assert effect.parts.tolist() == [0, pytest.approx(float(squares.seeds) / values.size)]
    # Then it is Student's t over the seeds.
    assert effect.p == pytest.approx(stats.ttest_1samp(values.mean(0), 0).pvalue)


def test_a_small_mean_square_of_seeds_does_not_lend_the_groups_degrees_of_freedom() -> None:
    """By chance the seeds agree: the critical value stays above that of the groups."""
    generator = np.random.default_rng(8)
    values = generator.normal(0, 1, (100, 1)) + generator.normal(0, 0.5, (100, 3))
    values += np.array([0.0, 0.02, -0.02]) - values.mean(0)
    effect = paired_effect(values)
    assert float(effect.critical(0.005)) > stats.t.isf(0.0025, 99) * 1.01


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
    spread = (ours.mean(1) - theirs.mean(1)).var(ddof=1)
    squares = [mean_squares(values) for values in (ours, theirs)]
    spread -= squares[0].rest / 4 + squares[1].rest / 3
    assert spread > 0
    expected = [spread / 7, squares[0].seeds / (7 * 4), squares[1].seeds / (7 * 3)]
    assert effect.parts.tolist() == [pytest.approx(float(part)) for part in expected]
    assert effect.dof == (6, 3, 2)
    # An arm whose seeds do not vary at all adds nothing.
    still = np.repeat(theirs.mean(1, keepdims=True), 3, axis=1)
    assert unpaired_effect(ours, still).parts[2] == pytest.approx(0, abs=1e-12)


def test_folds_by_hand() -> None:
    effect = fold_effect(np.array([0.01, 0.02, 0.03, 0.04, 0.05]), 20 / 80)
    assert effect.difference == pytest.approx(0.03)
    assert effect.variance == pytest.approx((1 / 5 + 1 / 4) * 0.00025)
    assert effect.dof == (4,)


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
    effect = Effect(np.float64(0.3), np.array([0.04]), (dof,))
    true = effect.detectable()
    found = stats.nct.sf(stats.t.ppf(0.975, dof), dof, true / 0.2)
    assert found == pytest.approx(0.8, abs=1e-6)
    elsewhere = Effect(np.float64(-7.0), np.array([0.04]), (dof,))
    assert elsewhere.detectable() == pytest.approx(true)


def test_what_is_detectable_lies_between_those_of_the_parts() -> None:
    difference = np.float64(0.0)
    few, many = (Effect(difference, np.array([0.04]), (dof,)).detectable() for dof in (2.0, 60.0))
    both = Effect(difference, np.array([0.02, 0.02]), (60.0, 2.0)).detectable()
    assert many < both < few


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
