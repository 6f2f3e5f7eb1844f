"""Verdicts claim nothing that the numbers beside them deny, and leave no question unanswered."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segweave.comparison import Comparison, as_markdown, compare
from segweave.comparison.decisions import LEVEL, verdict
from segweave.comparison.results import ArmComparison, WeightsTest
from tests.comparison.made import arms, level, shifted

SHARES = st.floats(0, 1)
ENDS = st.tuples(st.floats(-0.2, 0.2), SHARES, SHARES)
MARGINS = st.sampled_from([None, 0.01, 0.05])


def result(
    p: float | None, low: float, width: float, equivalent: bool | None = None
) -> ArmComparison:
    return ArmComparison(
        arm="b",
        mean=0.8,
        reference_mean=0.7,
        difference=low + width / 2,
        low=low,
        high=low + width,
        low90=low + width / 20,
        high90=low + width * 19 / 20,
        p=p,
        p_holm=p,
        weights=WeightsTest(p=p, low=low, high=low + width, method="t over groups"),
        better=1,
        worse=1,
        equal=0,
        detectable=0.02,
        equivalent=equivalent,
    )


@given(SHARES, ENDS, st.booleans(), MARGINS, st.integers(1, 4))
def test_no_winner_where_the_interval_holds_zero(
    p: float, ends: tuple[float, float, float], equivalent: bool, margin: float | None, family: int
) -> None:
    given_ = result(p, *ends[:2], equivalent=equivalent if margin else None)
    text = verdict(given_, "a", family, margin)
    inside = given_.low <= 0 <= given_.high  # type: ignore[operator]
    winner = "b is better than a" in text or "b is worse than a" in text
    assert not (winner and inside)
    assert ("the two disagree" in text) == ((p < LEVEL) == inside)
    if margin and not winner:
        assert f"±{margin}" in text


def test_permutation_against_t_by_one_group(tmp_path: Path) -> None:
    far = [0.001] * 5 + [0.1]
    made = arms(
        tmp_path,
        {"a": lambda g, s: 0.8, "b": lambda g, s: 0.8 + far[g]},
        groups=range(6),
        seeds=(0,),
    )
    (b,) = compare(made, "a", margin=0.06).arms
    assert b.p == 2 / 2**6
    assert (
        "whether b differs from a is not decided (+0.0175 Dice, 95 % interval -0.0249 to +0.0599 "
        "by t over groups, p = 0.031 by permutation: the two disagree); within ±0.06 they are "
        "equivalent (90 % interval"
    ) in b.verdict


def test_a_correction_is_no_disagreement() -> None:
    given_ = result(0.02, 0.01, 0.02)
    given_.p_holm = 0.06
    assert "no difference between b and a is shown" in verdict(given_, "a", 3, None)


def compared(
    folder: Path, groups: int, names: str = "b", margin: float | None = None
) -> Comparison:
    dice = {"a": level, **{name: shifted(0.0, 0.01) for name in names}}
    return compare(arms(folder, dice, groups=range(groups)), "a", margin=margin)


def test_a_margin_is_answered_below_six_groups(tmp_path: Path) -> None:
    found = compared(tmp_path, 5, margin=0.01)
    assert "; equivalence within ±0.01 is not tested below 6 groups." in found.verdicts[0]
    assert "| not tested |" in as_markdown(found)


def test_a_margin_that_is_not_met_is_answered(tmp_path: Path) -> None:
    (b,) = compared(tmp_path, 8, margin=0.001).arms
    assert b.equivalent is False
    assert "easily missed; within ±0.001 equivalence is not shown either (90 %" in b.verdict


@pytest.mark.parametrize(("names", "words"), [("b", False), ("bc", True)])
def test_power_is_that_of_a_single_test(tmp_path: Path, names: str, words: bool) -> None:
    text = compared(tmp_path, 8, names).verdicts[0]
    assert "found four times in five" in text
    assert ("by a single test at 5 %, before Holm" in text) == words


def test_one_group_says_why_nothing_is_said_of_new_ones(tmp_path: Path) -> None:
    (text,) = compared(tmp_path, 1).verdicts
    assert text.startswith("Holds for these weights only: b scores ")
    assert "How groups vary can't be seen from one" in text
