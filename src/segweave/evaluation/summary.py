"""Summaries of evaluations: one per arm, means in the protocol's order, an interval by group."""

from __future__ import annotations

import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from segweave.errors import InputError, UsageError
from segweave.evaluation.protocols import FALSE_ALARM
from segweave.evaluation.rows import (
    Distance,
    Estimate,
    Evaluation,
    FalseAlarms,
    MetricEntry,
    Part,
    Per,
    Row,
    Summary,
)

_SHARES = ("dice", "iou", "precision", "sensitivity", "specificity", "accuracy")
"""Metrics between 0 and 1, outside of which no interval reaches."""


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
        seed_sd=_seed_sd(rows, units, per, manifest.primary),
        primary=manifest.primary,
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


def _seed_sd(rows: Sequence[Row], groups: dict[str, str], per: Per, metric: str) -> float | None:
    by_seed: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        if row.seed is not None and row.score.metric == metric:
            by_seed[row.seed].append(row)
    if len(by_seed) < 2:
        return None
    means = [
        estimate(case_values(of_seed, metric, per), groups, per=per, interval=False).mean
        for of_seed in by_seed.values()
    ]
    return float(np.std(means, ddof=1))


def estimate(
    values: Mapping[tuple[str, str], float],
    groups: Mapping[str, str],
    *,
    per: Per = "group",
    level: float = 0.95,
    interval: bool = True,
    bounds: tuple[float, float] | None = None,
) -> Estimate:
    """Mean of `values` by (case, class) with its interval; groups are drawn as wholes.

    Per "group" it is the mean over the classes that count in a case, then over a group's cases,
    then over groups, so that every group weighs alike, as in `segweave compare`; the sd is that of
    the groups' means. Otherwise it is the mean over cases (images) for each class, then over
    classes, as publications take it; the sd is that of the jackknife's pseudo-values, leaving out
    one group at a time. The interval is mean ± t · sd / √groups.

    Args:
        values: (case or image, class) → value.
        groups: case or image → group.
        per: what has equal weight.
        level: level of the interval.
        interval: whether sd and interval are computed.
        bounds: where the interval is cut off, for values that can't be beyond.
    """
    if not values:
        raise ValueError("an estimate needs at least one value")
    if per == "group":
        result, pseudo_sd = _over_groups(values, groups)
    else:
        result, pseudo_sd = _over_classes(values, groups)
    if result.groups < 2 or not interval:
        return result
    result.sd = pseudo_sd()
    quantile = float(stats.t.ppf((1 + level) / 2, result.groups - 1))
    half = quantile * result.sd / result.groups**0.5
    least, most = bounds or (-np.inf, np.inf)
    result.low, result.high = max(result.mean - half, least), min(result.mean + half, most)
    result.method = "t over groups"
    return result


def _over_groups(
    values: Mapping[tuple[str, str], float], groups: Mapping[str, str]
) -> tuple[Estimate, Callable[[], float]]:
    """The mean that weighs groups alike, and what computes its sd over groups."""
    classes: dict[str, list[float]] = defaultdict(list)
    for (case, _), value in sorted(values.items()):
        classes[case].append(value)
    cases: dict[str, list[float]] = defaultdict(list)
    for case, of_case in classes.items():
        cases[groups[case]].append(float(np.mean(of_case)))
    means = np.array([np.mean(of_group) for of_group in cases.values()])
    result = Estimate(mean=float(means.mean()), cases=len(classes), groups=len(cases))
    return result, lambda: float(means.std(ddof=1))


def _over_classes(
    values: Mapping[tuple[str, str], float], groups: Mapping[str, str]
) -> tuple[Estimate, Callable[[], float]]:
    """The mean over cases, then classes, and what computes the sd of its pseudo-values."""
    classes = sorted({c for _, c in values})
    names = sorted({groups[case] for case, _ in values})
    row = {name: i for i, name in enumerate(names)}
    column = {c: j for j, c in enumerate(classes)}
    sums = np.zeros((len(names), len(classes)))
    counts = np.zeros_like(sums)
    for (case, c), value in sorted(values.items()):
        sums[row[groups[case]], column[c]] += value
        counts[row[groups[case]], column[c]] += 1
    mean = float(_means(sums, counts, np.ones((1, len(names))))[0])
    result = Estimate(mean=mean, cases=len({case for case, _ in values}), groups=len(names))

    def pseudo_sd() -> float:
        left_out = _means(sums, counts, 1 - np.eye(len(names)))
        return float((len(names) - 1) * np.nanstd(left_out, ddof=1))

    return result, pseudo_sd


def _means(
    sums: NDArray[np.float64], counts: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The statistic for each row of weights (draws, groups)."""
    with warnings.catch_warnings(), np.errstate(invalid="ignore", divide="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)  # a draw may lack a class or all of them
        means: NDArray[np.float64] = np.nanmean((weights @ sums) / (weights @ counts), axis=1)
    return means
