"""Finds out what the runs of two arms are a sample of, and which variance formula that asks for."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from segweave.comparison.arms import Arm, Item, RunKey, group_values
from segweave.comparison.decisions import GOOD_SEEDS, LEAST_SEEDS
from segweave.comparison.joining import DOING
from segweave.comparison.variance import (
    Effect,
    MeanSquares,
    fold_effect,
    group_effect,
    mean_squares,
    paired_effect,
    unpaired_effect,
)
from segweave.errors import UsageError
from segweave.evaluation.tables import counted

Kind = Literal["paired", "unpaired", "folds", "weights"]
WORDS: dict[Kind, str] = {
    "paired": "groups × seeds, both random, seeds paired",
    "unpaired": "groups × seeds, both random, seeds not paired",
    "folds": "one mean difference per fold",
    "weights": "groups, for these weights",
}

BY_RUN = "over groups and runs"
BY_FOLD = "over the seeds of each group, the groups of each fold, then folds, which weigh alike"


@dataclass(frozen=True)
class Design:
    """How two arms are compared; `reasons` state what forbids a result about new trainings.
    `by_fold` where folds were scored on different groups, so that means go over seeds, groups,
    then folds. `trainings` is how many seeds or folds there are, in words.
    """

    kind: Kind
    trainings: str = ""
    reasons: tuple[str, ...] = ()
    by_fold: bool = False
    test_over_training: float = 0.0
    note: str = ""


@dataclass
class Differences:
    """Differences of one metric: `by_group` means over runs, `weighed` the same, but such that
    their mean is `ours` − `theirs` (folds weigh alike, whatever their number of groups), `effect`
    that mean with its variance (None below two groups). From two seeds on, `squares` are those of
    the differences where the seeds are paired, else `own` those of either arm's values.
    """

    by_group: dict[str, float]
    weighed: dict[str, float]
    effect: Effect | None = None
    squares: MeanSquares | None = None
    own: tuple[MeanSquares | None, MeanSquares | None] = (None, None)
    ours: float = 0.0
    theirs: float = 0.0
    by_fold: dict[int, float] = field(default_factory=dict)


def design_of(arm: Arm, reference: Arm, training_groups: int | None = None) -> Design:
    """The design of two arms. Raises UsageError where one has folds that the other lacks."""
    if max(len(arm.folds), len(reference.folds)) >= 2:
        return _fold_design(arm, reference, training_groups)
    seeds = [[seed for seed, _ in a.runs] for a in (arm, reference)]
    counts = [len(seeds_of_arm) for seeds_of_arm in seeds]
    if min(counts) < LEAST_SEEDS:
        have = " and ".join(
            f"{a.name} has {counted(n, 'training')}"
            for a, n in zip((arm, reference), counts, strict=True)
        )
        return Design(
            "weights",
            reasons=(
                f"{have}; at least {LEAST_SEEDS} of each are needed to speak of new ones, "
                f"{GOOD_SEEDS} or more are better",
            ),
        )
    words = " and ".join(str(n) for n in dict.fromkeys(sorted(counts)))
    note = ""
    if min(counts) < GOOD_SEEDS:
        note = (
            f"With {min(counts)} seeds the main test keeps its level by giving up power: "
            f"{GOOD_SEEDS} seeds or more are asked for."
        )
    kind: Kind = "paired" if set(seeds[0]) == set(seeds[1]) else "unpaired"
    return Design(kind, f"{words} seeds", note=note)


def _fold_design(arm: Arm, reference: Arm, training_groups: int | None) -> Design:
    tested = [_groups_by_fold(a) for a in (arm, reference)]
    if tested[0] != tested[1]:
        other = sorted(
            fold
            for fold in set(tested[0]) | set(tested[1])
            if tested[0].get(fold) != tested[1].get(fold)
        )
        raise UsageError(
            f"{DOING} by folds",
            expected=f"{arm.name} and {reference.name} with the same folds and cases in each",
            found=f"other cases, or none, in fold {', '.join(map(str, other))}",
            remedy="evaluate both arms on the same folds",
        )
    folds = list(tested[0].values())
    everyone = set().union(*folds)
    if all(groups == everyone for groups in folds):
        return Design(
            "weights",
            reasons=(
                "All folds were scored on the same groups, and their trainings share data: they "
                "are a sample neither of groups nor of trainings",
            ),
        )
    if len(folds) < LEAST_SEEDS:
        short = f"{len(folds)} folds; at least {LEAST_SEEDS} are needed to speak of new trainings"
        return Design("weights", reasons=(short,), by_fold=True)
    test = float(np.mean([len(groups) for groups in folds]))
    training, remark = float(training_groups or 0), ""
    if training_groups is None:
        stated = {a.name: a.training_groups for a in (arm, reference)}
        numbers = [groups for groups in stated.values() if groups is not None]
        # The arm that was trained on fewer bounds what the two may claim.
        training = min(numbers, default=len(everyone) - test)
        unknown = [name for name, groups in stated.items() if groups is None]
        if unknown and numbers:
            remark = f" (unknown for {unknown[0]}, taken from the other arm)"
        elif unknown:
            remark = " (how many is unknown: all others; fewer if some were kept aside)"
    note = (
        f"Folds share training data: one mean difference per fold, {len(folds)} folds, {test:g} "
        f"test and {training:g} training groups each{remark}."
    )
    return Design(
        "folds",
        counted(len(folds), "fold"),
        by_fold=True,
        test_over_training=test / max(training, 1.0),
        note=note,
    )


def _groups_by_fold(arm: Arm) -> dict[int, frozenset[str]]:
    groups_of_fold: dict[int, set[str]] = defaultdict(set)
    for run in arm.runs:
        groups_of_fold[-1 if run[1] is None else run[1]] |= {arm.groups[c] for c in arm.cases(run)}
    return {fold: frozenset(groups) for fold, groups in groups_of_fold.items()}


def differences(
    arm: Arm,
    reference: Arm,
    design: Design,
    metric: str,
    *,
    class_name: str | None = None,
    leave: set[Item] | None = None,
) -> Differences | None:
    """Differences of one metric, of one class or the mean over classes; groups where a run of
    either arm has no value are left out. None where no group is left.
    """
    mine, theirs = (
        {run: group_values(a, run, metric, class_name=class_name, leave=leave) for run in a.runs}
        for a in (arm, reference)
    )
    if design.by_fold:
        return _by_folds(mine, theirs, design)
    # The runs of folds on one test set, or of unknown seeds, stand beside each other like seeds.
    held = [set(values) for values in (*mine.values(), *theirs.values())]
    groups = sorted(set.intersection(*held))
    if not groups:
        return None
    a, b = (_table(runs, groups) for runs in (mine, theirs))
    by_group = a.mean(1) - b.mean(1)
    named = dict(zip(groups, by_group.tolist(), strict=True))
    result = Differences(
        named,
        weighed=named,
        ours=float(a.mean()),
        theirs=float(b.mean()),
    )
    if len(groups) < 2:
        return result
    if design.kind == "paired":
        result.effect = paired_effect(a - b)
    elif design.kind == "unpaired":
        result.effect = unpaired_effect(a, b)
    else:
        result.effect = group_effect(by_group)
    if len({fold for _, fold in (*mine, *theirs)} - {None}) < 2:  # runs differ in seed alone
        if {seed for seed, _ in mine} != {seed for seed, _ in theirs}:
            result.own = (_squares(a), _squares(b))
        else:
            result.squares = _squares(a - b)
    return result


def _squares(values: NDArray[np.float64]) -> MeanSquares | None:
    return mean_squares(values) if values.shape[1] > 1 else None


def _table(runs: dict[RunKey, dict[str, float]], groups: list[str]) -> NDArray[np.float64]:
    """(groups, runs), runs by seed so that paired ones stand in one column."""
    order = sorted(runs, key=lambda run: -1 if run[0] is None else run[0])
    return np.array([[runs[run][group] for run in order] for group in groups])


def _by_folds(
    mine: dict[RunKey, dict[str, float]], theirs: dict[RunKey, dict[str, float]], design: Design
) -> Differences | None:
    ours, others = _fold_means(mine), _fold_means(theirs)
    by_fold: dict[int, float] = {}
    groups: dict[str, list[float]] = defaultdict(list)
    parts: dict[str, float] = defaultdict(float)
    levels = []
    for fold in ours:
        shared = sorted(set(ours[fold]) & set(others.get(fold, {})))
        if not shared:
            continue
        a, b = (np.array([means[fold][g] for g in shared]) for means in (ours, others))
        by_fold[fold] = float((a - b).mean())
        levels.append((a.mean(), b.mean()))
        for group, difference in zip(shared, (a - b).tolist(), strict=True):
            groups[group].append(difference)
            parts[group] += difference / len(shared)
    if not by_fold:
        return None
    alike = len(groups) / len(by_fold)
    result = Differences(
        {group: float(np.mean(values)) for group, values in sorted(groups.items())},
        weighed={group: part * alike for group, part in sorted(parts.items())},
        ours=float(np.mean([a for a, _ in levels])),
        theirs=float(np.mean([b for _, b in levels])),
        by_fold=by_fold,
    )
    if design.kind == "weights" and len(groups) > 1:
        result.effect = group_effect(np.array(list(result.weighed.values())))
    elif design.kind == "folds" and len(by_fold) > 1:
        result.effect = fold_effect(np.array(list(by_fold.values())), design.test_over_training)
    return result


def _fold_means(runs: dict[RunKey, dict[str, float]]) -> dict[int, dict[str, float]]:
    """Fold → group → mean over seeds."""
    values: dict[int, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for (_, fold), groups in runs.items():
        for group, value in groups.items():
            values[-1 if fold is None else fold][group].append(value)
    return {
        fold: {group: float(np.mean(seeds)) for group, seeds in groups.items()}
        for fold, groups in sorted(values.items())
    }
