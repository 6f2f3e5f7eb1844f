"""The mean of scores with its spread over groups, which are drawn as wholes."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from scipy import stats

Per = Literal["group", "case", "image"]


class Estimate(BaseModel):
    """A mean with its spread: `sd` over groups, `low` and `high` of the 95 % interval by `method`;
    None where there are fewer than two groups.
    """

    model_config = ConfigDict(extra="forbid")

    mean: float
    sd: float | None = None
    low: float | None = None
    high: float | None = None
    method: str = ""
    cases: int = 0
    groups: int = 0


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
