"""Summaries of evaluations: one per arm, means in the protocol's order, an interval by group."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from segweave.errors import InputError, UsageError
from segweave.evaluation.estimates import Estimate, Per, estimate
from segweave.evaluation.protocols import FALSE_ALARM
from segweave.evaluation.rows import Evaluation, MetricEntry, Row

_SHARES = ("dice", "iou", "precision", "sensitivity", "specificity", "accuracy")
"""Metrics between 0 and 1, outside of which no interval reaches."""


class Distance(BaseModel):
    """A distance or size over cases and seeds in one unit.

    Attributes:
        median: over the cases (images, for frames and single images) where it is defined.
        mean: over the same.
        failed: number of scores that are undefined, because the class was not predicted.
        asked: number of scores.
    """

    model_config = ConfigDict(extra="forbid")

    median: float | None
    mean: float | None
    failed: int
    asked: int


class FalseAlarms(BaseModel):
    """Predictions of a class that the reference lacks.

    Attributes:
        raised: number of volumes or images in which some of it was predicted.
        asked: number of volumes or images whose reference lacks the class.
        amount: size of all of it, in `unit`.
        unit: "ml" or "px".
    """

    model_config = ConfigDict(extra="forbid")

    raised: int
    asked: int
    amount: float
    unit: str


class Part(BaseModel):
    """The scores of one class, or of all (macro: the mean over classes; counts are added up).

    Attributes:
        overlaps: metric → mean with its interval, of metrics without a length or size.
        distances: metric → unit → distance or size.
        false_alarms: unit → predictions of classes that the reference lacks.
        by_rule: number of cases (images) whose scores a rule of the protocol set.
    """

    model_config = ConfigDict(extra="forbid")

    overlaps: dict[str, Estimate] = Field(default_factory=dict)
    distances: dict[str, dict[str, Distance]] = Field(default_factory=dict)
    false_alarms: dict[str, FalseAlarms] = Field(default_factory=dict)
    by_rule: int = 0


class Summary(BaseModel):
    """What tables print of one arm: the fields of the manifest, and these.

    Attributes:
        images: number of volumes and images that were scored, of which `volumes` in 3D, and
            `frames` in cases of several images.
        runs: number of (seed, fold).
        seed_sd: sd of the macro Dice over seeds.
        macro: means over classes.
        classes: class → its scores.
        case_names: the cases that were scored.
        remarks: those of its evaluations.
    """

    model_config = ConfigDict(extra="forbid")

    arm: str
    protocol: str
    title: str
    means: str
    definitions: dict[str, str]
    cases: int
    images: int
    volumes: int = 0
    frames: int = 0
    groups: int
    grouped: bool
    seeds: list[int]
    folds: list[int]
    runs: int
    parameters: int | None = None
    seed_sd: float | None = None
    columns: list[str] = Field(default_factory=list)
    metrics: dict[str, MetricEntry] = Field(default_factory=dict)
    macro: Part
    classes: dict[str, Part]
    case_names: list[str] = Field(default_factory=list)
    remarks: list[str] = Field(default_factory=list)


def summarise(evaluations: Iterable[Evaluation]) -> list[Summary]:
    """One summary per arm, in the order of the arms; folders of one arm (seeds, folds) are joined.

    Raises UsageError for folders of different protocols or classes, InputError where one score
    is there twice.
    """
    given = list(evaluations)
    if not given:
        raise UsageError("summarising evaluations", expected="at least one", found="none")
    first = given[0].manifest
    for other in given[1:]:
        shared = first.definitions.keys() & other.manifest.definitions.keys()
        for what, ours, theirs in (
            ("protocol", first.protocol, other.manifest.protocol),
            *(
                ("definitions", first.definitions[name], other.manifest.definitions[name])
                for name in sorted(shared)
            ),
            ("classes", first.classes, other.manifest.classes),
        ):
            if ours != theirs:
                raise UsageError(
                    f"summarising evaluations of different {what}",
                    file=other.folder,
                    expected=str(ours),
                    found=str(theirs),
                    remedy="score all of them in the same way, or make two tables",
                )
    arms: dict[str, list[Row]] = defaultdict(list)
    origin: dict[str, list[Evaluation]] = defaultdict(list)
    for evaluation in given:
        for row in evaluation.rows:
            arms[row.arm].append(row)
            if evaluation not in origin[row.arm]:
                origin[row.arm].append(evaluation)
    return [_summary(arm, rows, origin[arm]) for arm, rows in arms.items()]


def _summary(arm: str, rows: Sequence[Row], evaluations: Sequence[Evaluation]) -> Summary:
    _check_once(arm, rows)
    manifest = evaluations[0].manifest
    groups = {row.case: row.group for row in rows}
    per = manifest.per
    units = {unit_of(row, per): row.group for row in rows}
    classes = [c for c in manifest.classes if any(row.score.class_name == c for row in rows)]
    parameters = {e.manifest.parameters for e in evaluations}
    cards = {name: card for e in evaluations for name, card in e.manifest.metrics.items()}
    by_class = {
        name: _part([row for row in rows if row.score.class_name == name], units, per, cards)
        for name in classes
    }
    macro = _part(rows, units, per, cards)
    macro.distances = _macro_distances(list(by_class.values()))
    cases = sorted(groups)
    images = {(row.case, row.score.slice) for row in rows}
    # Metrics of soft maps score the slices of a volume, which are no images by themselves.
    whole = {case for case, index in images if index is None}
    images = {(case, index) for case, index in images if index is None or case not in whole}
    pieces = Counter(case for case, _ in images)
    return Summary(
        arm=arm,
        protocol=manifest.protocol,
        title=manifest.title,
        means=manifest.means,
        definitions={k: v for e in evaluations for k, v in e.manifest.definitions.items()},
        cases=len(cases),
        images=len(images),
        volumes=sum(index is None for _, index in images),
        frames=sum(count for count in pieces.values() if count > 1),
        groups=len(set(groups.values())),
        grouped=all(e.manifest.grouped for e in evaluations),
        seeds=sorted({row.seed for row in rows if row.seed is not None}),
        folds=sorted({row.fold for row in rows if row.fold is not None}),
        runs=len({(row.seed, row.fold) for row in rows}),
        parameters=parameters.pop() if len(parameters) == 1 else None,
        seed_sd=_seed_sd(rows, units, per),
        columns=list(dict.fromkeys(name for e in evaluations for name in e.manifest.columns)),
        metrics=cards,
        macro=macro,
        classes=by_class,
        case_names=cases,
        remarks=list(dict.fromkeys(text for e in evaluations for text in e.manifest.remarks)),
    )


def _check_once(arm: str, rows: Sequence[Row]) -> None:
    seen = set()
    for row in rows:
        score = row.score
        key = (row.case, score.slice, score.class_name, score.metric, row.seed, row.fold)
        if key in seen:
            raise InputError(
                f"summarising the arm {arm!r}",
                expected="each case once for each seed and fold",
                found=f"{row.case} twice (seed {row.seed}, fold {row.fold})",
                remedy="give each run its own seed or arm name when it is evaluated",
            )
        seen.add(key)


def unit_of(row: Row, per: Per) -> str:
    """What has equal weight in means: the case of a row, or its image."""
    if per != "image" or row.score.slice is None:
        return row.case
    return f"{row.case}#{row.score.slice}"


def case_values(
    rows: Iterable[Row], metric: str, per: Per = "case"
) -> dict[tuple[str, str], float]:
    """(case, class) → the mean of a metric over its slices, then over seeds, where defined; with
    `per` "image" one value per image (`unit_of`).
    """
    slices: dict[tuple[str, str, int | None, int | None], list[float]] = defaultdict(list)
    for row in rows:
        if row.score.metric == metric and row.score.value is not None:
            key = (unit_of(row, per), row.score.class_name, row.seed, row.fold)
            slices[key].append(row.score.value)
    seeds: dict[tuple[str, str], list[float]] = defaultdict(list)
    for (case, name, _, _), values in slices.items():
        seeds[case, name].append(float(np.mean(values)))
    return {key: float(np.mean(values)) for key, values in seeds.items()}


def by_unit(card: MetricEntry) -> bool:
    """Whether values are lengths or sizes, whose unit depends on whether the spacing is known:
    tables print their median, and one column for each unit.
    """
    return card.unit in ("mm", "ml")


def _part(
    rows: Sequence[Row], groups: dict[str, str], per: Per, cards: Mapping[str, MetricEntry]
) -> Part:
    ruled = [row for row in rows if row.score.status == "rule"]
    part = Part(by_rule=len({(unit_of(row, per), row.score.class_name) for row in ruled}))
    metrics = list(dict.fromkeys(row.score.metric for row in rows))
    for metric in metrics:
        scores = [row for row in rows if row.score.metric == metric]
        if metric == FALSE_ALARM:
            for unit in sorted({row.score.unit for row in scores}):
                sizes = [row.score.value or 0.0 for row in scores if row.score.unit == unit]
                part.false_alarms[unit] = FalseAlarms(
                    raised=sum(size > 0 for size in sizes),
                    asked=len(sizes),
                    amount=float(sum(sizes)),
                    unit=unit,
                )
        elif by_unit(cards[metric]):
            for unit in sorted({row.score.unit for row in scores}):
                part.distances.setdefault(metric, {})[unit] = _distance(
                    [row for row in scores if row.score.unit == unit], metric, per
                )
        elif values := case_values(scores, metric, per):
            bounds = (0.0, 1.0) if metric in _SHARES else None
            part.overlaps[metric] = estimate(values, groups, per=per, bounds=bounds)
    return part


def _distance(rows: Sequence[Row], metric: str, per: Per) -> Distance:
    values = list(case_values(rows, metric, per).values())
    return Distance(
        median=float(np.median(values)) if values else None,
        mean=float(np.mean(values)) if values else None,
        failed=sum(row.score.status == "failed" for row in rows),
        asked=len(rows),
    )


def _macro_distances(parts: Sequence[Part]) -> dict[str, dict[str, Distance]]:
    """Means over classes of their medians and means; failures added up."""
    grouped: dict[str, dict[str, list[Distance]]] = {}
    for part in parts:
        for metric, units in part.distances.items():
            for unit, distance in units.items():
                grouped.setdefault(metric, {}).setdefault(unit, []).append(distance)
    return {
        metric: {
            unit: Distance(
                median=_mean(d.median for d in distances),
                mean=_mean(d.mean for d in distances),
                failed=sum(d.failed for d in distances),
                asked=sum(d.asked for d in distances),
            )
            for unit, distances in units.items()
        }
        for metric, units in grouped.items()
    }


def _mean(values: Iterable[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None


def _seed_sd(rows: Sequence[Row], groups: dict[str, str], per: Per) -> float | None:
    by_seed: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        if row.seed is not None and row.score.metric == "dice":
            by_seed[row.seed].append(row)
    if len(by_seed) < 2:
        return None
    means = [
        estimate(case_values(of_seed, "dice", per), groups, per=per, interval=False).mean
        for of_seed in by_seed.values()
    ]
    return float(np.std(means, ddof=1))
