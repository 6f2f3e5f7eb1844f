"""Compares one arm with the reference: the primary endpoint and everything exploratory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy import stats

from segweave.comparison.arms import Arm, Item, case_means, group_values
from segweave.comparison.decisions import LEAST_GROUPS
from segweave.comparison.designs import WORDS, Design, Differences, differences
from segweave.comparison.joining import DOING
from segweave.comparison.resampling import group_interval, sign_flip_p
from segweave.comparison.results import (
    ArmComparison,
    CaseTests,
    Exploratory,
    MainTest,
    Shares,
    WeightsTest,
)
from segweave.comparison.variance import MeanSquares, Values
from segweave.errors import InputError
from segweave.evaluation.protocols import FALSE_ALARM
from segweave.evaluation.tables import counted

_TOO_FEW = f"at least {LEAST_GROUPS} are needed for a p-value"
_WHY = {
    True: ": how groups vary is known too poorly from fewer",
    False: " (with five, no pattern of signs is rarer than 2 in 32 = 0.0625)",
}
"""Why, of a main test and of a permutation."""


def compare_pair(
    arm: Arm, reference: Arm, design: Design, *, margin: float | None, case_tests: bool
) -> ArmComparison:
    """The arm against the reference, before Holm and without a verdict."""
    compared = differences(arm, reference, design, arm.primary)
    if compared is None:
        raise InputError(
            DOING,
            expected=f"a group of which every run of {arm.name} and {reference.name} has "
            f"{arm.quantity}",
            found="none",
            remedy=f"leave out the run without {arm.quantity}",
        )
    by_group = compared.by_group
    reasons = list(design.reasons)
    if design.kind != "weights" and len(by_group) < 2:
        reasons.append(
            "How groups vary can't be seen from one: the result does not extend to new ones"
        )
    enough = len(by_group) >= LEAST_GROUPS
    if not enough:
        count = counted(len(by_group), "group")
        reasons.append(f"{count}; {_TOO_FEW}{_WHY[design.kind != 'weights']}")
    values = np.array(list(by_group.values()))
    ours, theirs = (case_means(one, arm.primary) for one in (arm, reference))
    by_case = {case: (ours[case], theirs[case]) for case in sorted(set(ours) & set(theirs))}
    # Not smaller than rounding: equal up to the last digits is equal.
    slack = 1e-12
    limit = 1.0 if arm.primary == "dice" else None
    result = ArmComparison(
        arm=arm.name,
        mean=compared.ours,
        reference_mean=compared.theirs,
        difference=compared.ours - compared.theirs,
        weights=_weights_test(compared.weighed, enough, limit),
        better=int(np.count_nonzero(values > slack)),
        worse=int(np.count_nonzero(values < -slack)),
        equal=int(np.count_nonzero(np.abs(values) <= slack)),
        reasons=reasons,
        by_group=by_group,
        by_case=by_case,
        exploratory=list(_exploratory(arm, reference, design)),
        case_tests=_case_tests(by_case) if case_tests else None,
        shares=_shares(compared.squares),
        own_shares=_shares(compared.own[0]),
        reference_shares=_shares(compared.own[1]),
    )
    spread = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    result.effect_size = float(values.mean()) / spread if spread > slack else None
    _fill_inference(result, compared, design, enough, limit)
    if enough and margin is not None and compared.effect is not None:
        result.p_margin = float(compared.effect.beyond(margin))
    return result


def _fill_inference(
    result: ArmComparison,
    compared: Differences,
    design: Design,
    enough: bool,
    limit: float | None,
) -> None:
    """Intervals, p and what could have been seen, of the main test where there is one. No
    difference is beyond `limit`.
    """
    effect = compared.effect
    if effect is None:
        return
    result.detectable = effect.detectable() if enough and float(effect.error) > 0 else None
    if design.kind == "weights":
        result.p = result.weights.p
        result.low, result.high = result.weights.low, result.weights.high
        result.low90, result.high90 = _ends(*effect.interval(0.90), limit)
        return
    result.low, result.high = _ends(*effect.interval(0.95), limit)
    result.low90, result.high90 = _ends(*effect.interval(0.90), limit)
    result.p = float(effect.p) if enough else None
    result.main = MainTest(
        design=WORDS[design.kind],
        trainings=design.trainings,
        error=float(effect.error),
        critical=float(effect.critical()),
        t=float(np.clip(effect.statistic, -1e9, 1e9)),
        p=result.p,
        low=result.low,
        high=result.high,
    )


def _ends(low: Values | float, high: Values | float, limit: float | None) -> tuple[float, float]:
    """Both ends of an interval of a difference, cut off where no difference can be."""
    if limit is None:
        return float(low), float(high)
    return max(float(low), -limit), min(float(high), limit)


def _shares(squares: MeanSquares | None) -> Shares | None:
    parts = [] if squares is None else [float(part) for part in squares.components()]
    if sum(parts) <= 0:
        return None
    groups, seeds, rest = (part / sum(parts) for part in parts)
    return Shares(groups=groups, seeds=seeds, rest=rest)


def _weights_test(differences: dict[str, float], enough: bool, limit: float | None) -> WeightsTest:
    estimate = group_interval(differences)
    p = sign_flip_p(np.array(list(differences.values()))) if enough else None
    if estimate.low is None or estimate.high is None:
        return WeightsTest(p=p, low=None, high=None, method=estimate.method)
    low, high = _ends(estimate.low, estimate.high, limit)
    return WeightsTest(p=p, low=low, high=high, method=estimate.method)


def _exploratory(arm: Arm, reference: Arm, design: Design) -> Iterator[Exploratory]:
    """The primary metric of each class, then every other metric over all classes."""
    classes = arm.evaluations[0].manifest.classes
    if len(classes) > 1:
        for name in classes:
            yield _one(arm, reference, design, arm.primary, name)
    for metric in arm.units:
        if metric not in (arm.primary, FALSE_ALARM) and not why_left_out(arm, reference, metric):
            yield _one(arm, reference, design, metric, None)


def why_left_out(arm: Arm, reference: Arm, metric: str) -> str:
    """Why two arms can't be compared by a metric; empty where they can."""
    if metric not in arm.units or metric not in reference.units:
        return "not scored in both"
    units = sorted(arm.units[metric] | reference.units[metric])
    if len(units) > 1:
        return " and ".join(unit or "no unit" for unit in units)
    uneven = arm.lacking(metric) or reference.lacking(metric)
    if uneven or arm.items(metric) != reference.items(metric):
        return "not scored on the same classes and slices in every run"
    return ""


def _one(
    arm: Arm, reference: Arm, design: Design, metric: str, class_name: str | None
) -> Exploratory:
    # A distance that one run lacks is left out of all of them; in counting it is the worst.
    failed: set[Item] = set()
    for a in (arm, reference):
        for values in a.failed.values():
            failed |= values.get(metric, set())
    compared = differences(arm, reference, design, metric, class_name=class_name, leave=failed)
    result = Exploratory(
        metric=metric,
        class_name=class_name or "",
        unit=next(iter(arm.units[metric])),
        definition=arm.evaluations[0].manifest.definitions.get(metric, ""),
        groups=len(compared.by_group) if compared else 0,
        difference=compared.ours - compared.theirs if compared else None,
        failed=arm.failures(metric, class_name),
        reference_failed=reference.failures(metric, class_name),
        ruled=arm.ruled(metric, class_name),
        reference_ruled=reference.ruled(metric, class_name),
    )
    if compared is not None and compared.effect is not None:
        result.low, result.high = (float(end) for end in compared.effect.interval())
    result.better, result.worse = _wins(arm, reference, metric, class_name, failed)
    return result


def _wins(
    arm: Arm, reference: Arm, metric: str, class_name: str | None, failed: set[Item]
) -> tuple[int, int]:
    """In how many groups the arm is better, and worse: fewer failures first, then the value."""
    ours, theirs = (_ranking(a, metric, class_name, failed) for a in (arm, reference))
    shared = [(ours[group], theirs[group]) for group in ours if group in theirs]
    return sum(a < b for a, b in shared), sum(a > b for a, b in shared)


def _ranking(
    arm: Arm, metric: str, class_name: str | None, failed: set[Item]
) -> dict[str, tuple[float, float]]:
    """Group → (failures, value with the smaller the better), means over runs."""
    sign = 1.0 if arm.cards[metric].better == "lower" else -1.0
    asked = {
        arm.groups[case]
        for run in arm.runs
        for case, _, name in {*arm.scores[run].get(metric, {}), *arm.failed[run].get(metric, set())}
        if class_name in (None, name)
    }
    values: dict[str, list[float]] = {group: [] for group in asked}
    failures = dict.fromkeys(asked, 0)
    for run in arm.runs:
        for group, value in group_values(
            arm, run, metric, class_name=class_name, leave=failed
        ).items():
            values[group].append(sign * value)
        for item in arm.failed[run].get(metric, set()):
            if class_name is None or item[2] == class_name:
                failures[arm.groups[item[0]]] += 1
    return {
        group: (
            failures[group] / len(arm.runs),
            round(float(np.mean(values[group])), 12) if values[group] else 0.0,
        )
        for group in asked
    }


def _case_tests(by_case: dict[str, tuple[float, float]]) -> CaseTests | None:
    """Student's and Wilcoxon's paired tests over cases."""
    if len(by_case) < 2:
        return None
    ours, theirs = np.array(list(by_case.values())).T
    if np.allclose(ours, theirs, atol=1e-12):
        return CaseTests(cases=len(by_case), t=0.0, t_p=1.0, wilcoxon_p=1.0)
    t = paired_t(ours.tolist(), theirs.tolist())
    return CaseTests(
        cases=len(by_case),
        t=t[0],
        t_p=t[1],
        wilcoxon_p=float(stats.wilcoxon(ours, theirs).pvalue),
    )


def paired_t(after: list[float], before: list[float]) -> tuple[float, float]:
    """Student's paired t and its two-sided p, as the papers compute over baselines or cases."""
    test = stats.ttest_rel(after, before)
    return float(test.statistic), float(test.pvalue)
