"""Folds: what replaces the main test, and numbers of one table that agree with each other."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from segweave.comparison import as_markdown, compare
from segweave.evaluation import Evaluation
from tests.comparison.made import Dice, evaluation, level, shifted


def folds(
    folder: Path,
    arm: str,
    dice: Dice,
    sizes: Sequence[int] = (4,) * 5,
    seeds: Sequence[int] | None = None,
    **fields: object,
) -> list[Evaluation]:
    """Folds of so many groups each, trained with so many seeds each (one)."""
    ends = np.cumsum([0, *sizes])
    return [
        evaluation(
            folder / f"{arm}-{k}-{seed}",
            arm,
            dice,
            groups=range(ends[k], ends[k + 1]),
            seed=seed,
            fold=k,
            **fields,  # type: ignore[arg-type]
        )
        for k, count in enumerate(seeds or [1] * len(sizes))
        for seed in range(count)
    ]


def test_folds_replace_the_main_test(tmp_path: Path) -> None:
    made = folds(tmp_path, "a", shifted(0.0)) + folds(tmp_path, "b", shifted(0.03, 0.004))
    (b,) = compare(made, "a").arms
    assert b.main is not None
    assert b.main.design == "one mean difference per fold"
    assert b.main.critical == pytest.approx(stats.t.isf(0.025, 4))
    assert b.main.trainings == "5 folds"
    assert "this training set" not in b.verdict  # folds are other training sets
    means = [np.mean([b.by_group[f"patient {g:02}"] for g in range(4 * k, 4 * k + 4)])
             for k in range(5)]  # fmt: skip
    assert b.main.error == pytest.approx(np.sqrt((1 / 5 + 4 / 16) * np.var(means, ddof=1)))
    assert b.weights.p is not None
    few = compare(made, "a", training_groups=8)
    assert few.arms[0].main is not None
    assert few.arms[0].main.error > b.main.error
    assert any("4 test and 8 training groups" in note for note in few.notes)


def test_folds_say_themselves_on_how_many_groups_they_were_trained(tmp_path: Path) -> None:
    made = {
        (arm, groups): folds(
            tmp_path / str(groups), arm, shifted(by, 0.002 + by / 10), training_groups=groups
        )
        for arm, by in (("a", 0.0), ("b", 0.03))
        for groups in (12, None)
    }

    def error(a: int | None, b: int | None, **options: int) -> tuple[float, str]:
        result = compare([*made["a", a], *made["b", b]], "a", **options)
        main = result.arms[0].main
        assert main is not None
        (note,) = (note for note in result.notes if note.startswith("Folds share"))
        return main.error, note

    known, note = error(12, 12)
    assert "4 test and 12 training groups each." in note
    unknown, note = error(None, None)
    assert "16 training groups each (how many is unknown: all others" in note
    assert known / unknown == pytest.approx(np.sqrt((1 / 5 + 4 / 12) / (1 / 5 + 4 / 16)))
    half, note = error(12, None)
    assert half == known
    assert "12 training groups each (unknown for b, taken from the other arm)" in note
    assert error(12, 12, training_groups=16)[0] == unknown


def test_folds_on_one_test_set_are_no_sample(tmp_path: Path) -> None:
    made = [
        evaluation(tmp_path / f"{arm}{k}", arm, shifted(by), fold=k)
        for arm, by in (("a", 0.0), ("b", 0.03))
        for k in range(5)
    ]
    (b,) = compare(made, "a").arms
    assert b.main is None
    assert "same groups" in b.verdict


def test_two_folds_on_different_cases_are_compared_by_groups(tmp_path: Path) -> None:
    made = folds(tmp_path, "a", level, (4, 4)) + folds(tmp_path, "b", shifted(0.03), (4, 4))
    (b,) = compare(made, "a").arms
    assert b.main is None
    assert len(b.by_group) == 8
    assert b.p == b.weights.p == 2 / 2**8
    assert b.verdict.startswith("Holds for these weights only: b is better than a")
    assert "2 folds; at least 3 are needed to speak of new trainings" in b.verdict
    assert "p-value" not in b.verdict


COUNTS = st.lists(st.tuples(st.integers(1, 5), *[st.integers(1, 2)] * 2), min_size=2, max_size=4)


@settings(max_examples=15, deadline=None)
@given(COUNTS, st.integers(0, 2**32 - 1))
def test_the_columns_of_folds_agree(counts: list[tuple[int, int, int]], stream: int) -> None:
    sizes, *seeds = zip(*counts, strict=True)
    drawn = np.random.default_rng(stream).uniform(0.2, 0.9, (2, sum(sizes), 2))
    with tempfile.TemporaryDirectory() as folder:
        made = [
            run
            for k, arm in enumerate("ab")
            for run in folds(Path(folder), arm, lambda g, s, k=k: drawn[k, g, s], sizes, seeds[k])
        ]
        found = compare(made, "a")
    (b,) = found.arms
    a_facts, b_facts = found.facts
    assert b.difference == pytest.approx(b_facts.mean - a_facts.mean)
    ends = np.cumsum([0, *sizes])
    for facts, values, number in zip(found.facts, drawn, seeds, strict=True):
        means = [values[ends[k] : ends[k + 1], : number[k]].mean() for k in range(len(sizes))]
        assert facts.mean == pytest.approx(np.mean(means))
    assert b.low is not None
    assert b.high is not None
    assert b.weights.low is not None
    assert b.weights.high is not None
    for low, high in ((b.low, b.high), (b.weights.low, b.weights.high)):
        assert -1 <= low <= b.difference <= high <= 1
        if low > -1 and high < 1:  # else it was cut off
            assert (low + high) / 2 == pytest.approx(b.difference)
    assert "the groups of each fold, then folds, which weigh alike" in as_markdown(found)
