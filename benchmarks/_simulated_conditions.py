"""Conditions under which simulation.py tries the main test, beside the plain normal ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product

import numpy as np
from benchmarks._simulated import (
    Generator,
    Values,
    experiments,
    failing_arms,
    failing_but_better,
    heavy,
    normal,
    one_wide_group,
    one_wide_seed,
    parts,
    skewed,
    unequal_groups,
)

_SIZES = ((6, 3), (8, 3), (20, 3), (100, 3), (20, 5))
_MIXES = ((1, 0.1, 0.5), (1, 1, 0.5), (0.1, 1, 0.1), (1, 1, 1), (0, 0, 1), (0, 1, 1), (1, 0, 1))

Draw = Callable[[Generator, int], Values]


def conditions() -> Iterator[tuple[str, int, int, Draw]]:
    """What, groups, seeds, and what draws the differences: effects are normal or heavy-tailed, and
    the main test must hold its levels.
    """
    for (g, s), sd in product(_SIZES, (1, 4)):
        yield (
            f"t with 3 degrees of freedom, seeds' sd {sd}",
            g,
            s,
            lambda r, n, g=g, s=s, sd=sd: experiments(r, n, g, s, sd, heavy),
        )
    for sd in _MIXES:
        yield (
            "sd of groups, seeds, rest: {:g}, {:g}, {:g}".format(*sd),
            8,
            3,
            lambda r, n, sd=sd: parts(r, (n, 8, 3), sd),
        )
    yield (
        "sd of groups, seeds, rest: 1, 1, 0.1",
        20,
        3,
        lambda r, n: parts(r, (n, 20, 3), (1, 1, 0.1)),
    )
    for g, s in _SIZES:
        for times in (10, 100):
            yield (
                f"one group with {times} times the variance, seeds' sd 2",
                g,
                s,
                lambda r, n, g=g, s=s, k=times: one_wide_group(r, n, g, s, 2, k),
            )
        yield (
            "one seed with 10 times the variance, seeds' sd 2",
            g,
            s,
            lambda r, n, g=g, s=s: one_wide_seed(r, n, g, s, 2, 10),
        )
        yield (
            "groups of 1 to 40 cases, seeds' sd 2",
            g,
            s,
            lambda r, n, g=g, s=s: unequal_groups(r, n, g, s, 2),
        )
    for (g, s), failures in product(_SIZES, (0.02, 0.05)):
        yield (
            f"Dice near 0.92, both arms 0 in {failures:.0%} of cells",
            g,
            s,
            lambda r, n, g=g, s=s, f=failures: failing_arms(r, n, g, s, f),
        )
    for rho in (-0.9, 0.9):
        # The seeds' differences of two arms whose seeds are correlated.
        sd = (1.0, 2 * np.sqrt((1 - rho) / 20), 0.5)
        yield (
            f"seeds of the two arms correlated {rho:+g}",
            20,
            3,
            lambda r, n, sd=sd: parts(r, (n, 20, 3), sd),
        )


def skewed_conditions() -> Iterator[tuple[str, int, int, Draw]]:
    """The same for skewed effects, where no test that rests on t holds its levels."""
    for g in (6, 12, 20, 50, 100):
        yield (
            "exponential groups, normal seeds (sd 1) and rest",
            g,
            3,
            lambda r, n, g=g: parts(r, (n, g, 3), (1, g**-0.5, 0.5), (skewed, normal, normal)),
        )
    for sd, (g, s) in product(((1, 0.3, 0.5), (0.3, 0.2, 1)), ((6, 3), (20, 3), (100, 3), (20, 5))):
        yield (
            "exponential everywhere, sd {:g}, {:g}, {:g}".format(*sd),
            g,
            s,
            lambda r, n, g=g, s=s, sd=sd: parts(r, (n, g, s), sd, (skewed, skewed, skewed)),
        )
    for g, s in ((8, 3), (20, 3), (100, 3), (20, 5)):
        yield (
            "an arm that is 0 in 4 % of cells and better elsewhere",
            g,
            s,
            lambda r, n, g=g, s=s: failing_but_better(r, n, g, s),
        )
