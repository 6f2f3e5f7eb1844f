"""Sections of simulation.py about groups alone, for the weights at hand, and about frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product

import numpy as np
from benchmarks._simulated import (
    CORRELATION,
    FRAMES,
    LEVELS,
    Extremes,
    Generator,
    Values,
    alarms,
    coverage,
    failing,
    frames,
    heavy,
    normal,
    percent,
    sign_flip_p,
    skewed,
    table,
    wilcoxon_over_frames,
)

from segweave.comparison.variance import group_effect

_GIVEN: tuple[tuple[str, Callable[[Generator, tuple[int, int]], Values]], ...] = (
    ("normal", normal),
    ("t3", heavy),
    ("exponential", skewed),
    *(
        (
            f"Dice near 0.92, both arms 0 in {share:.0%} of groups",
            lambda r, shape, share=share: failing(r, shape, share) - failing(r, shape, share),
        )
        for share in (0.01, 0.02, 0.05)
    ),
)


def weights_section(generator: Generator, count: int, extremes: Extremes) -> None:
    """Groups alone, for the weights at hand: signs flipped, and the interval by t."""

    def rows() -> Iterator[Sequence[object]]:
        for (name, draw), groups in product(_GIVEN, (6, 12, 30, 50, 100)):
            values = draw(generator, (count, groups))
            effect = group_effect(values)
            flips = "–"
            if groups <= 12:
                p = sign_flip_p(values[: count // 4])
                flips = percent([float(np.mean(p < level)) for level in LEVELS])
            covered = coverage(effect)
            extremes.note_interval(f"these weights, {name}, {groups} groups", covered)
            yield [name, groups, flips, f"{covered:.1%}", f"{coverage(effect, 0.9):.1%}"]

    header = ["differences of groups", "groups", "permutation: false alarms", "95 % covers"]
    table("These weights: permutation of signs and interval by t", [*header, "90 % covers"], rows())


def means_section(generator: Generator, count: int, extremes: Extremes) -> None:
    """The interval of an arm's mean Dice, as `segweave evaluate` and `score` print it."""

    def rows() -> Iterator[Sequence[object]]:
        for failures, groups in product((0.0, 0.01, 0.02, 0.05), (8, 20, 50, 100)):
            effect = group_effect(failing(generator, (count, groups), failures))
            truth = 60 / 65 * (1 - failures)
            covered = coverage(effect, truth=truth)
            extremes.note_interval(f"a mean Dice, 0 in {failures:.0%}, {groups} groups", covered)
            yield [
                f"{failures:.0%}",
                groups,
                f"{covered:.1%}",
                f"{coverage(effect, 0.9, truth):.1%}",
            ]

    header = ["groups with Dice 0", "groups", "95 % covers", "90 % covers"]
    table("Interval of a mean Dice near 0.92", header, rows())
    print(
        "Where failures are so rare that the groups at hand often show none, no interval of the "
        "mean knows of them.\n"
    )


def frames_section(generator: Generator, count: int, extremes: Extremes) -> None:
    """What tests over frames do."""
    repeats = min(count, 4000)

    def rows() -> Iterator[Sequence[object]]:
        for groups in (6, 12, 20):
            values = frames(generator, repeats, groups)
            ranked = np.mean(wilcoxon_over_frames(values) < 0.05)
            flat = alarms(group_effect(values.reshape(repeats, -1)))
            yield [groups, f"{ranked:.1%}", f"{flat:.1%}"]

    header = ["videos", "Wilcoxon over frames", "t over frames"]
    table("Tests over frames instead of videos, no true difference, 5 % asked", header, rows())
    print(f"Videos of {FRAMES} frames, correlation {CORRELATION}.\n")
