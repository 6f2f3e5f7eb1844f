"""Prints the tables of uncertainty.md: calibration before and after, and what ranking is worth.

    python benchmarks/uncertainty.py calibration RUN [RUN...]   runs of one arm that differ in seed
    python benchmarks/uncertainty.py learning RECIPE STORE      many trainings on parts of STORE
    python benchmarks/uncertainty.py quick                      both on phantoms, minutes
    python benchmarks/uncertainty.py tiny                       the same, to see that it works

calibration: a temperature is fitted on the validation cases of copies of the runs; ECE, Brier score
and negative log likelihood are those of all voxels of the TEST cases together. learning: a model is
trained on a few labelled groups, the rest of the training part is the pool; each round adds the
groups that come first in the order, and a new model is trained. Its Dice is that of the validation
and test cases together, which never enter a training: the checkpoint is the last one.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean, stdev
from unittest.mock import patch

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

import numpy as np
import torch

from segweave.data.store import Store
from segweave.data.store_writer import StoreWriter
from segweave.datasets import prepare
from segweave.evaluation import validation_scores
from segweave.phantoms.cardiac import write_cardiac
from segweave.prediction import Flips, load, load_ensemble
from segweave.training import Run
from segweave.workflow.calibrate import calibrate
from segweave.workflow.calibration_curves import CalibrationCurves
from segweave.workflow.rank import rank
from segweave.workflow.train import train

QUICK = (
    "training.epochs=25",
    "training.validate_every=25",
    "network.options.width=4",
    "input.size=[32,32]",
)
COLUMNS = ("ece", "ece_foreground", "ece_classwise", "brier", "nll")
ORDERS = ("random", "entropy", "entropy, diverse")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("calibration", "learning", "quick", "tiny"))
    parser.add_argument("paths", nargs="*")
    parser.add_argument("--set", action="append", default=[], help="a setting of the recipe")
    parser.add_argument("--start", type=int, default=1, help="labelled groups at the start")
    parser.add_argument("--add", type=int, default=1, help="groups that each round adds")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    # Reports of single trainings are not looked at here.
    with tempfile.TemporaryDirectory() as name, patch("segweave.workflow.train.update_report"):
        folder = Path(name)
        if options.what == "calibration":
            calibration([Run(path) for path in options.paths], folder)
        elif options.what == "learning":
            recipe, store = options.paths
            learning(recipe, Store(store), folder, options, options.set)
        else:
            patients, count = 16, 3
            if options.what == "tiny":
                patients, count = 6, 2
                options.seeds = options.rounds = 1
            write_cardiac(folder / "raw", patients, size=(40, 40), slices=3)
            prepare("acdc", folder / "raw", folder / "store")
            store = Store(folder / "store")
            runs = []
            for seed in range(count):
                out = folder / f"run{seed}"
                runs.append(train("demo", store.path, out, sets=QUICK, seed=seed, device="cpu"))
            calibration(runs, folder)
            print(flush=True)
            learning("demo", store, folder, options, QUICK)


def calibration(given: Sequence[Run], folder: Path) -> None:
    """One row per way of predicting, before and after its temperature."""
    # Copies, so that the cards of the runs stay as they are.
    runs = [shutil.copytree(run.folder, folder / f"copy{n}") for n, run in enumerate(given)]
    path = given[0].recipe.data.store
    assert isinstance(path, str)
    store = Store(path)
    parts = given[0].recipe.choose_parts(store)
    ways: list[tuple[str, list[list[Path]], Flips]] = [
        ("one run", [[run] for run in runs], "none"),
        ("one run, flips: both", [[run] for run in runs], "both"),
    ]
    if len(runs) > 1:
        ways.append((f"{len(runs)} runs", [runs], "none"))
        ways.append((f"{len(runs)} runs, flips: both", [runs], "both"))
    print("| prediction | temperature | | ECE | ECE, foreground | ECE, class-wise | Brier | NLL |")
    print("| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: |")
    for title, groups, flips in ways:
        found = [measured(group, flips, store, parts["test"]) for group in groups]
        temperatures = ", ".join(f"{temperature:.2f}" for temperature, _ in found)
        for state in ("before", "after"):
            values = [mean(content[state][name] for _, content in found) for name in COLUMNS]
            cells = " | ".join(f"{value:.4f}" for value in values)
            print(f"| {title} | {temperatures} | {state} | {cells} |")
    recipe = given[0].recipe
    seeds = ", ".join(str(run.recipe.seed) for run in given)
    print(
        f"\nArm {recipe.arm}, seeds {seeds}; "
        f"{len(parts['validation'])} validation and {len(parts['test'])} test cases of "
        f"{store.name}. Rows of one run are means over the runs. torch {torch.__version__}."
    )


def measured(
    runs: Sequence[Path], flips: Flips, store: Store, ids: Sequence[str]
) -> tuple[float, dict[str, dict[str, float]]]:
    """The temperature, and what is measured on the cases `ids` before and after it."""
    fitted = calibrate(runs[0], members=runs[1:], flips=flips, device="cpu")
    session = load_ensemble(runs, flips=flips, device="cpu", calibrated=False).session()
    curves = CalibrationCurves(session.target, fitted.temperature)
    for id in ids:
        case = store.case(id)
        found = session.predict(case, probabilities=True).probabilities
        assert found is not None
        curves.add(found, np.asarray(case.label))
    return fitted.temperature, curves.content()


def learning(
    recipe: str, store: Store, folder: Path, options: argparse.Namespace, sets: Sequence[str]
) -> None:
    """Dice by number of labelled groups, for each order."""
    curves: dict[str, list[list[float]]] = {order: [] for order in ORDERS}
    counts = [options.start + options.add * number for number in range(options.rounds + 1)]
    for seed in range(options.seeds):
        first: tuple[Run, float] | None = None
        for order in ORDERS:
            dice = []
            for run, score in rounds(recipe, store, folder, options, sets, seed, order, first):
                # All orders begin with the same groups.
                first = first or (run, score)
                dice.append(score)
                print(f"seed {seed}, {order}: {score:.4f}", file=sys.stderr, flush=True)
            curves[order].append(dice)
    print(f"| order | {' | '.join(f'{count} groups' for count in counts)} | gain over random |")
    print(f"| --- |{' ---: |' * (len(counts) + 1)}")
    for order in ORDERS:
        cells = []
        for number in range(len(counts)):
            values = [dice[number] for dice in curves[order]]
            spread = f" ± {stdev(values):.3f}" if len(values) > 1 else ""
            cells.append(f"{mean(values):.3f}{spread}")
        # Paired by seed: the mean over the rounds behind the first.
        pairs = zip(curves[order], curves["random"], strict=True)
        gains = [mean(a) - mean(b) for a, b in ((one[1:], other[1:]) for one, other in pairs)]
        spread = f" ± {stdev(gains):.3f}" if len(gains) > 1 else ""
        print(f"| {order} | {' | '.join(cells)} | {mean(gains):+.3f}{spread} |")
    print(
        f"\nDice, mean ± standard deviation over {options.seeds} seeds, of the validation and test "
        f"cases of {store.name}; a seed chooses the first groups, the start weights and the random "
        "order."
    )


def rounds(
    recipe: str,
    store: Store,
    folder: Path,
    options: argparse.Namespace,
    sets: Sequence[str],
    seed: int,
    order: str,
    first: tuple[Run, float] | None,
) -> Iterator[tuple[Run, float]]:
    """Each round's run and its Dice."""
    split = next(s for name, s in store.splits.items() if not name.startswith("fold-"))
    pool = sorted({store.groups[id] for id in split["train"]})
    draw = np.random.default_rng(seed)
    shuffled = [pool[index] for index in draw.permutation(len(pool))]
    labelled, rest = shuffled[: options.start], shuffled[options.start :]
    scored = [store.case(id) for part in ("valid", "test") for id in split.get(part, ())]
    for number in range(options.rounds + 1):
        if number == 0 and first is not None:
            run, score = first
        else:
            home = folder / f"{seed}-{order.replace(', ', '-')}-{number}"
            part = [id for id in split["train"] if store.groups[id] in labelled]
            whole = copied(store, home / "store", {**split, "train": part})
            run = train(recipe, whole.path, home / "run", sets=QUICK, seed=seed, device="cpu")
            session = load(run.folder, device="cpu").session()
            score = validation_scores(
                lambda case, session=session: session.predict(case).labels, scored, store.target
            )["dice"]
        yield run, score
        if number == options.rounds:
            return
        if order == "random":
            new = rest[: options.add]
        else:
            path = run.recipe.data.store
            assert isinstance(path, str)
            out = folder / f"rank-{seed}-{order}-{number}"
            found = rank(
                path,
                [run],
                out,
                labelled=True,
                diverse="diverse" in order,
                pictures=0,
                device="cpu",
            )
            # Labels are made for whole patients: a group comes where its first case does.
            new = list(dict.fromkeys(one.group for one in found.cases))[: options.add]
        labelled = [*labelled, *new]
        rest = [group for group in rest if group not in new]


def copied(store: Store, path: Path, split: dict[str, list[str]]) -> Store:
    """The cases of a store with another split."""
    with StoreWriter(path, store.name, store.target) as writer:
        for id in store.ids:
            writer.add(store.case(id))
        return writer.finish({"some": split})


if __name__ == "__main__":
    main()
