"""Prints the tables of simulation.md: what the tests of `segweave compare` do where the truth is
known. False alarms at 5 % without a true difference, coverage of 95 % intervals, power.

    python benchmarks/simulation.py            20,000 experiments a cell
    python benchmarks/simulation.py --tiny     500, to see that it works

A group is a video of 21 frames whose differences are correlated (0.4); its mean has sd 1. Seeds add
0, 1 or 2 standard errors of the groups (1/√groups), each group and seed half a sd of its own.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from segweave.comparison.variance import (
    Effect,
    fold_effect,
    group_effect,
    paired_effect,
    unpaired_effect,
)

Values = NDArray[np.float64]
GROUPS = (6, 12, 20)
SEEDS = (3, 5)
SEED_SD = (0, 1, 2)
REST_SD = 0.5
FRAMES = 21
CORRELATION = 0.4
LEVEL = 0.05


def cells() -> Iterator[tuple[int, int, int]]:
    """Groups, seeds, sd of the seeds in standard errors of the groups."""
    for groups in GROUPS:
        for seeds in SEEDS:
            for seed_sd in SEED_SD:
                yield groups, seeds, seed_sd


def frames(generator: np.random.Generator, count: int, groups: int) -> Values:
    """Differences of correlated frames (count, groups, frames); the mean of a group has sd 1."""
    shared = generator.standard_normal((count, groups, 1), dtype=np.float32)
    own = generator.standard_normal((count, groups, FRAMES), dtype=np.float32)
    values = np.sqrt(CORRELATION) * shared + np.sqrt(1 - CORRELATION) * own
    return np.asarray(values / np.sqrt(CORRELATION + (1 - CORRELATION) / FRAMES), np.float64)


def trainings(
    generator: np.random.Generator, count: int, groups: int, seeds: int, seed_sd: float
) -> Values:
    """What trainings add, (count, groups, seeds): of each seed, and of each seed in each group."""
    by_seed = generator.standard_normal((count, 1, seeds)) * seed_sd / np.sqrt(groups)
    return by_seed + REST_SD * generator.standard_normal((count, groups, seeds))


def experiments(
    generator: np.random.Generator, count: int, groups: int, seeds: int, seed_sd: float
) -> Values:
    """Differences of group and seed, (count, groups, seeds), without a true difference."""
    means = frames(generator, count, groups).mean(-1)
    return means[..., None] + trainings(generator, count, groups, seeds, seed_sd)


def unpaired_experiments(
    generator: np.random.Generator, count: int, groups: int, seeds: int, seed_sd: float
) -> tuple[Values, Values]:
    """Two arms on the same groups, each with seeds of its own; what differs has the same sd."""
    level = 2 * generator.standard_normal((count, groups, 1))
    ours, theirs = (
        level
        + (
            frames(generator, count, groups).mean(-1)[..., None]
            + trainings(generator, count, groups, seeds, seed_sd)
        )
        / np.sqrt(2)
        for _ in range(2)
    )
    return ours, theirs


def alarms(effect: Effect, shift: float = 0.0) -> float:
    """Share of experiments with p < 5 %, where `shift` was added to every difference."""
    moved = Effect(effect.difference + shift, effect.variance, effect.dof)
    return float(np.mean(moved.p < LEVEL))


def coverage(effect: Effect) -> float:
    """Share of 95 % intervals that hold the true difference, 0."""
    low, high = effect.interval(0.95)
    return float(np.mean((low <= 0) & (high >= 0)))


def wilcoxon_over_frames(values: Values) -> Values:
    """Two-sided p of signed ranks over all frames of all groups (normal law), one an experiment."""
    flat = values.reshape(len(values), -1)
    number = flat.shape[1]
    ranks = np.abs(flat).argsort(1).argsort(1) + 1
    above = np.where(flat > 0, ranks, 0).sum(1)
    mean = number * (number + 1) / 4
    sd = np.sqrt(number * (number + 1) * (2 * number + 1) / 24)
    return np.asarray(2 * stats.norm.sf(np.abs(above - mean) / sd))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="500 experiments a cell")
    count = 500 if parser.parse_args().tiny else 20_000
    generator = np.random.default_rng(9)
    print_false_alarms(generator, count)
    print_power(generator, count)
    print_frames(generator, min(count, 4000))
    print_skewed(generator, count)
    print_folds(generator, count)
    error = np.sqrt(LEVEL * (1 - LEVEL) / count)
    print(f"{count} experiments a cell: a share of 5 % is known to ± {1.96 * error:.2%}.")


def print_false_alarms(generator: np.random.Generator, count: int) -> None:
    print("## No true difference, 5 % asked\n")
    print(
        "| groups | seeds | seeds' sd | main test | its intervals cover | seeds not paired | "
        "cover | t over groups, these weights |"
    )
    print("|" + " ---: |" * 8)
    for groups, seeds, seed_sd in cells():
        values = experiments(generator, count, groups, seeds, seed_sd)
        main_test = paired_effect(values)
        other = unpaired_effect(*unpaired_experiments(generator, count, groups, seeds, seed_sd))
        weights = group_effect(values.mean(-1))
        print(
            f"| {groups} | {seeds} | {seed_sd} | {alarms(main_test):.1%} | "
            f"{coverage(main_test):.1%} | {alarms(other):.1%} | {coverage(other):.1%} | "
            f"{alarms(weights):.1%} |"
        )
    print(
        "\nSeeds' sd in standard errors of the groups. The last column asks of new trainings what "
        "a test over groups cannot answer.\n"
    )


def print_power(generator: np.random.Generator, count: int) -> None:
    print("## Power of the main test\n")
    shifts = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
    print("| groups | seeds | seeds' sd | " + " | ".join(map(str, shifts)) + " |")
    print("|" + " ---: |" * (3 + len(shifts)))
    for groups, seeds, seed_sd in cells():
        effect = paired_effect(experiments(generator, count, groups, seeds, seed_sd))
        shares = " | ".join(f"{alarms(effect, shift):.0%}" for shift in shifts)
        print(f"| {groups} | {seeds} | {seed_sd} | {shares} |")
    print("\nTrue difference in sd of the groups' means.\n")


def print_frames(generator: np.random.Generator, count: int) -> None:
    print("## Tests over frames instead of videos, no true difference\n")
    print("| videos | Wilcoxon over frames | t over frames |")
    print("|" + " ---: |" * 3)
    for groups in GROUPS:
        values = frames(generator, count, groups)
        ranked = np.mean(wilcoxon_over_frames(values) < LEVEL)
        flat = alarms(group_effect(values.reshape(count, -1)))
        print(f"| {groups} | {ranked:.1%} | {flat:.1%} |")
    print(f"\nVideos of {FRAMES} frames, correlation {CORRELATION}.\n")


def print_skewed(generator: np.random.Generator, count: int) -> None:
    """Differences of groups that are far from normal: exponential (skewness 2), mean 0, sd 1."""
    print("## Skewed differences, no true difference\n")
    print("| groups | seeds | seeds' sd | main test | its intervals cover |")
    print("|" + " ---: |" * 5)
    for groups in (*GROUPS, 50):
        means = generator.exponential(size=(count, groups, 1)) - 1
        effect = paired_effect(means + trainings(generator, count, groups, 3, 1))
        print(f"| {groups} | 3 | 1 | {alarms(effect):.1%} | {coverage(effect):.1%} |")
    print()


def print_folds(generator: np.random.Generator, count: int) -> None:
    """The folds' formula where its assumption holds: two folds' means are correlated as test /
    (test + training groups).
    """
    print("## Folds, no true difference\n")
    print("| folds | one mean a fold, corrected | plain t over folds |")
    print("|" + " ---: |" * 3)
    for folds in (5, 10):
        ratio = 1 / (folds - 1)
        shared = ratio / (1 + ratio)
        values = np.sqrt(shared) * generator.standard_normal((count, 1))
        values = values + np.sqrt(1 - shared) * generator.standard_normal((count, folds))
        plain = fold_effect(values, 0.0)
        print(f"| {folds} | {alarms(fold_effect(values, ratio)):.1%} | {alarms(plain):.1%} |")
    print()


if __name__ == "__main__":
    main()
