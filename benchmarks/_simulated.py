"""Experiments in which the truth is known, and what is counted over them, for simulation.py.

A table of one experiment holds the difference of two arms for each group and seed. It is the sum of
what a group adds (sd 1 unless stated), what a seed adds, and a rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from segweave.comparison.variance import Effect, mean_squares

Values = NDArray[np.float64]
Generator = np.random.Generator
Law = Callable[[Generator, tuple[int, ...]], Values]
LEVELS = (0.05, 0.01, 0.005)
REST_SD = 0.5
FRAMES = 21
CORRELATION = 0.4


def normal(generator: Generator, shape: tuple[int, ...]) -> Values:
    """Normal, mean 0, sd 1."""
    return generator.standard_normal(shape)


def heavy(generator: Generator, shape: tuple[int, ...]) -> Values:
    """Student's t with 3 degrees of freedom, scaled to sd 1."""
    return generator.standard_t(3, shape) / np.sqrt(3)


def skewed(generator: Generator, shape: tuple[int, ...]) -> Values:
    """Exponential (skewness 2), moved to mean 0, sd 1."""
    return generator.exponential(size=shape) - 1


def parts(
    generator: Generator,
    shape: tuple[int, int, int],
    sd: tuple[float, float, float],
    laws: Sequence[Law] = (normal, normal, normal),
) -> Values:
    """Differences (experiments, groups, seeds) without a true one: `sd` and `laws` of groups, seeds
    and rest.
    """
    count, groups, seeds = shape
    shapes = ((count, groups, 1), (count, 1, seeds), shape)
    each = [s * law(generator, one) for s, law, one in zip(sd, laws, shapes, strict=True)]
    return each[0] + each[1] + each[2]


def experiments(
    generator: Generator, count: int, groups: int, seeds: int, seed_sd: float, law: Law = normal
) -> Values:
    """The same with the sd of the seeds in standard errors of the groups, 1/√groups."""
    sd = (1.0, seed_sd / np.sqrt(groups), REST_SD)
    return parts(generator, (count, groups, seeds), sd, (law, law, law))


def unpaired_experiments(
    generator: Generator,
    count: int,
    groups: int,
    seeds: tuple[int, int],
    seed_sd: tuple[float, float],
    law: Law = normal,
) -> tuple[Values, Values]:
    """Two arms on the same groups, each with seeds of its own; with equal numbers of seeds what
    differs has the same sd as in `experiments`.
    """
    level = 2 * generator.standard_normal((count, groups, 1))
    ours, theirs = (
        level + experiments(generator, count, groups, n, sd, law) / np.sqrt(2)
        for n, sd in zip(seeds, seed_sd, strict=True)
    )
    return ours, theirs


def frames(generator: Generator, count: int, groups: int) -> Values:
    """Differences of correlated frames (count, groups, frames); the mean of a group has sd 1."""
    shared = generator.standard_normal((count, groups, 1), dtype=np.float32)
    own = generator.standard_normal((count, groups, FRAMES), dtype=np.float32)
    values = np.sqrt(CORRELATION) * shared + np.sqrt(1 - CORRELATION) * own
    return np.asarray(values / np.sqrt(CORRELATION + (1 - CORRELATION) / FRAMES), np.float64)


def one_wide_group(
    generator: Generator, count: int, groups: int, seeds: int, seed_sd: float, times: float
) -> Values:
    """As `experiments`, but the variance of one group is `times` that of the others."""
    scale = np.ones((groups, 1))
    scale[0] = np.sqrt(times)
    by_seed = normal(generator, (count, 1, seeds)) * seed_sd / np.sqrt(groups)
    return parts(generator, (count, groups, seeds), (1.0, 0.0, REST_SD)) * scale + by_seed


def one_wide_seed(
    generator: Generator, count: int, groups: int, seeds: int, seed_sd: float, times: float
) -> Values:
    """As `experiments`, but the variance of one seed is `times` that of the others."""
    scale = np.ones(seeds)
    scale[0] = np.sqrt(times)
    sd = (0.0, seed_sd / np.sqrt(groups), REST_SD)
    return parts(generator, (count, groups, seeds), sd) * scale + normal(
        generator, (count, groups, 1)
    )


def unequal_groups(
    generator: Generator, count: int, groups: int, seeds: int, seed_sd: float
) -> Values:
    """As `experiments`, but a group is the mean of 1 to 40 cases, whose sd is 1 within a group."""
    cases = generator.integers(1, 41, (count, groups, 1))
    within = normal(generator, (count, groups, 1)) / np.sqrt(cases)
    return within + experiments(generator, count, groups, seeds, seed_sd)


def failing(generator: Generator, shape: tuple[int, ...], failures: float) -> Values:
    """Dice ~ beta(60, 5), but 0 with the probability `failures`."""
    return generator.beta(60, 5, shape) * (generator.random(shape) >= failures)


def failing_arms(
    generator: Generator, count: int, groups: int, seeds: int, failures: float
) -> Values:
    """Differences of two arms that fail equally often, each by itself."""
    shape = (count, groups, seeds)
    return failing(generator, shape, failures) - failing(generator, shape, failures)


def failing_but_better(generator: Generator, count: int, groups: int, seeds: int) -> Values:
    """An arm that fails in 4 % of cells and is better elsewhere, so that no true difference is
    left.
    """
    shape = (count, groups, seeds)
    better = 0.92 * 0.04 / 0.96
    failed = generator.random(shape) < 0.04
    return np.where(failed, -0.92, better) + 0.02 * normal(generator, shape)


def satterthwaite(differences: Values) -> tuple[Values, Values, Values]:
    """Mean, variance and degrees of freedom of the test that Cochran and Cox's takes the place of:
    (MS groups + MS seeds − MS rest) / (groups · seeds); where MS rest exceeds the smaller of the
    first two, the larger alone.
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
    return squares.mean, variance, np.where(one, single, dof)


def satterthwaite_alarms(differences: Values, level: float = 0.05, shift: float = 0.0) -> float:
    """Share of experiments that Satterthwaite's test calls different, after adding `shift`."""
    mean, variance, dof = satterthwaite(differences)
    return float(np.mean(np.abs(mean + shift) > stats.t.isf(level / 2, dof) * np.sqrt(variance)))


def alarms(effect: Effect, level: float = 0.05, shift: float = 0.0) -> float:
    """Share of experiments with p < `level`, where `shift` was added to every difference."""
    moved = Effect(effect.difference + shift, effect.parts, effect.dof)
    return float(np.mean(np.abs(moved.statistic) > moved.critical(level)))


def coverage(effect: Effect, level: float = 0.95, truth: float = 0.0) -> float:
    """Share of intervals that hold the true difference."""
    low, high = effect.interval(level)
    return float(np.mean((low <= truth) & (high >= truth)))


def wilcoxon_over_frames(values: Values) -> Values:
    """Two-sided p of signed ranks over all frames of all groups (normal law) of each experiment."""
    flat = values.reshape(len(values), -1)
    number = flat.shape[1]
    ranks = np.abs(flat).argsort(1).argsort(1) + 1
    above = np.where(flat > 0, ranks, 0).sum(1)
    mean = number * (number + 1) / 4
    sd = np.sqrt(number * (number + 1) * (2 * number + 1) / 24)
    return np.asarray(2 * stats.norm.sf(np.abs(above - mean) / sd))


def sign_flip_p(values: Values) -> Values:
    """Two-sided p of the mean of `values` (experiments, groups), every pattern of signs counted: as
    `segweave.comparison.resampling.sign_flip_p`, for many experiments at once.
    """
    sums = values[:, :1]
    for column in values.T[1:]:
        sums = np.concatenate([sums + column[:, None], sums - column[:, None]], axis=1)
    slack = 1e-9 * np.abs(values).sum(1)
    observed = np.abs(values.sum(1)) - slack
    return np.asarray((np.abs(sums) >= observed[:, None]).mean(1))


@dataclass
class Extremes:
    """The worst of what the tables print, for the summary at the end: false alarms of the main test
    by level in cells with normal or heavy-tailed effects, and 95 % intervals that cover too little.
    """

    worst: dict[float, float]
    low: list[tuple[str, float]]

    def note(self, cell: str, shares: Sequence[float], covered: float, *, must_hold: bool) -> None:
        """Take note of a cell: its false alarms at `LEVELS`, its coverage."""
        if must_hold:
            for level, share in zip(LEVELS, shares, strict=True):
                self.worst[level] = max(self.worst.get(level, 0.0), share)
        self.note_interval(cell, covered)

    def note_interval(self, cell: str, covered: float) -> None:
        """Take note of the coverage of a 95 % interval."""
        if covered < 0.93:
            self.low.append((cell, covered))


def percent(shares: Sequence[float]) -> str:
    return " / ".join(f"{100 * share:.2f}" for share in shares)


def table(heading: str, header: Sequence[str], rows: Iterator[Sequence[object]]) -> None:
    """Print one table; numbers are right of the first column."""
    print(f"## {heading}\n")
    print("| " + " | ".join(header) + " |")
    print("| --- |" + " ---: |" * (len(header) - 1))
    for row in rows:
        print("| " + " | ".join(map(str, row)) + " |", flush=True)
    print()
