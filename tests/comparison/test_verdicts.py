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
    assert "; equivalence within ±0.01 is not tested below 6 groups; " in found.verdicts[0]
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


# What limits a verdict is part of its sentence.


def sentence(text: str, words: str) -> str:
    """The sentence that holds the finding."""
    (found,) = [part for part in text.split(". ") if words in part]
    return found


LIMITS = {
    "chosen on the test set": {"checkpoint": "best-on-test"},
    "validation cases, on which choices were made": {"sources": {"part": "validation"}},
    "training cases, from which the networks learned": {"sources": {"part": "training"}},
    "those among them from which the networks learned": {
        "sources": {"part": "all", "store": "acdc"},
        "recipe": {"data": {"store": "acdc"}},
    },
    "groups unknown": {"grouped": False},
    "had been scored before": {"tested": {"clean": 2}},
    "boxes taken from the reference": {"prompt": "box"},
}


@pytest.mark.parametrize("shift", [0.03, 0.0])
@pytest.mark.parametrize("seeds", [(0, 1, 2), (0,)])
@pytest.mark.parametrize("words", LIMITS)
def test_a_verdict_carries_what_limits_it(
    tmp_path: Path, words: str, seeds: tuple[int, ...], shift: float
) -> None:
    dice = {"a": level, "b": shifted(shift, 0.01)}
    (plain,) = compare(arms(tmp_path / "plain", dice, seeds=seeds), "a").verdicts
    assert words not in plain
    made = arms(tmp_path / "limited", dice, seeds=seeds, **LIMITS[words])
    (b,) = compare(made, "a").arms
    assert words in sentence(b.verdict, "95 % interval")
    assert any(words in limit for limit in b.limits)


def test_another_data_set_is_no_limit(tmp_path: Path) -> None:
    dice = {"a": level, "b": shifted(0.03)}
    made = arms(
        tmp_path,
        dice,
        sources={"part": "all", "store": "etis"},
        recipe={"data": {"store": "clinicdb"}},
    )
    found = compare(made, "a")
    assert found.arms[0].limits == ["new seeds on this training set"]
    assert not any("choices were made" in note for note in found.notes)


def test_new_seeds_are_not_new_training_sets(tmp_path: Path) -> None:
    dice = {"a": level, "b": shifted(0.03)}
    (many,) = compare(arms(tmp_path / "m", dice, seeds=range(5)), "a").arms
    assert "limits: new seeds on this training set" in many.verdict
    (one,) = compare(arms(tmp_path / "1", dice, seeds=(0,)), "a").arms
    assert "this training set" not in one.verdict  # it speaks of no new training at all


def test_an_interval_beside_a_corrected_p_is_named_as_uncorrected(tmp_path: Path) -> None:
    text = compared(tmp_path, 8, "bc").verdicts[0]
    assert "95 % interval of this comparison alone" in text
    assert "of this comparison alone" not in compared(tmp_path / "one", 8).verdicts[0]


def test_what_is_detectable_is_a_guess_and_says_on_what_it_rests(tmp_path: Path) -> None:
    found = compared(tmp_path, 8)
    (b,) = found.arms
    assert f"a true one of about {b.detectable:.2g} would be" in b.verdict
    assert "judging by 3 seeds" in b.verdict
    assert "| smallest detectable, about |" in as_markdown(found)


def test_five_groups_have_the_reason_of_their_test(tmp_path: Path) -> None:
    dice = {"a": level, "b": shifted(0.03)}
    (main,) = compare(arms(tmp_path / "3", dice, groups=range(5)), "a").verdicts
    assert "how groups vary is known too poorly" in main
    assert "0.0625" not in main
    (signs,) = compare(arms(tmp_path / "1", dice, groups=range(5), seeds=(0,)), "a").verdicts
    assert "2 in 32 = 0.0625" in signs


# Equivalence: corrected over the arms, by a margin whose time is known.


def test_equivalence_is_corrected_over_the_arms(tmp_path: Path) -> None:
    dice = {"a": level, **{name: shifted(0.0, 0.01) for name in "bcde"}}
    made = arms(tmp_path, dice)
    free = compare(made, "a").arms[0]
    assert free.low90 is not None
    assert free.high90 is not None
    margin = 1.02 * max(-free.low90, free.high90)
    together = compare(made, "a", margin=margin)
    (alone,) = compare([e for e in made if e.manifest.arms[0] in "ab"], "a", margin=margin).arms
    assert alone.equivalent
    assert alone.p_margin == pytest.approx(together.arms[0].p_margin)
    for arm in together.arms:
        assert arm.p_margin_holm is not None
        assert arm.p_margin_holm >= 4 * 0.9 * min(a.p_margin or 1 for a in together.arms)
        assert arm.equivalent == (arm.p_margin_holm < LEVEL)
    assert not together.arms[0].equivalent
    assert "after Holm over 4 arms" in together.arms[0].verdict.partition("within ±")[2]


MARGIN = {"margin": 0.05, "margin_reason": "a reader's own two tracings differ by more"}


def test_a_margin_that_was_fixed_before_is_taken_and_its_reason_printed(tmp_path: Path) -> None:
    made = arms(tmp_path, {"a": level, "b": shifted(0.0)}, **MARGIN)
    found = compare(made, "a")
    assert (found.margin, found.arms[0].equivalent) == (0.05, True)
    text = as_markdown(found)
    assert "fixed before the trainings: a reader's own two tracings differ by more" in text
    assert "given after the scores" not in text
    assert compare(made, "a", margin=0.05).verdicts == found.verdicts


@pytest.mark.parametrize("stated", [{}, {"margin": 0.02, "margin_reason": "tighter"}])
def test_a_margin_that_was_given_afterwards_is_named_as_such(
    tmp_path: Path, stated: dict[str, object]
) -> None:
    made = arms(tmp_path, {"a": level, "b": shifted(0.0)}, **stated)
    found = compare(made, "a", margin=0.05)
    assert "; margin given after the scores" in sentence(found.verdicts[0], "equivalent within")
    assert "No run states this margin" in as_markdown(found)


def test_a_margin_that_some_runs_lack_is_not_taken(tmp_path: Path) -> None:
    made = arms(tmp_path / "a", {"a": level}, **MARGIN)
    made += arms(tmp_path / "b", {"b": shifted(0.0)})
    assert compare(made, "a").margin is None
    assert "given after the scores" in compare(made, "a", margin=0.05).verdicts[0]
