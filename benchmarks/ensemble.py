"""Prints the table of ensemble.md: what averaging runs, flips and tiles cost, and what they gain.

    python benchmarks/ensemble.py RUN [RUN...]   runs of one arm that differ in seed, as trained
    python benchmarks/ensemble.py --quick        made hearts, trainings of seconds, to see it works

Scored are the validation cases under `clean`'s rules: how to predict is a choice, and choices are
not made on test cases. Cost is CPU time of one thread over all cases, as a ratio to one run. A
single run's Dice is the mean over the runs given; gains are differences from it.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

import numpy as np
import torch
from numpy.typing import NDArray

from segweave.data.case import Case
from segweave.data.store import Store
from segweave.datasets import prepare
from segweave.evaluation import validation_scores
from segweave.phantoms.cardiac import write_cardiac
from segweave.prediction import Ensemble, Flips, Predictor, Tiles, load, predict
from segweave.training import Run
from segweave.workflow.train import train

SETS = ("training.epochs=1", "network.options.width=2", "input.size=[32,32]")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("--quick", action="store_true", help="make two tiny runs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        runs = make(Path(name)) if options.quick else [Run(path) for path in options.runs]
        if not runs:
            parser.error("give run folders, or --quick")
        table(runs)


def make(folder: Path) -> list[Run]:
    """Two trainings of seconds."""
    write_cardiac(folder / "raw", 4, size=(48, 40), slices=3)
    prepare("acdc", folder / "raw", folder / "store")
    store = folder / "store"
    return [train("demo", store, folder / str(s), sets=SETS, seed=s, device="cpu") for s in (0, 1)]


def table(runs: Sequence[Run]) -> None:
    """One row a way of predicting."""
    place = runs[0].recipe.data.store
    assert place is not None
    store = Store(place)
    ids = runs[0].recipe.choose_parts(store)["validation"]
    if any(run.recipe.choose_parts(store)["validation"] != ids for run in runs):
        raise SystemExit("the runs have different validation cases")
    cases = [store.case(id) for id in ids]
    members = tuple(load(run.folder, device="cpu") for run in runs)
    single = [measured(member, cases) for member in members]
    base_seconds, base = mean(s for s, _ in single), mean(dice for _, dice in single)
    rows = [("one run", base_seconds, base)]
    if len(members) > 1:
        rows.append((f"{len(members)} runs", *measured(Ensemble(members), cases)))
    ways: list[tuple[str, Flips, Tiles | None]] = [
        ("flips: rows", "rows", None),
        ("flips: both", "both", None),
        ("tiles, half overlapping", "none", Tiles()),
    ]
    for title, flips, tiles in ways:
        found = [measured(Ensemble((m,), flips, tiles), cases) for m in members]
        rows.append((f"one run, {title}", mean(s for s, _ in found), mean(d for _, d in found)))
    if len(members) > 1:
        both = Ensemble(members, flips="both")
        rows.append((f"{len(members)} runs, flips: both", *measured(both, cases)))
    print("| prediction | cost | Dice | gain |")
    print("| --- | ---: | ---: | ---: |")
    for title, seconds, dice in rows:
        print(f"| {title} | {seconds / base_seconds:.1f} | {dice:.4f} | {dice - base:+.4f} |")
    recipe = runs[0].recipe
    mirror = recipe.training.augmentation.mirror
    groups = len({store.groups[id] for id in ids})
    print(
        f"\nArm {recipe.arm}, seeds {', '.join(str(run.recipe.seed) for run in runs)}; {len(ids)} "
        f"validation cases of {groups} groups of {store.name}; trained with mirror {mirror}, fit "
        f"{recipe.input.fit}. One run takes {base_seconds:.2f} s of CPU. torch {torch.__version__}."
    )


def measured(model: Predictor | Ensemble, cases: Sequence[Case]) -> tuple[float, float]:
    """CPU seconds of all cases, and the mean Dice."""
    seconds = 0.0

    def labels(case: Case) -> NDArray[np.uint8]:
        nonlocal seconds
        start = time.process_time()
        found = predict(model, case).labels
        seconds += time.process_time() - start
        return found

    predict(model, cases[0])  # the first call is slower than the rest
    dice = validation_scores(labels, cases, model.target)["dice"]
    return seconds, dice


if __name__ == "__main__":
    main()
