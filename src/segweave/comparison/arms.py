"""Reads evaluation folders, joins them by arm, and refuses arms that must not be compared."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from segweave.comparison.joining import DOING, arm_name, labels_of
from segweave.errors import InputError, UsageError, nearest
from segweave.evaluation.folder import read_evaluation
from segweave.evaluation.protocols import FALSE_ALARM
from segweave.evaluation.rows import Evaluation, Manifest, MetricEntry, Row

RunKey = tuple[int | None, int | None]
"""(seed, fold) of one run; None where unknown."""
Item = tuple[str, int | None, str]
"""(case, slice, class) of one score of a metric."""
_SHOWN = 5


@dataclass
class Arm:
    """All runs of one arm.

    Attributes:
        name: the label in tables.
        names: every name that the arm's evaluations give it.
        evaluations: the evaluations that hold its runs.
        groups: case → group.
        scores: run → metric → (case, slice, class) → value.
        failed: run → metric → those without a value.
        by_rule: run → metric → those whose value the protocol set, because the class is missing
            in the prediction or in the reference.
        units: metric → units.
        alarms: how many false alarms there are, of how many possible ones.
    """

    name: str
    names: set[str] = field(default_factory=set)
    evaluations: list[Evaluation] = field(default_factory=list)
    groups: dict[str, str] = field(default_factory=dict)
    scores: dict[RunKey, dict[str, dict[Item, float]]] = field(default_factory=dict)
    failed: dict[RunKey, dict[str, set[Item]]] = field(default_factory=dict)
    by_rule: dict[RunKey, dict[str, set[Item]]] = field(default_factory=dict)
    units: dict[str, set[str]] = field(default_factory=dict)
    alarms: tuple[int, int] = (0, 0)

    @property
    def runs(self) -> list[RunKey]:
        """Runs in order of fold and seed, unknown ones first."""
        return sorted(self.scores, key=lambda run: tuple(-1 if x is None else x for x in run[::-1]))

    @property
    def seeds(self) -> list[int | None]:
        """The different seeds."""
        return list(dict.fromkeys(seed for seed, _ in self.runs))

    @property
    def folds(self) -> list[int]:
        """The different folds that are known."""
        return sorted({fold for _, fold in self.scores if fold is not None})

    @property
    def cards(self) -> dict[str, MetricEntry]:
        """What its evaluations state of each metric."""
        return {m: card for e in self.evaluations for m, card in e.manifest.metrics.items()}

    @property
    def distances(self) -> list[str]:
        """The metrics that are distances."""
        return [metric for metric, card in self.cards.items() if card.is_distance]

    @property
    def references(self) -> dict[str, set[str]]:
        """Case → checksums of its true labels, as far as evaluations state them."""
        checksums: dict[str, set[str]] = {}
        for evaluation in self.evaluations:
            for case, checksum in evaluation.manifest.references.items():
                checksums.setdefault(case, set()).add(checksum)
        return checksums

    def cases(self, run: RunKey) -> set[str]:
        """The cases that a run was scored on."""
        return {case for values in self.scores[run].values() for case, _, _ in values} | {
            case for values in self.failed[run].values() for case, _, _ in values
        }

    def items(self, metric: str) -> set[Item]:
        """What any run was scored on by a metric, with or without a value."""
        return set().union(*(self._items_of(run, metric) for run in self.scores))

    def lacking(self, metric: str) -> dict[RunKey, set[Item]]:
        """Run → what other runs were scored on by a metric, in cases of this run, and this was not;
        a Dice without a value counts as lacking. Only runs that lack something.
        """
        everything = self.items(metric)
        result = {}
        for run in self.runs:
            cases = self.cases(run)
            values = set(self.scores[run].get(metric, {}))
            held = values if metric == "dice" else self._items_of(run, metric)
            if lost := {item for item in everything if item[0] in cases} - held:
                result[run] = lost
        return result

    def _items_of(self, run: RunKey, metric: str) -> set[Item]:
        return {*self.scores[run].get(metric, {}), *self.failed[run].get(metric, set())}

    def failures(self, metric: str, class_name: str | None = None) -> int:
        """How many scores of a metric, of one class or all, have no value; over all runs."""
        return _count(self.failed, metric, class_name)

    def ruled(self, metric: str, class_name: str | None = None) -> int:
        """How many were set by rule; over all runs."""
        return _count(self.by_rule, metric, class_name)

    def asked(self, metric: str) -> int:
        """How many scores of a metric there are; over all runs."""
        return sum(len(values.get(metric, ())) for values in self.scores.values())

    @property
    def training_groups(self) -> float | None:
        """How many groups a run was trained on, the mean over runs; None where one is unknown."""
        numbers = [e.manifest.training_groups for e in self.evaluations]
        stated = [number for number in numbers if number is not None]
        return float(np.mean(stated)) if len(stated) == len(numbers) else None

    def known(self, what: str) -> set[str]:
        """The `checkpoint` or `part` that its evaluations state; empty where none does."""
        return {value for e in self.evaluations if (value := choice(e.manifest, what))}


def _count(items: dict[RunKey, dict[str, set[Item]]], metric: str, class_name: str | None) -> int:
    return sum(
        class_name in (None, item[2]) for run in items.values() for item in run.get(metric, ())
    )


def choice(manifest: Manifest, what: str) -> str | None:
    """How a run's weights were chosen (`checkpoint`) or which cases these are (`part`)."""
    return manifest.checkpoint if what == "checkpoint" else manifest.sources.get(what)


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
        if not any("dice" in values for values in arm.scores.values()):
            raise InputError(
                DOING, expected=f"Dice of the arm {arm.name!r}", found=", ".join(sorted(arm.units))
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
    """All runs of an arm, or of one of its folds, have scored the same cases, and Dice of the same
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
    for run, items in arm.lacking("dice").items():
        raise InputError(
            DOING,
            expected=f"Dice of the same classes and slices from each run of {arm.name}",
            found=f"seed {run[0]}, fold {run[1]} lacks {_some(sorted(map(_in_words, items)))}",
            remedy="evaluate that run again, or leave it out",
        )


def _in_words(item: Item) -> str:
    case, index, name = item
    return f"{name} of {case}" + ("" if index is None else f", slice {index}")


def _items(arm: Arm) -> set[Item]:
    return set().union(*(values.get("dice", {}) for values in arm.scores.values()))


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def find_reference(arms: dict[str, Arm], reference: str) -> Arm:
    """The arm that the others are compared with, by any of its names. Raises UsageError, naming
    the nearest.
    """
    by_name = {name: arm for arm in arms.values() for name in arm.names}
    if reference not in by_name:
        raise UsageError(
            DOING, found=f"the reference {reference!r}", remedy=nearest(reference, by_name)
        )
    if len(arms) < 2:
        raise UsageError(
            DOING,
            expected="at least one arm besides the reference",
            found=f"{by_name[reference].name} alone",
            remedy="give the evaluation folders of the other arms too; the scores of one arm over "
            "its seeds and folds are a table of segweave summarise RUN...",
        )
    return by_name[reference]


def group_values(
    arm: Arm, run: RunKey, metric: str, *, class_name: str | None = None, leave: set[Item] | None
) -> dict[str, float]:
    """Group → mean over its cases of the mean over the classes that count there (of the mean over
    slices) of one run; `leave` are items that another arm or run lacks.
    """
    slices: dict[tuple[str, str], list[float]] = defaultdict(list)
    for item, value in arm.scores[run].get(metric, {}).items():
        if (class_name is None or item[2] == class_name) and not (leave and item in leave):
            slices[item[0], item[2]].append(value)
    classes: dict[str, list[float]] = defaultdict(list)
    for (case, _), values in slices.items():
        classes[case].append(float(np.mean(values)))
    cases: dict[str, list[float]] = defaultdict(list)
    for case, values in classes.items():
        cases[arm.groups[case]].append(float(np.mean(values)))
    return {group: float(np.mean(values)) for group, values in cases.items()}


def case_means(arm: Arm, metric: str) -> dict[str, float]:
    """Case → mean over classes, then over runs."""
    runs: dict[str, list[float]] = defaultdict(list)
    alone = Arm(arm.name, groups={case: case for case in arm.groups}, scores=arm.scores)
    for run in arm.runs:
        for case, value in group_values(alone, run, metric, leave=None).items():
            runs[case].append(value)
    return {case: float(np.mean(values)) for case, values in runs.items()}
