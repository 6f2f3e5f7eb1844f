"""Reads evaluation folders, joins them by arm, and refuses arms that must not be compared."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from segweave.comparison.arms import Arm, Item
from segweave.comparison.joining import DOING, arm_name, labels_of
from segweave.errors import InputError, UsageError
from segweave.evaluation.folder import read_evaluation
from segweave.evaluation.protocols import FALSE_ALARM
from segweave.evaluation.rows import Evaluation, Row

_SHOWN = 5


def read_arms(folders: Sequence[str | Path | Evaluation]) -> dict[str, Arm]:
    """Arms by label, in the order in which they come (see `segweave.comparison.joining`). Raises
    UsageError or InputError where arms can't be compared, naming what differs.
    """
    evaluations = [_read(folder) for folder in folders]
    if not evaluations:
        raise UsageError(DOING, expected="evaluation folders", found="none")
    _check_protocols(evaluations)
    labels = labels_of(evaluations)
    arms: dict[str, Arm] = {}
    for evaluation in evaluations:
        for row in evaluation.rows:
            name = arm_name(row, evaluation)
            arm = arms.setdefault(labels[name], Arm(labels[name]))
            arm.names.add(name)
            if evaluation not in arm.evaluations:
                arm.evaluations.append(evaluation)
            _add(arm, row, evaluation)
    _check_choices(arms.values())
    _check_cases(list(arms.values()))
    return arms


def _read(folder: str | Path | Evaluation) -> Evaluation:
    if isinstance(folder, Evaluation):
        return folder
    held = sorted(path.parent for path in Path(folder).glob("evaluation/*/manifest.json"))
    if held and not (Path(folder) / "manifest.json").is_file():
        raise InputError(
            DOING,
            file=folder,
            expected="an evaluation folder",
            found="a run",
            remedy="name its evaluation: " + " or ".join(map(str, held)),
        )
    return read_evaluation(folder)


def _add(arm: Arm, row: Row, evaluation: Evaluation) -> None:
    score, run = row.score, (row.seed, row.fold)
    if arm.groups.setdefault(row.case, row.group) != row.group:
        raise InputError(
            DOING,
            file=evaluation.folder,
            expected=f"the case {row.case} in the group {arm.groups[row.case]}",
            found=row.group,
        )
    values = arm.scores.setdefault(run, defaultdict(dict))[score.metric]
    failed = arm.failed.setdefault(run, defaultdict(set))[score.metric]
    ruled = arm.by_rule.setdefault(run, defaultdict(set))[score.metric]
    item = (row.case, score.slice, score.class_name)
    if score.metric == "dice" and not 0 <= (score.value or 0.0) <= 1:
        raise InputError(
            DOING,
            file=evaluation.folder,
            expected="Dice between 0 and 1",
            found=f"{score.value:g} for {row.case}",
            remedy="divide values in percent by 100" if (score.value or 0) > 1 else None,
        )
    if item in values or item in failed:
        raise InputError(
            DOING,
            file=evaluation.folder,
            expected=f"each case of the arm {arm.name!r} once for each seed and fold",
            found=f"{row.case} twice (seed {row.seed}, fold {row.fold})",
            remedy=f"{' and '.join(sorted(arm.names))} have equal recipes and are one arm: leave "
            "out the second run with this seed"
            if len(arm.names) > 1
            else "give each run its own seed or arm name when it is evaluated",
        )
    if score.value is None:
        failed.add(item)
    else:
        values[item] = score.value
        if score.status == "rule":
            ruled.add(item)
    arm.units.setdefault(score.metric, set()).add(score.unit)
    if score.metric == FALSE_ALARM:
        raised, asked = arm.alarms
        arm.alarms = raised + int((score.value or 0) > 0), asked + 1


def _check_protocols(evaluations: Sequence[Evaluation]) -> None:
    first = evaluations[0]
    problems = []
    for other in evaluations[1:]:
        a, b = first.manifest, other.manifest
        for what, ours, theirs in (
            ("protocol", a.protocol, b.protocol),
            ("classes", ", ".join(a.classes), ", ".join(b.classes)),
            ("kind of labels", a.kind, b.kind),
            ("order of means", a.means, b.means),
            *(
                (f"definition of {metric}", a.definitions[metric], b.definitions[metric])
                for metric in a.definitions
                if metric in b.definitions
            ),
        ):
            if ours != theirs:
                problems.append(
                    f"{what}: {first.folder} has {ours!r}, {other.folder} has {theirs!r}"
                )
    if problems:
        raise UsageError(
            f"{DOING} that were scored under different rules",
            expected="one protocol and one set of classes",
            found="\n    " + "\n    ".join(problems),
            remedy="evaluate all arms under one protocol, or make two comparisons",
        )


def _check_choices(arms: Iterable[Arm]) -> None:
    given = list(arms)
    for what, words in (
        ("checkpoint", "whose weights were chosen by different rules"),
        ("part", "scored on different parts of their data"),
    ):
        known = {arm.name: arm.known(what) for arm in given}
        if len(set().union(*known.values())) > 1:
            shown = [f"{name}: {' and '.join(sorted(k)) or 'unknown'}" for name, k in known.items()]
            raise UsageError(
                f"{DOING} {words}",
                expected=f"one {what}",
                found="; ".join(shown),
                remedy=f"evaluate all arms with the same {what}",
            )


def _check_cases(arms: Sequence[Arm]) -> None:
    """The same cases in the same groups, and the same classes counting in each, in every arm."""
    for arm in arms:
        if not any(arm.primary in values for values in arm.scores.values()):
            raise InputError(
                DOING,
                expected=f"{arm.quantity} of the arm {arm.name!r}",
                found=", ".join(sorted(arm.units)),
            )
    first = arms[0]
    for arm in arms[1:]:
        problems = []
        missing = sorted(set(first.groups) - set(arm.groups))
        extra = sorted(set(arm.groups) - set(first.groups))
        if missing:
            problems.append(f"only in {first.name}: {_some(missing)}")
        if extra:
            problems.append(f"only in {arm.name}: {_some(extra)}")
        if not problems:
            moved = [c for c in sorted(arm.groups) if arm.groups[c] != first.groups[c]]
            if moved:
                problems.append(f"in other groups: {_some(moved)}")
            items, others = _items(first), _items(arm)
            if items != others:
                cases = sorted({case for case, _, _ in items ^ others})
                problems.append(f"other classes or slices count in: {_some(cases)}")
            ours, theirs = first.references, arm.references
            other = [c for c in sorted(ours) if len(ours[c] | theirs.get(c, set())) > 1]
            if other:
                problems.append(f"other true labels in: {_some(other)}")
        if problems:
            raise UsageError(
                f"{DOING} that were scored on different cases",
                expected=f"{arm.name} on the cases and references of {first.name}",
                found="; ".join(problems),
                remedy="evaluate both on the same cases and the same references",
            )
    for arm in arms:
        _check_runs(arm)


def _check_runs(arm: Arm) -> None:
    """All runs of an arm, or of one of its folds, have scored the same cases, and the same
    classes in each, and no seed is both in a fold and without one: it may be one training, scored
    twice.
    """
    loose = {seed for seed, fold in arm.scores if fold is None}
    doubled = [run for run in arm.runs if run[1] is not None and run[0] in loose]
    if doubled:
        raise InputError(
            DOING,
            expected=f"a fold for each run of {arm.name}, or for none",
            found="seed {} once without a fold and once in fold {}".format(*doubled[0]),
            remedy="leave one out if both are the same training, else evaluate it with its fold",
        )
    folds: list[int | None] = [*arm.folds] if len(arm.folds) > 1 else [None]
    for fold in folds:
        runs = [run for run in arm.runs if fold is None or run[1] == fold]
        cases = set().union(*(arm.cases(run) for run in runs))
        for run in runs:
            if lacking := sorted(cases - arm.cases(run)):
                raise InputError(
                    DOING,
                    expected=f"all {len(cases)} cases from each run of {arm.name}",
                    found=f"seed {run[0]}, fold {run[1]} lacks {_some(lacking)}",
                    remedy="evaluate that run again, or leave it out",
                )
    for run, items in arm.lacking(arm.primary).items():
        raise InputError(
            DOING,
            expected=f"{arm.quantity} of the same classes and slices from each run of {arm.name}",
            found=f"seed {run[0]}, fold {run[1]} lacks {_some(sorted(map(_in_words, items)))}",
            remedy="evaluate that run again, or leave it out",
        )


def _in_words(item: Item) -> str:
    case, index, name = item
    return f"{name} of {case}" + ("" if index is None else f", slice {index}")


def _items(arm: Arm) -> set[Item]:
    return set().union(*(values.get(arm.primary, {}) for values in arm.scores.values()))


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
