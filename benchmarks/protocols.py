"""What each habit of the released ACDC evaluation is worth, on finished runs: prints the tables of
benchmarks/protocols.md.

    python benchmarks/protocols.py STORE RUN ...            scored under clean and published
    python benchmarks/protocols.py --curve RUN              checkpoint chosen on the test set
    python benchmarks/protocols.py --missed EVALUATION ...  a missed class has the distance 0

The first form takes the label maps that `segweave evaluate` kept in the runs and scores them by
`clean`, by `clean` with one habit changed, and with all of them changed; the last must be what the
run's `evaluation/published` says, or the program stops.

The second form reads the curve of a training under `--set protocol=published`, which scores the
validation and the test cases after each epoch, the test cases for this question alone.

The third form takes evaluations under `clean`, of several arms, and gives every missed class the
distance that the released ACDC rule gives it.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segweave.data.case import Case
from segweave.data.store import Store
from segweave.evaluation import read_evaluation, summarise
from segweave.formats import read_label
from segweave.metrics import confusion, get_policy, surface_distances
from segweave.metrics.compute import missing
from segweave.registry import metrics
from segweave.training import Run

Labels = NDArray[np.uint8]


@dataclass(frozen=True)
class Habits:
    """Which parts of the released evaluation are in force; none: `clean`."""

    ends_left_out: bool = False
    on_the_networks_grid: bool = False
    pooled: bool = False
    voxels: bool = False
    empties: bool = False


CLEAN = Habits()
ALL = Habits(*[True] * 5)
ENDS = Habits(ends_left_out=True)
LINES = (
    ("clean", CLEAN),
    ("first and last slice left out", ENDS),
    (
        "class map made on the network's grid (ends left out too)",
        replace(ENDS, on_the_networks_grid=True),
    ),
    ("HD95 pooled over both directions", Habits(pooled=True)),
    ("distances in voxels", Habits(voxels=True)),
    ("missing classes by the released rule", Habits(empties=True)),
    ("all of these: published", ALL),
)


@dataclass
class Found:
    """Scores of one class over the volumes that count for it, and how many went by a rule."""

    dice: list[float]
    hd95: list[float]
    failed: int = 0
    by_rule: int = 0


def score(labels: Labels, case: Case, classes: Sequence[int], habits: Habits) -> dict[int, Any]:
    """(Dice, HD95 or None, by rule) of each class that counts in a case."""
    assert case.label is not None
    part = slice(1, -1) if habits.ends_left_out else slice(None)
    predicted, reference = labels[part], case.label[part]
    counts = confusion(predicted, reference, tuple(classes))
    both = tuple(c for c in classes if counts[c].predicted and counts[c].present)
    spacing = None if habits.voxels else case.spacing
    distances = surface_distances(predicted, reference, spacing, both) if both else {}
    rule = get_policy("published")
    result: dict[int, Any] = {}
    for c in classes:
        lack = missing(counts[c].predicted, counts[c].present)
        if lack is None:
            how = "pooled" if habits.pooled else "max"
            result[c] = (counts[c].dice, distances[c].hausdorff95(how), False)
        elif habits.empties:
            dice, hd95 = (
                rule.outcome(metrics.card(name), math.nan, lack, reference.shape, None)
                for name in ("dice", "hd95")
            )
            assert dice is not None
            assert hd95 is not None
            result[c] = (dice.value, hd95.value, True)
        elif counts[c].present:
            result[c] = (0.0, None, False)
    return result


@dataclass(frozen=True)
class Row:
    """A run under some rules: means over volumes, then over classes."""

    dice: float
    hd95: float
    failed: int
    by_rule: int


def scored(store: Store, run: Run) -> dict[str, Row]:
    """One run under each line's rules."""
    classes = list(store.target.foreground)
    folders = {name: run.folder / "predictions" / name for name in ("clean", "published")}
    found = {title: {c: Found([], []) for c in classes} for title, _ in LINES}
    for file in sorted(folders["clean"].iterdir()):
        case = store.case(file.name.split(".")[0])
        maps = {name: read_label(folder / file.name, case) for name, folder in folders.items()}
        for title, habits in LINES:
            kind = "published" if habits.on_the_networks_grid else "clean"
            for c, (dice, far, ruled) in score(maps[kind], case, classes, habits).items():
                one = found[title][c]
                one.dice.append(dice)
                one.by_rule += ruled
                if far is None:
                    one.failed += 1
                else:
                    one.hd95.append(far)
    check(run, found[LINES[-1][0]])
    return {
        title: Row(
            mean(mean(one.dice) for one in row.values()),
            mean(mean(one.hd95) for one in row.values()),
            sum(one.failed for one in row.values()),
            sum(one.by_rule for one in row.values()),
        )
        for title, row in found.items()
    }


def tables(store: Store, runs: Sequence[Run]) -> None:
    """The habits one by one, over all runs; then the order of the runs at both ends."""
    rows = [scored(store, run) for run in runs]
    print(
        f"{len(runs)} run(s): "
        + "; ".join(f"{run.recipe.arm}, seed {run.recipe.seed}" for run in runs)
        + ".\n"
    )
    print(
        "| rules | mean Dice | Dice against clean: mean [least, greatest] | mean HD95 "
        "| missed, without HD95 | scored by rule |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for title, habits in LINES:
        unit = "px" if habits.voxels else "mm"
        gains = [row[title].dice - row["clean"].dice for row in rows]
        gain = f"{mean(gains):+.4f} [{min(gains):+.4f}, {max(gains):+.4f}]"
        print(
            f"| {title} | {mean(row[title].dice for row in rows):.4f} "
            f"| {'–' if habits == CLEAN else gain} "
            f"| {mean(row[title].hd95 for row in rows):.2f} {unit} "
            f"| {sum(row[title].failed for row in rows)} "
            f"| {sum(row[title].by_rule for row in rows)} |"
        )
    if len(runs) > 1:
        print("\n| run | clean: Dice, rank | published: Dice, rank |\n| --- | ---: | ---: |")
        ends = [[row[title].dice for row in rows] for title in (LINES[0][0], LINES[-1][0])]
        for number, run in enumerate(runs):
            cells = [
                f"{dice[number]:.4f}, {1 + sum(other > dice[number] for other in dice)}"
                for dice in ends
            ]
            print(f"| {run.recipe.arm}, seed {run.recipe.seed} | {' | '.join(cells)} |")


def check(run: Run, found: dict[int, Found]) -> None:
    """All habits together are the protocol `published`: stop where the numbers differ."""
    told = summarise([read_evaluation(run.folder / "evaluation" / "published")])[0]
    dice = told.macro.overlaps["dice"].mean
    ours = mean(mean(one.dice) for one in found.values())
    if dice is None or not math.isclose(dice, ours, rel_tol=1e-9):
        raise SystemExit(f"{run.folder}: published Dice {dice}, here {ours}")


def curve(run: Run) -> None:
    """What the last epoch, the best on validation and the best on the test cases score there."""
    rows = [row for row in run.metrics if not math.isnan(row.get("test_dice", math.nan))]
    if not rows:
        raise SystemExit(f"{run.folder}: no test scores by epoch (--set protocol=published)")
    test, validation = ([row[f"{part}_dice"] for row in rows] for part in ("test", "validation"))
    print("| checkpoint | epoch | mean Dice of the test patients |")
    print("| --- | ---: | ---: |")
    for title, index in (
        ("last", len(rows) - 1),
        ("best on the validation patients", int(np.argmax(validation))),
        ("best on the test patients", int(np.argmax(test))),
    ):
        print(f"| {title} | {rows[index]['epoch']:.0f} | {test[index]:.4f} |")
    print("\n| epoch | " + " | ".join(f"{row['epoch']:.0f}" for row in rows) + " |")
    print("| --- |" + " ---: |" * len(rows))
    print("| test | " + " | ".join(f"{value:.3f}" for value in test) + " |")
    print("| validation | " + " | ".join(f"{value:.3f}" for value in validation) + " |")


def missed(folders: Sequence[Path]) -> None:
    """HD95 of each arm over what was found, and with 0 for what was missed."""
    values: dict[str, list[float | None]] = {}
    units = set()
    for folder in folders:
        for row in read_evaluation(folder).rows:
            if row.score.metric == "hd95":
                values.setdefault(row.arm, []).append(row.score.value)
                units.add(row.score.unit)
    (unit,) = units
    print(f"| arm | images × runs | missed | mean HD95 of the found, {unit} | 0 for the missed |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for arm, own in values.items():
        found = [value for value in own if value is not None]
        print(
            f"| {arm} | {len(own)} | {len(own) - len(found)} | {mean(found):.2f} "
            f"| {sum(found) / len(own):.2f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--curve", action="store_true", help="the folder is one run")
    parser.add_argument("--missed", action="store_true", help="the folders are evaluations")
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    options = parser.parse_args()
    first, *rest = options.folders
    if options.missed:
        missed(options.folders)
    elif options.curve and not rest:
        curve(Run(first))
    elif rest and not options.curve:
        tables(Store(first), [Run(folder) for folder in rest])
    else:
        parser.error("name a store and runs, or with --curve one run")


if __name__ == "__main__":
    main()
