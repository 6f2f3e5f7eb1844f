"""Means in the stated order and intervals that cover."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from segweave.evaluation.summary import estimate


@given(
    st.dictionaries(
        st.tuples(st.sampled_from("abcdef"), st.sampled_from(["one", "two", "three"])),
        st.floats(0, 1),
        min_size=1,
    )
)
def test_every_group_weighs_alike(values: dict[tuple[str, str], float]) -> None:
    groups = dict(zip("abcdef", "ppqrrr", strict=True))
    by_group: dict[str, list[float]] = {}
    for case in sorted({case for case, _ in values}):
        of_case = [value for (c, _), value in values.items() if c == case]
        by_group.setdefault(groups[case], []).append(float(np.mean(of_case)))
    means = [np.mean(of_group) for of_group in by_group.values()]
    result = estimate(values, groups)
    assert result.mean == pytest.approx(np.mean(means))
    assert result.groups == len(means)
    if len(means) > 1:
        assert result.sd == pytest.approx(np.std(means, ddof=1), abs=1e-12)


def test_no_interval_reaches_beyond_what_a_value_can_be() -> None:
    values = {("a", "c"): 0.9, ("b", "c"): 0.8}
    groups = {"a": "p", "b": "q"}
    free, cut = estimate(values, groups), estimate(values, groups, bounds=(0, 1))
    assert free.low is not None
    assert free.high is not None
    assert free.high > 1
    assert (cut.low, cut.high) == (max(free.low, 0), 1)
    assert (cut.mean, cut.sd) == (free.mean, free.sd)


def test_publications_take_the_mean_over_cases_then_classes() -> None:
    values = {("a", "one"): 0.2, ("b", "one"): 0.4, ("c", "one"): 0.6, ("a", "two"): 1.0}
    result = estimate(values, {"a": "p", "b": "p", "c": "q"}, per="case")
    assert result.mean == pytest.approx((0.4 + 1.0) / 2)
    assert (result.cases, result.groups) == (3, 2)
    # Without q: (0.3 + 1) / 2, without p: 0.6; the pseudo-values are 1.4 less these.
    assert result.sd == pytest.approx(np.std([0.75, 0.8], ddof=1))


def test_one_case_a_group_gives_the_textbook_interval() -> None:
    scores = [0.8, 0.9, 0.7, 0.85, 0.95]
    names = [f"case {k}" for k in range(5)]
    values = {(n, "c"): v for n, v in zip(names, scores, strict=True)}
    result = estimate(values, {n: n for n in names})
    low, high = stats.t.interval(0.95, 4, np.mean(scores), stats.sem(scores))
    assert result.sd == pytest.approx(np.std(scores, ddof=1))
    assert (result.low, result.high) == (pytest.approx(low), pytest.approx(high))
    assert result.method == "t over groups"


def test_one_group_has_no_interval() -> None:
    result = estimate({("a", "c"): 0.5, ("b", "c"): 0.7}, {"a": "p", "b": "p"})
    assert (result.mean, result.sd, result.low) == (pytest.approx(0.6), None, None)


def test_equal_values_have_an_interval_of_no_width() -> None:
    for number in (5, 40):
        names = [str(k) for k in range(number)]
        result = estimate({(n, "c"): 0.75 for n in names}, {n: n for n in names})
        assert result.low == pytest.approx(0.75)
        assert result.high == pytest.approx(0.75)


def test_the_interval_is_by_t_at_every_size() -> None:
    """A bootstrap covers too little where a few Dice are 0."""
    scores = np.random.default_rng(4).beta(8, 2, 100)
    scores[:2] = 0
    names = [str(k) for k in range(100)]
    result = estimate(
        {(n, "c"): float(v) for n, v in zip(names, scores, strict=True)}, {n: n for n in names}
    )
    low, high = stats.t.interval(0.95, 99, np.mean(scores), stats.sem(scores))
    assert (result.low, result.high) == (pytest.approx(low), pytest.approx(high))
    assert result.method == "t over groups"


@pytest.mark.parametrize("groups", [8, 20])
def test_intervals_cover(groups: int) -> None:
    """Cases of one patient are alike; the interval must still hold the truth."""
    generator = np.random.default_rng(groups)
    covered = 0
    runs = 400
    for _ in range(runs):
        own = generator.normal(0.8, 0.05, groups)
        values = {}
        members = {}
        for g in range(groups):
            for k in range(int(generator.integers(1, 4))):
                members[f"{g}-{k}"] = str(g)
                for name in ("one", "two"):
                    values[f"{g}-{k}", name] = float(own[g] + generator.normal(0, 0.02))
        result = estimate(values, members)
        assert result.low is not None
        assert result.high is not None
        covered += result.low <= 0.8 <= result.high
    assert 0.92 <= covered / runs <= 0.98
