"""An arm: all its runs with their scores, and their means by group and case."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np

from segweave.comparison.joining import DOING
from segweave.errors import UsageError, nearest
from segweave.evaluation.rows import Evaluation, Manifest, MetricEntry
from segweave.evaluation.tables import quantity_of

RunKey = tuple[int | None, int | None]
"""(seed, fold) of one run; None where unknown."""
Item = tuple[str, int | None, str]
"""(case, slice, class) of one score of a metric."""


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

    @property
    def primary(self) -> str:
        """The metric that arms are compared by."""
        return self.evaluations[0].manifest.primary

    @property
    def quantity(self) -> str:
        """Its short name with its unit: "Dice", "PSNR dB"."""
        return quantity_of(self.primary, self.cards)

    def lacking(self, metric: str) -> dict[RunKey, set[Item]]:
        """Run → what other runs were scored on by a metric, in cases of this run, and this was not;
        the primary metric without a value counts as lacking. Only runs that lack something.
        """
        everything = self.items(metric)
        result = {}
        for run in self.runs:
            cases = self.cases(run)
            values = set(self.scores[run].get(metric, {}))
            held = values if metric == self.primary else self._items_of(run, metric)
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
