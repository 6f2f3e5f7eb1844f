"""Turns numbers into decisions and plain words: Holm's correction, equivalence, the verdict."""

from __future__ import annotations

from collections.abc import Mapping

from segweave.comparison.results import ArmComparison

LEVEL = 0.05
LEAST_GROUPS = 6
LEAST_SEEDS = 3
GOOD_SEEDS = 5
"""From here on the main test loses little power by holding its level."""


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's step-down correction (1979): p-values by name, each with the whole family in mind."""
    adjusted: dict[str, float] = {}
    reached = 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        reached = max(reached, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = reached
    return adjusted


def verdict(
    result: ArmComparison,
    reference: str,
    family: int,
    margin: float | None,
    quantity: str = "Dice",
) -> str:
    """One or two sentences for people who read nothing else; `family` arms share Holm's 5 %,
    `quantity` is what is compared. What limits the finding is part of its sentence.
    """
    opening = "" if result.main else "Holds for these weights only: "
    text = opening + _finding(result, reference, family, margin, quantity, inside=bool(opening))
    if result.limits:
        text += f"; limits: {'; '.join(result.limits)}"
    return " ".join([f"{text}.", *(f"{reason}." for reason in result.reasons)])


def _finding(
    result: ArmComparison,
    reference: str,
    family: int,
    margin: float | None,
    quantity: str,
    *,
    inside: bool,
) -> str:
    arm, difference = result.arm, result.difference
    if result.p_holm is None:
        text = (
            f"{arm} scores {difference:+.4f} {quantity} against {reference}{_interval(result, 1)}; "
            "from so few groups this is rough, and whether it is more than chance is not decided"
        )
    elif _disagree(result):
        text = (
            f"whether {arm} differs from {reference} is not decided ({difference:+.4f} {quantity}"
            f"{_interval(result, family, ', ')} by {result.weights.method}, "
            f"{_p(result.p_holm, family)} by permutation: the two disagree)"
        )
    elif result.p_holm < LEVEL:
        word = "better" if difference > 0 else "worse"
        text = f"{arm} is {word} than {reference} by {abs(difference):.4f} {quantity}"
        text += f"{_interval(result, family)}, {_p(result.p_holm, family)}"
        if result.equivalent:
            return f"{text}, yet by less than the margin of {margin:g}{_p_margin(result, family)}"
        return text
    elif result.equivalent:
        return (
            f"{arm} and {reference} are equivalent within ±{margin:g} {quantity} "
            f"({_interval90(result, family)} of the difference{_p_margin(result, family)})"
        )
    else:
        text = (
            f"{'no' if inside else 'No'} difference between {arm} and {reference} is shown "
            f"({difference:+.4f} {quantity}{_interval(result, family, ', ')}, "
            f"{_p(result.p_holm, family)})"
        )
        if result.detectable is not None:
            basis = f", judging by {result.main.trainings}" if result.main else ""
            text += (
                ", which does not prove that there is none: a true one of about "
                f"{result.detectable:.2g} would be found four times in five"
                f"{' by a single test at 5 %, before Holm' if family > 1 else ''}{basis}, smaller "
                "ones are easily missed"
            )
    return text + _equivalence(result, family, margin)


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


def _equivalence(result: ArmComparison, family: int, margin: float | None) -> str:
    """The result about equivalence, where the finding does not have it."""
    if margin is None:
        return ""
    if result.equivalent is None:
        return f"; equivalence within ±{margin:g} is not tested below {LEAST_GROUPS} groups"
    shown = "they are equivalent" if result.equivalent else "equivalence is not shown either"
    numbers = f"{_interval90(result, family)}{_p_margin(result, family)}"
    return f"; within ±{margin:g} {shown} ({numbers})"


def _interval(result: ArmComparison, family: int, joint: str = " (") -> str:
    if result.low is None or result.high is None:
        return ""
    end = ")" if joint == " (" else ""
    ends = f"{result.low:+.4f} to {result.high:+.4f}"
    return f"{joint}95 % interval{_alone(family)} {ends}{end}"


def _interval90(result: ArmComparison, family: int) -> str:
    return f"90 % interval{_alone(family)} {result.low90:+.4f} to {result.high90:+.4f}"


def _alone(family: int) -> str:
    """Beside a corrected p: the interval is not corrected."""
    return " of this comparison alone" if family > 1 else ""


def _p_margin(result: ArmComparison, family: int) -> str:
    return "" if result.p_margin_holm is None else f", {_p(result.p_margin_holm, family)}"


def _p(value: float, family: int) -> str:
    text = "p < 0.001" if value < 0.001 else f"p = {value:.3f}"
    return f"{text} after Holm over {family} arms" if family > 1 else text
