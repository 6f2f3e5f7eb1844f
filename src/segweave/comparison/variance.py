"""Variance of a mean difference where groups, seeds or folds are samples; works on arrays of many
experiments at once, so that a simulation runs the very same lines.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

Values = NDArray[np.float64]


@dataclass(frozen=True)
class MeanSquares:
    """Mean squares (...,) of tables (..., groups, seeds) with one value per cell; their mean."""

    mean: Values
    groups: Values
    seeds: Values
    rest: Values
    shape: tuple[int, int]

    def components(self) -> tuple[Values, Values, Values]:
        """Variances of one value between groups, between seeds and in the rest; none below 0."""
        groups, seeds = self.shape
        return (
            np.maximum(0.0, (self.groups - self.rest) / seeds),
            np.maximum(0.0, (self.seeds - self.rest) / groups),
            self.rest,
        )


@dataclass(frozen=True)
class Effect:
    """A mean difference (...,), the variance of that mean, and degrees of freedom of the latter."""

    difference: Values
    variance: Values
    dof: Values

    @property
    def error(self) -> Values:
        """Standard error of the difference."""
        return np.sqrt(self.variance)

    @property
    def statistic(self) -> Values:
        """Student's t; 0 where all differences are 0, infinite where they are all the same."""
        tiny = self.error <= 1e-12 * np.maximum(1.0, np.abs(self.difference))
        zero = np.abs(self.difference) <= 1e-12
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = self.difference / self.error
        t: Values = np.where(tiny, np.where(zero, 0.0, np.copysign(np.inf, self.difference)), ratio)
        return t

    @property
    def p(self) -> Values:
        """Two-sided p-value."""
        return np.asarray(2 * stats.t.sf(np.abs(self.statistic), self.dof))

    def interval(self, level: float = 0.95) -> tuple[Values, Values]:
        """Both ends of the interval by t."""
        half = stats.t.ppf((1 + level) / 2, self.dof) * self.error
        return self.difference - half, self.difference + half

    def detectable(self, power: float = 0.8, level: float = 0.05) -> float:
        """The smallest true difference that a test at `level` would find with `power`, from the
        standard error alone, whatever difference was observed. Of one experiment only.
        """
        error, dof = float(self.error), float(self.dof)
        limit = float(stats.t.ppf(1 - level / 2, dof))

        def missing(shift: float) -> float:
            return float(stats.nct.sf(limit, dof, shift)) - power

        # Textbook sum of quantiles: a bracket, and what remains where the exact law gives out.
        near = limit + float(stats.t.ppf(power, dof))
        try:
            shift = float(optimize.brentq(missing, 0.0, 2 * near + 5))
        except ValueError:
            shift = math.nan
        return error * (shift if math.isfinite(shift) else near)


def mean_squares(values: NDArray[Any]) -> MeanSquares:
    """Two-way analysis of variance of tables (..., groups, seeds), at least 2 × 2."""
    groups, seeds = values.shape[-2:]
    mean = values.mean((-2, -1))
    by_group, by_seed = values.mean(-1), values.mean(-2)
    rest = values - by_group[..., :, None] - by_seed[..., None, :] + mean[..., None, None]
    return MeanSquares(
        mean,
        seeds * by_group.var(-1, ddof=1),
        groups * by_seed.var(-1, ddof=1),
        (rest**2).sum((-2, -1)) / ((groups - 1) * (seeds - 1)),
        (groups, seeds),
    )


def paired_effect(differences: NDArray[Any]) -> Effect:
    """The main test: differences (..., groups, seeds), groups and seeds both drawn at random.

    Variance of the mean = (MS groups + MS seeds − MS rest) / (groups · seeds) with Satterthwaite's
    degrees of freedom; where MS rest exceeds the smaller of the first two, the larger / (groups ·
    seeds) with its own.
    """
    groups, seeds = differences.shape[-2:]
    squares = mean_squares(differences)
    a, b, rest = squares.groups, squares.seeds, squares.rest
    with np.errstate(divide="ignore", invalid="ignore"):
        whole = a + b - rest
        dof = whole**2 / (
            a**2 / (groups - 1) + b**2 / (seeds - 1) + rest**2 / ((groups - 1) * (seeds - 1))
        )
    one = (rest > np.minimum(a, b)) | ~np.isfinite(dof)
    variance = np.where(one, np.maximum(a, b), whole) / (groups * seeds)
    single = np.where(a >= b, groups - 1.0, seeds - 1.0)
    return Effect(squares.mean, variance, np.where(one, single, dof))


def unpaired_effect(ours: NDArray[Any], theirs: NDArray[Any]) -> Effect:
    """Values (..., groups, seeds) of two arms on the same groups. Seeds are not paired and may
    differ in number.

    Variance = variance of the group differences / groups, plus max(0, MS seeds − MS rest) / (groups
    · seeds) of each arm; Satterthwaite's degrees of freedom over all mean squares that enter.
    """
    effect = group_effect(ours.mean(-1) - theirs.mean(-1))
    groups = ours.shape[-2]
    variance = np.asarray(effect.variance, dtype=np.float64)
    parts = variance**2 / (groups - 1)
    for values in (ours, theirs):
        squares, seeds = mean_squares(values), values.shape[-1]
        extra = (squares.seeds - squares.rest) / (groups * seeds)
        counts = extra > 0
        variance = variance + np.where(counts, extra, 0.0)
        share = (squares.seeds / (groups * seeds)) ** 2 / (seeds - 1)
        share = share + (squares.rest / (groups * seeds)) ** 2 / ((groups - 1) * (seeds - 1))
        parts = parts + np.where(counts, share, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        dof = variance**2 / parts
    return Effect(effect.difference, variance, np.where(np.isfinite(dof), dof, groups - 1.0))


def group_effect(differences: NDArray[Any]) -> Effect:
    """Differences (..., groups) of weights that are given: only groups are a sample."""
    groups = differences.shape[-1]
    mean = differences.mean(-1)
    variance = differences.var(-1, ddof=1) / groups
    return Effect(mean, variance, np.full(np.shape(mean), groups - 1.0))


def fold_effect(differences: NDArray[Any], test_over_training: float) -> Effect:
    """One mean difference per fold, (..., folds): variance (1/k + test groups / training groups) ·
    s² with k − 1 degrees of freedom, because folds share training data (Nadeau and Bengio 2003).
    """
    folds = differences.shape[-1]
    mean = differences.mean(-1)
    variance = (1 / folds + test_over_training) * differences.var(-1, ddof=1)
    return Effect(mean, variance, np.full(np.shape(mean), folds - 1.0))
