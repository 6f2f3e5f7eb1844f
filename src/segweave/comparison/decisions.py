"""Turns numbers into decisions and plain words: Holm's correction, equivalence, the verdict."""

from __future__ import annotations

from collections.abc import Mapping

from segweave.comparison.results import ArmComparison

LEVEL = 0.05
LEAST_GROUPS = 6
LEAST_SEEDS = 3


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's step-down correction (1979): p-values by name, each with the whole family in mind."""
    adjusted: dict[str, float] = {}
    reached = 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        reached = max(reached, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = reached
    return adjusted


def equivalent(low: float | None, high: float | None, margin: float | None) -> bool | None:
    """Whether a 90 % interval lies inside ±margin (two one-sided tests at 5 %); None without
    a margin or an interval.
    """
    if margin is None or low is None or high is None:
        return None
    return -margin < low and high < margin


def verdict(result: ArmComparison, reference: str, family: int, margin: float | None) -> str:
    """One or two sentences for people who read nothing else; `family` arms share Holm's 5 %."""
    opening = "" if result.main else "Holds for these weights only: "
    text = opening + _finding(result, reference, family, margin, inside=bool(opening))
    return " ".join([f"{text}.", *(f"{reason}." for reason in result.reasons)])


def _finding(
    result: ArmComparison, reference: str, family: int, margin: float | None, *, inside: bool
) -> str:
    arm, difference = result.arm, result.difference
    if result.p_holm is None:
        text = (
            f"{arm} scores {difference:+.4f} Dice against {reference}{_interval(result)}; "
            "whether this is more than chance is not decided"
        )
    elif _disagree(result):
        text = (
            f"whether {arm} differs from {reference} is not decided ({difference:+.4f} Dice"
            f"{_interval(result, ', ')} by {result.weights.method}, {_p(result, family)} by "
            "permutation: the two disagree)"
        )
    elif result.p_holm < LEVEL:
        word = "better" if difference > 0 else "worse"
        text = f"{arm} is {word} than {reference} by {abs(difference):.4f} Dice"
        text += f"{_interval(result)}, {_p(result, family)}"
        return f"{text}, yet by less than the margin of {margin:g}" if result.equivalent else text
    elif result.equivalent:
        return (
            f"{arm} and {reference} are equivalent within ±{margin:g} Dice "
            f"({_interval90(result)} of the difference)"
        )
    else:
        text = (
            f"{'no' if inside else 'No'} difference between {arm} and {reference} is shown "
            f"({difference:+.4f} Dice{_interval(result, ', ')}, {_p(result, family)})"
        )
        if result.detectable is not None:
            text += (
                ", which does not prove that there is none: a true one of "
                f"{result.detectable:.4f} would be found four times in five"
                f"{' by a single test at 5 %, before Holm' if family > 1 else ''}, smaller ones "
                "are easily missed"
            )
    return text + _equivalence(result, margin)


def _disagree(result: ArmComparison) -> bool:
    """Whether p and interval, for these weights from different methods, disagree. That
    Holm's correction makes p larger, while no interval is corrected, does not count.
    """
    if result.main or result.p is None or result.p_holm is None:
        return False
    if result.low is None or result.high is None:
        return False
    if result.low <= 0 <= result.high:
        return result.p_holm < LEVEL
    return result.p >= LEVEL


def _equivalence(result: ArmComparison, margin: float | None) -> str:
    """The result about equivalence, where the finding does not have it."""
    if margin is None:
        return ""
    if result.equivalent is None:
        return f"; equivalence within ±{margin:g} is not tested below {LEAST_GROUPS} groups"
    shown = "they are equivalent" if result.equivalent else "equivalence is not shown either"
    return f"; within ±{margin:g} {shown} ({_interval90(result)})"


def _interval(result: ArmComparison, joint: str = " (") -> str:
    if result.low is None or result.high is None:
        return ""
    end = ")" if joint == " (" else ""
    return f"{joint}95 % interval {result.low:+.4f} to {result.high:+.4f}{end}"


def _interval90(result: ArmComparison) -> str:
    return f"90 % interval {result.low90:+.4f} to {result.high90:+.4f}"


def _p(result: ArmComparison, family: int) -> str:
    assert result.p_holm is not None
    value = "p < 0.001" if result.p_holm < 0.001 else f"p = {result.p_holm:.3f}"
    return f"{value} after Holm over {family} arms" if family > 1 else value
