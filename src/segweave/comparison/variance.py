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
    """A mean difference (...,) and the parts (k, ...) that its variance is the sum of.

    `dof` holds the degrees of freedom of each part (k,). With one part this is Student's t. With
    several the critical value is that of Cochran and Cox (1950): the mean of the parts' quantiles
    of Student's t, weighted by the parts. Satterthwaite's single number of degrees of freedom
    jumps to the largest where the part with the fewest comes out small by chance, so that small p
    come several times too often; this does not.
    """

    difference: Values
    parts: Values
    dof: tuple[float, ...]

    @property
    def variance(self) -> Values:
        """Variance of the difference."""
        return np.asarray(self.parts.sum(0))

    @property
    def error(self) -> Values:
        """Standard error of the difference."""
        return np.sqrt(self.variance)

    @property
    def statistic(self) -> Values:
        """Difference over standard error; 0 where all differences are 0, infinite where they are
        all the same.
        """
        tiny = self.error <= 1e-12 * np.maximum(1.0, np.abs(self.difference))
        zero = np.abs(self.difference) <= 1e-12
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = self.difference / self.error
        t: Values = np.where(tiny, np.where(zero, 0.0, np.copysign(np.inf, self.difference)), ratio)
        return t

    def critical(self, level: float = 0.05) -> Values:
        """What |statistic| must exceed for a two-sided test at `level`."""
        return self._quantile(np.full(np.shape(self.difference), level / 2))

    def _quantile(self, tail: Values) -> Values:
        """The statistic that is exceeded with the probability `tail` (...,)."""
        with np.errstate(divide="ignore", invalid="ignore"):
            weights = self.parts / self.parts.sum(0)
        # Without any variance the widest of them counts.
        widest = np.zeros(len(self.dof))
        widest[int(np.argmin(self.dof))] = 1.0
        shape = (-1, *[1] * np.ndim(self.difference))
        weights = np.where(np.isfinite(weights), weights, widest.reshape(shape))
        quantiles = np.stack([stats.t.isf(tail, dof) for dof in self.dof])
        counted = np.multiply(weights, quantiles, out=np.zeros_like(weights), where=weights > 0)
        return np.asarray(counted.sum(0))

    @property
    def p(self) -> Values:
        """Two-sided p-value: the level whose critical value is |statistic|."""
        return np.asarray(np.minimum(1.0, 2 * self.tail(np.abs(self.statistic))))

    def tail(self, statistic: Values) -> Values:
        """One-sided p-value of a statistic (...,) under no difference: the probability whose
        quantile it is.
        """
        t = np.abs(np.asarray(statistic, dtype=np.float64))
        tails = np.stack([stats.t.sf(t, dof) for dof in self.dof])
        # Between the smallest and the largest over the parts; halved in the logarithm.
        low, high = (np.log(np.maximum(end, 1e-300)) for end in (tails.min(0), tails.max(0)))
        for _ in range(60 if len(self.dof) > 1 else 0):
            middle = (low + high) / 2
            above = self._quantile(np.exp(middle)) > t
            low, high = np.where(above, middle, low), np.where(above, high, middle)
        upper = np.where(np.isinf(t), 0.0, np.exp((low + high) / 2))
        return np.asarray(np.where(np.asarray(statistic) < 0, 1 - upper, upper))

    def beyond(self, bound: float) -> Values:
        """p-value (...,) of the two one-sided tests for a difference inside ±`bound`: the larger
        of those against −bound and against +bound (Schuirmann 1987). It is at most α where the
        interval at 1 − 2α lies inside.
        """
        moved = [
            Effect(bound - sign * self.difference, self.parts, self.dof) for sign in (1.0, -1.0)
        ]
        return np.asarray(np.maximum(*(one.tail(one.statistic) for one in moved)))

    def interval(self, level: float = 0.95) -> tuple[Values, Values]:
        """Both ends of the interval: all differences that the test at 1 − `level` would keep."""
        half = self.critical(1 - level) * self.error
        return self.difference - half, self.difference + half

    def detectable(self, power: float = 0.8, level: float = 0.05) -> float:
        """About the smallest true difference that a test at `level` would find with `power`, from
        the standard error alone, whatever difference was observed. Of one experiment only.

        The statistic's law is taken as the noncentral t that has this critical value.
        """
        error, limit = float(self.error), float(self.critical(level))
        dof = self._single_dof(limit, level)

        def missing(shift: float) -> float:
            return float(stats.nct.sf(limit, dof, shift)) - power

        # Textbook sum of quantiles: a bracket, and what remains where the exact law gives out.
        near = limit + float(stats.t.ppf(power, dof))
        try:
            shift = float(optimize.brentq(missing, 0.0, 2 * near + 5))
        except ValueError:
            shift = math.nan
        return error * (shift if math.isfinite(shift) else near)

    def _single_dof(self, limit: float, level: float) -> float:
        """The degrees of freedom with which Student's t has the critical value `limit`."""
        least, most = min(self.dof), max(self.dof)

        def excess(dof: float) -> float:
            return float(stats.t.isf(level / 2, dof)) - limit

        if least == most or excess(least) <= 0:
            return least
        return most if excess(most) >= 0 else float(optimize.brentq(excess, least, most))


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

    Variance of the mean = (max(0, MS groups − MS rest) + MS seeds) / (groups · seeds), two parts
    with the degrees of freedom of the groups and of the seeds.
    """
    groups, seeds = differences.shape[-2:]
    squares = mean_squares(differences)
    parts = np.stack([np.maximum(0.0, squares.groups - squares.rest), squares.seeds])
    return Effect(squares.mean, parts / (groups * seeds), (groups - 1.0, seeds - 1.0))


def unpaired_effect(ours: NDArray[Any], theirs: NDArray[Any]) -> Effect:
    """Values (..., groups, seeds) of two arms on the same groups. Seeds are not paired and may
    differ in number.

    The same as `paired_effect` with the seeds of each arm as a part: MS seeds / (groups · seeds) of
    each, and the variance of the group differences less what MS rest adds to it (none below 0),
    over groups.
    """
    groups = ours.shape[-2]
    by_group = ours.mean(-1) - theirs.mean(-1)
    spread = by_group.var(-1, ddof=1)
    seed_parts, dof = [], [groups - 1.0]
    for values in (ours, theirs):
        squares, seeds = mean_squares(values), values.shape[-1]
        spread = spread - squares.rest / seeds
        seed_parts.append(squares.seeds / (groups * seeds))
        dof.append(seeds - 1.0)
    parts = np.stack([np.maximum(0.0, spread) / groups, *seed_parts])
    return Effect(by_group.mean(-1), parts, tuple(dof))


def group_effect(differences: NDArray[Any]) -> Effect:
    """Differences (..., groups) of weights that are given: only groups are a sample."""
    groups = differences.shape[-1]
    variance = differences.var(-1, ddof=1) / groups
    return Effect(differences.mean(-1), variance[None], (groups - 1.0,))


def fold_effect(differences: NDArray[Any], test_over_training: float) -> Effect:
    """One mean difference per fold, (..., folds): variance (1/k + test groups / training groups) ·
    s² with k − 1 degrees of freedom, because folds share training data (Nadeau and Bengio 2003).
    """
    folds = differences.shape[-1]
    variance = (1 / folds + test_over_training) * differences.var(-1, ddof=1)
    return Effect(differences.mean(-1), variance[None], (folds - 1.0,))
