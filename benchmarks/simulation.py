"""Prints the tables of simulation.md: what the tests and intervals of `segweave compare` do where
the truth is known. False alarms at 5, 1 and 0.5 % without a true difference, coverage, power.

    python benchmarks/simulation.py            100,000 experiments a cell of the main test
    python benchmarks/simulation.py --tiny     400, to see that it works

Every table has a stream of random numbers of its own, so that a new one changes none of the others.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks._simulated import (
    LEVELS,
    Extremes,
    Generator,
    Law,
    Values,
    alarms,
    coverage,
    experiments,
    heavy,
    normal,
    parts,
    percent,
    satterthwaite_alarms,
    table,
    unpaired_experiments,
)
from benchmarks._simulated_conditions import Draw, conditions, skewed_conditions
from benchmarks._simulated_weights import frames_section, means_section, weights_section

from segweave.comparison.variance import (
    Effect,
    fold_effect,
    group_effect,
    paired_effect,
    unpaired_effect,
)

GROUPS = (6, 12, 20)
SEEDS = (3, 5)
SEED_SD = (0, 1, 2)
RESTLESS = (
    *((20, 3, sd) for sd in (4, 6)),
    *((50, 3, sd) for sd in (2, 6)),
    *((100, 3, sd) for sd in (2, 3, 6)),
    (200, 3, 6),
    (20, 5, 4),
    (100, 5, 6),
)
"""Cells with more groups, or seeds that differ more."""
_CHUNK = 10_000
_OTHERS = 20_000
"""Experiments a cell in the tables that are not about the level of the main test."""
SHIFTS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0)


def cells() -> Iterator[tuple[int, int, int]]:
    """Groups, seeds, sd of the seeds in standard errors of the groups."""
    yield from product(GROUPS, SEEDS, SEED_SD)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="400 experiments a cell")
    count = 400 if parser.parse_args().tiny else 100_000
    extremes = Extremes({}, [])
    main_test = (
        paired_section,
        unpaired_section,
        conditions_section,
        skewed_section,
        folds_section,
    )
    for number, section in enumerate(
        (
            *main_test,
            many_arms_section,
            equivalence_section,
            power_section,
            detectable_section,
            weights_section,
            means_section,
            frames_section,
        )
    ):
        cells_of = count if section in main_test else min(count, _OTHERS)
        section(np.random.default_rng([9, number]), cells_of, extremes)
    print("## The worst\n")
    worst = ", ".join(f"{share:.2%} at {level:g}" for level, share in extremes.worst.items())
    print(
        "Largest share of false alarms of the main test over all cells with normal or heavy-tailed "
        f"effects: {worst}.\n"
    )
    low = "; ".join(f"{cell}: {covered:.1%}" for cell, covered in extremes.low) or "none"
    print(f"95 % intervals that cover less than 93 %: {low}.\n")
    errors = ", ".join(f"{1.96 * np.sqrt(p * (1 - p) / count):.2%} at {p:g}" for p in LEVELS)
    print(
        f"{count:,} experiments per cell of the main test, at most {_OTHERS:,} in the other "
        f"tables; a share of the first is known to ± {errors}."
    )


def _measured(measure: Callable[[int], Sequence[float]], count: int) -> list[float]:
    """Means of what `measure` counts over as many experiments as it is given, in chunks."""
    chunk = min(count, _CHUNK)
    chunks = [measure(chunk) for _ in range(count // chunk)]
    return np.mean(chunks, axis=0).tolist()


def _of_effect(effect: Effect) -> list[float]:
    """False alarms at `LEVELS`, coverage of the 95 % and of the 90 % interval."""
    return [*(alarms(effect, level) for level in LEVELS), coverage(effect), coverage(effect, 0.9)]


def _former(values: Values) -> list[float]:
    return [satterthwaite_alarms(values, level) for level in LEVELS]


def paired_section(generator: Generator, count: int, extremes: Extremes) -> None:
    """The main test and what it takes the place of."""
    header = ["groups", "seeds", "seeds' sd", "main test", "95 % covers", "90 % covers"]
    header += ["Satterthwaite's", "t over groups, these weights"]

    def rows() -> Iterator[Sequence[object]]:
        for groups, seeds, seed_sd in (*cells(), *RESTLESS):

            def measure(
                n: int, cell: tuple[int, int, int] = (groups, seeds, seed_sd)
            ) -> list[float]:
                values = experiments(generator, n, *cell)
                alone = alarms(group_effect(values.mean(-1)))
                return [*_of_effect(paired_effect(values)), *_former(values), alone]

            *shares, covered, covered90, a, b, c, alone = _measured(measure, count)
            cell = f"main test, {groups} × {seeds}, seeds' sd {seed_sd}"
            extremes.note(cell, shares, covered, must_hold=True)
            row = [groups, seeds, seed_sd, percent(shares), f"{covered:.1%}", f"{covered90:.1%}"]
            yield [*row, percent([a, b, c]), f"{alone:.1%}"]

    table("No true difference: false alarms in %, asked 5 / 1 / 0.5", header, rows())
    print(
        "Seeds' sd in standard errors of the groups. Satterthwaite's test is that of mixed models. "
        "The last column asks of new trainings what a test over groups cannot answer.\n"
    )


def unpaired_section(generator: Generator, count: int, extremes: Extremes) -> None:
    """Arms whose seeds differ."""
    plans: list[tuple[int, tuple[int, int], tuple[float, float]]] = [
        *((g, (s, s), (sd, sd)) for g, s, sd in cells()),
        *((g, (3, 10), (4.0, 1.0)) for g in (6, 20, 100)),
        *((g, (3, 10), (1.0, 4.0)) for g in (6, 20, 100)),
        *((g, (3, 3), (4.0, 4.0)) for g in (20, 100)),
    ]

    def rows() -> Iterator[Sequence[object]]:
        for groups, seeds, seed_sd in plans:
            for name, law in (("normal", normal), ("t3", heavy)):

                def measure(
                    n: int,
                    plan: tuple[int, tuple[int, int], tuple[float, float]] = (
                        groups,
                        seeds,
                        seed_sd,
                    ),
                    law: Law = law,
                ) -> list[float]:
                    arms = unpaired_experiments(generator, n, *plan, law)
                    return _of_effect(unpaired_effect(*arms))

                *shares, covered, covered90 = _measured(measure, count)
                cell = f"not paired, {groups} × {seeds}, seeds' sd {seed_sd}, {name}"
                extremes.note(cell, shares, covered, must_hold=True)
                row = [groups, "{} and {}".format(*seeds), "{:g} and {:g}".format(*seed_sd), name]
                yield [*row, percent(shares), f"{covered:.1%}", f"{covered90:.1%}"]

    header = ["groups", "seeds of the arms", "their sd", "effects", "main test"]
    table("Seeds not paired", [*header, "95 % covers", "90 % covers"], rows())


def _of_conditions(
    which: Iterator[tuple[str, int, int, Draw]],
    generator: Generator,
    count: int,
    extremes: Extremes,
    *,
    must_hold: bool,
) -> Iterator[Sequence[object]]:
    for name, groups, seeds, draw in which:

        def measure(n: int, draw: Draw = draw) -> list[float]:
            values = draw(generator, n)
            return [*_of_effect(paired_effect(values)), *_former(values)]

        *shares, covered, covered90, a, b, c = _measured(measure, count)
        extremes.note(f"{name}, {groups} × {seeds}", shares, covered, must_hold=must_hold)
        row = [name, groups, seeds, percent(shares), f"{covered:.1%}", f"{covered90:.1%}"]
        yield [*row, percent([a, b, c])]


_CONDITION = ("effects", "groups", "seeds", "main test", "95 % covers", "90 % covers")


def conditions_section(generator: Generator, count: int, extremes: Extremes) -> None:
    """Heavy tails, other mixes, unequal groups."""
    rows = _of_conditions(conditions(), generator, count, extremes, must_hold=True)
    table("Other effects, normal or heavy-tailed", [*_CONDITION, "Satterthwaite's"], rows)


def skewed_section(generator: Generator, count: int, extremes: Extremes) -> None:
    """What breaks the level, and a design that is not what the test takes it for."""
    rows = _of_conditions(skewed_conditions(), generator, count, extremes, must_hold=False)
    table("Skewed effects", [*_CONDITION, "Satterthwaite's"], rows)
    shared = normal(generator, (count, 1, 3))
    own = normal(generator, (count, 1, 3))
    rho = -0.9
    other = rho * shared + np.sqrt(1 - rho**2) * own
    noise = [
        parts(generator, (count, 20, 3), (1, 0, 0.5)) / np.sqrt(2)
        + 2 / np.sqrt(20) / np.sqrt(2) * seeds
        for seeds in (shared, other)
    ]
    effect = unpaired_effect(noise[0], noise[1])
    extremes.note_interval("seeds that differ in name only, correlated -0.9", coverage(effect))
    print(
        "Seeds that differ in name only, and push the two arms apart (correlation -0.9), taken as "
        f"not paired, 20 × 3: {percent(_of_effect(effect)[:3])}, covers {coverage(effect):.1%}.\n"
    )


def many_arms_section(generator: Generator, count: int, extremes: Extremes) -> None:
    """Holm over arms with a shared reference: a first false alarm is one p below 5 % / arms."""
    repeats = max(count // 5, 200)

    def rows() -> Iterator[Sequence[object]]:
        for groups in (8, 20, 100):
            shares = []
            for arms in (1, 2, 4, 20):
                raised = np.zeros(repeats, bool)
                reference = experiments(generator, repeats, groups, 3, 2)
                for _ in range(arms):
                    other = experiments(generator, repeats, groups, 3, 2)
                    effect = paired_effect((other - reference) / np.sqrt(2))
                    raised |= np.abs(effect.statistic) > effect.critical(0.05 / arms)
                shares.append(f"{raised.mean():.1%}")
            yield [f"{groups} × 3", *shares]

    header = ["groups × seeds", "1 arm", "2 arms", "4 arms", "20 arms"]
    table("Any false alarm over the arms, 5 % asked (Holm), seeds' sd 2", header, rows())
    print(f"{repeats:,} experiments a cell.\n")


def equivalence_section(generator: Generator, count: int, extremes: Extremes) -> None:
    """Arms whose true difference is exactly the margin, and which must not be called equivalent."""
    repeats = max(count // 4, 200)
    margin = 1.5

    def inside(effect: Effect, arms: int) -> Values:
        low, high = effect.interval(1 - 2 * 0.05 / arms)
        return np.asarray((low > -margin) & (high < margin))

    def rows() -> Iterator[Sequence[object]]:
        for groups in (8, 20, 100):
            single = inside(
                paired_effect(experiments(generator, repeats, groups, 3, 1) + margin), 1
            )
            any_of = [np.zeros(repeats, bool) for _ in range(2)]
            for _ in range(4):
                effect = paired_effect(experiments(generator, repeats, groups, 3, 1) + margin)
                any_of[0] |= inside(effect, 1)
                any_of[1] |= inside(effect, 4)
            yield [f"{groups} × 3", *(f"{x.mean():.1%}" for x in (single, *any_of))]

    header = ["groups × seeds", "one arm", "any of four, each at 5 %", "any of four, Holm"]
    table("Called equivalent at a true difference of the margin, 5 % asked", header, rows())
    print(f"{repeats:,} experiments a cell. `segweave compare` uses Holm.\n")


def power_section(generator: Generator, count: int, extremes: Extremes) -> None:
    """The price of holding the level."""

    def rows() -> Iterator[Sequence[object]]:
        for groups, seeds, seed_sd in (*cells(), (100, 3, 2), (100, 5, 2)):
            values = experiments(generator, count, groups, seeds, seed_sd)
            effect = paired_effect(values)
            ours = [alarms(effect, shift=shift) for shift in SHIFTS]
            former = [satterthwaite_alarms(values, shift=shift) for shift in SHIFTS]
            both = [f"{a:.0%} ({b:.0%})" for a, b in zip(ours, former, strict=True)]
            yield [groups, seeds, seed_sd, *both]

    header = ["groups", "seeds", "seeds' sd", *map(str, SHIFTS)]
    table("Power at 5 %: main test (Satterthwaite's)", header, rows())
    print("True difference in sd of the groups' means.\n")


def detectable_section(generator: Generator, count: int, extremes: Extremes) -> None:
    """How rough the printed smallest detectable difference is."""
    repeats = min(max(count // 50, 50), 400)

    def rows() -> Iterator[Sequence[object]]:
        for groups, seeds, seed_sd in (
            (12, 3, 1),
            (20, 3, 2),
            (100, 3, 3),
            (20, 5, 1),
            (20, 10, 1),
        ):
            effect = paired_effect(experiments(generator, repeats, groups, seeds, seed_sd))
            printed = [
                Effect(d, part, effect.dof).detectable()
                for d, part in zip(effect.difference, effect.parts.T, strict=True)
            ]
            many = paired_effect(experiments(generator, count, groups, seeds, seed_sd))
            cells = [float(value) for value in np.quantile(printed, (0.1, 0.5, 0.9))]
            power = [f"{value:.2f} ({alarms(many, shift=value):.0%})" for value in cells]
            yield [groups, seeds, seed_sd, *power]

    header = ["groups", "seeds", "seeds' sd", "10 % of experiments print less", "50 %", "90 %"]
    table("Smallest detectable difference as printed (its true power; asked 80 %)", header, rows())


def folds_section(generator: Generator, count: int, extremes: Extremes) -> None:
    """The folds' formula where its assumption holds: two folds' means are correlated as test /
    (test + training groups).
    """

    def rows() -> Iterator[Sequence[object]]:
        for folds in (3, 5, 10):
            ratio = 1 / (folds - 1)
            shared = ratio / (1 + ratio)
            values = np.sqrt(shared) * normal(generator, (count, 1))
            values = values + np.sqrt(1 - shared) * normal(generator, (count, folds))
            effect, plain = fold_effect(values, ratio), fold_effect(values, 0.0)
            *shares, covered, covered90 = _of_effect(effect)
            extremes.note(f"{folds} folds", shares, covered, must_hold=True)
            row = [folds, percent(shares), f"{covered:.1%}", f"{covered90:.1%}"]
            yield [*row, percent([alarms(plain, level) for level in LEVELS])]

    header = ["folds", "one mean per fold, corrected", "95 % covers", "90 % covers"]
    table("Folds, no true difference", [*header, "plain t over folds"], rows())


if __name__ == "__main__":
    main()
