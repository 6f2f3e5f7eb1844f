"""Means over cases and classes with an interval by group."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from scipy import stats

# From this number of groups on the interval is bootstrapped.
BOOTSTRAP_FROM = 30
RESAMPLES = 5000


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
    level: float = 0.95,
    interval: bool = True,
) -> Estimate:
    """Mean over cases for each class, then over classes, of `values` by (case, class).

    Groups are drawn as wholes. The sd is that of the jackknife's pseudo-values, leaving out one
    group at a time (the sd of the groups' means, where groups have equal sizes and classes). Below
    30 groups the interval is mean ± t · sd / √groups; from 30 on it is a BCa bootstrap (Efron 1987)
    with a fixed stream.
    """
    if not values:
        raise ValueError("an estimate needs at least one value")
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
    if len(names) < 2 or not interval:
        return result
    left_out = _means(sums, counts, 1 - np.eye(len(names)))
    result.sd = float((len(names) - 1) * np.nanstd(left_out, ddof=1))
    if len(names) < BOOTSTRAP_FROM:
        quantile = float(stats.t.ppf((1 + level) / 2, len(names) - 1))
        half = quantile * result.sd / len(names) ** 0.5
        result.low, result.high = mean - half, mean + half
        result.method = "t over groups"
    else:
        result.low, result.high = _bca(sums, counts, mean, left_out, level)
        result.method = "BCa bootstrap over groups"
    return result


def _means(
    sums: NDArray[np.float64], counts: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The statistic for each row of weights (draws, groups)."""
    with warnings.catch_warnings(), np.errstate(invalid="ignore", divide="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)  # a draw may lack a class or all of them
        means: NDArray[np.float64] = np.nanmean((weights @ sums) / (weights @ counts), axis=1)
    return means


def _bca(
    sums: NDArray[np.float64],
    counts: NDArray[np.float64],
    mean: float,
    left_out: NDArray[np.float64],
    level: float,
) -> tuple[float, float]:
    number = len(sums)
    generator = np.random.default_rng(20240)
    weights = generator.multinomial(number, np.full(number, 1 / number), RESAMPLES)
    draws = _means(sums, counts, weights.astype(np.float64))
    draws = draws[np.isfinite(draws)]
    below = (np.count_nonzero(draws < mean) + np.count_nonzero(draws == mean) / 2) / draws.size
    if np.ptp(draws) == 0 or not 0 < below < 1:
        return float(draws.min()), float(draws.max())
    bias = stats.norm.ppf(below)
    spread = np.nanmean(left_out) - left_out
    scale = float(np.nansum(spread**2)) ** 1.5
    skew = float(np.nansum(spread**3)) / (6 * scale) if scale > 0 else 0.0
    ends = stats.norm.ppf([(1 - level) / 2, (1 + level) / 2])
    shares = stats.norm.cdf(bias + (bias + ends) / (1 - skew * (bias + ends)))
    low, high = np.asarray(np.quantile(draws, np.asarray(shares)))
    return float(low), float(high)
