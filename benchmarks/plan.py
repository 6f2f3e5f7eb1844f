"""Prints the table of plan.md: what a planned recipe reaches against the hand-written small one.

    python benchmarks/plan.py --out runs/plan                    phantoms, four minutes per training
    python benchmarks/plan.py --out runs/plan acdc=stores/acdc cvc-clinicdb=stores/clinicdb
    python benchmarks/plan.py --quick                            seconds, to see that it works

A real set's hand-written recipe is trained to its end; then `segweave train auto` gets the time
that it took, for planning and training together. On a phantom the hand-written recipe has no length
that anyone chose: it trains as many epochs as fit into `--minutes`, which the plan gets too. Dice
is that of the model on the validation cases (protocol `clean`), that is, of the checkpoint that the
recipe keeps; the last epoch's is beside it. Run folders that are finished are read, not trained
again.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from segweave.data.store import Store
from segweave.datasets import prepare
from segweave.phantoms.cardiac import write_cardiac
from segweave.phantoms.polyp import write_polyps
from segweave.recipes import load_recipe
from segweave.runs.run_folder import Run, RunLayout
from segweave.storage import read_json, write_json
from segweave.workflow.planner import decisions
from segweave.workflow.planner.facts import read_facts
from segweave.workflow.planner.speed import measure_speed
from segweave.workflow.train import score_validation, train
from segweave.workflow.train_auto import train_auto

HAND = {
    "acdc": "acdc-unet-128",
    "cvc-clinicdb": "cvc-clinicdb-unet-128",
    "cardiac phantom": "acdc-unet-128",
    "polyp phantom": "cvc-clinicdb-unet-128",
}


@dataclass(frozen=True)
class Options:
    """What both trainings of a set get."""

    out: Path
    device: str
    weights: str | None
    seed: int


def phantoms(folder: Path, *, quick: bool) -> dict[str, Path]:
    """Stores of synthetic hearts and polyps, made where they are not there."""
    patients, videos, size = (6, 6, (48, 40)) if quick else (20, 20, (160, 140))
    hearts, polyps = folder / "cardiac-store", folder / "polyp-store"
    if not hearts.exists():
        slices = {"slices": 3} if quick else {}
        write_cardiac(folder / "hearts", patients, size=size, **slices)
        prepare("acdc", folder / "hearts", hearts)
    if not polyps.exists():
        pictures = (48, 64) if quick else (288, 384)
        write_polyps(folder / "videos", videos, 2 if quick else 8, size=pictures)
        prepare("cvc-clinicdb", folder / "videos", polyps)
    return {"cardiac phantom": hearts, "polyp phantom": polyps}


def fitting_epochs(name: str, store: Path, hours: float, device: str) -> int:
    """The epochs of the hand-written recipe that fit into the time, by the planner's measure."""
    recipe, source = load_recipe(HAND[name], ["data.split=null"]), Store(store)
    facts = read_facts(source)
    speed = measure_speed(recipe, source, score_validation, device, training_slices=facts.slices)
    batch = recipe.training.batch_size
    return max(
        decisions.planned_length(facts, speed, hours, batch=batch, pretrained=False).epochs, 1
    )


def by_hand(name: str, store: Path, minutes: float | None, options: Options) -> tuple[Run, float]:
    """The run of the hand-written recipe, and the hours that the plan gets."""
    folder = options.out / name.replace(" ", "-") / "hand"
    took = folder.parent / "hours.json"
    if RunLayout(folder).finished and took.is_file():
        return Run(folder), float(read_json(took, "reading a time")["hours"])
    sets = []
    if minutes is not None:
        epochs = fitting_epochs(name, store, minutes / 60, options.device)
        sets = ["data.split=null", f"training.epochs={epochs}"]
    began = time.monotonic()
    run = train(
        HAND[name],
        store,
        folder,
        sets=sets,
        seed=options.seed,
        device=options.device,
        hours=None if minutes is None else minutes / 60,
    )
    hours = (time.monotonic() - began) / 3600 if minutes is None else minutes / 60
    write_json(took, {"format": 1, "hours": hours})
    return run, hours


def row(arm: str, run: Run, minutes: float) -> tuple[str, float]:
    """A line of the table, and the model's Dice."""
    recipe = run.recipe
    dice = [line["validation_dice"] for line in run.metrics if "validation_dice" in line]
    model = max(dice) if recipe.training.checkpoint == "best" else dice[-1]
    height, width = recipe.input.size or (0, 0)
    channels = recipe.network.options.get("width")
    network = recipe.network.name + (f" {channels}" if channels else "")
    planned = f"{run.metrics[-1]['epoch']:.0f} of {recipe.training.epochs}"
    cells = (
        arm,
        f"{network}, {height} × {width}, {recipe.training.precision}",
        planned,
        f"{minutes:.1f}",
        f"{model:.4f}",
        f"{dice[-1]:.4f}",
    )
    return "| " + " | ".join(cells) + " |", model


def compare(name: str, store: Path, minutes: float | None, options: Options) -> None:
    """Train both, and print their lines."""
    hand, hours = by_hand(name, store, minutes, options)
    folder = options.out / name.replace(" ", "-") / "planned"
    took = folder.parent / "planned.json"
    if not (RunLayout(folder).finished and took.is_file()):
        began = time.monotonic()
        train_auto(
            store,
            folder,
            hours=hours,
            weights=options.weights if "cvc" in HAND[name] else None,
            seed=options.seed,
            device=options.device,
        )
        write_json(took, {"format": 1, "hours": (time.monotonic() - began) / 3600})
    spent = float(read_json(took, "reading a time")["hours"])
    first, by_the_hand = row(f"{name}: {HAND[name]}", hand, 60 * hours)
    second, planned = row(f"{name}: planned", Run(folder), 60 * spent)
    print(f"{first} |", f"{second} {planned - by_the_hand:+.4f} |", sep="\n", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("stores", nargs="*", metavar="NAME=STORE", help="acdc=... cvc-clinicdb=...")
    parser.add_argument("--out", type=Path, help="where the runs go")
    parser.add_argument("--minutes", type=float, default=4.0, help="per training on a phantom")
    parser.add_argument("--weights", help="ImageNet weights for colour pictures, see segweave plan")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quick", action="store_true", help="tiny phantoms, seconds")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.quick:
        decisions.MOST_EPOCHS = 2
    with tempfile.TemporaryDirectory() as temporary:
        out = given.out or Path(temporary)
        minutes = 1.0 if given.quick else given.minutes
        options = Options(out, given.device, given.weights, given.seed)
        stores = {k: Path(v) for k, _, v in (text.partition("=") for text in given.stores)}
        if unknown := set(stores) - set(HAND):
            parser.error(f"{', '.join(unknown)}: known are {', '.join(HAND)}")
        print(
            "| set: recipe | network, size, precision | epochs | minutes | validation Dice | ",
            end="",
        )
        print("last epoch | planned − hand |\n| --- | --- | ---: | ---: | ---: | ---: | ---: |")
        for name, store in stores.items():
            compare(name, store, None, options)
        if not stores:
            made = phantoms(out, quick=given.quick)
            for name, store in list(made.items())[: 1 if given.quick else None]:
                compare(name, store, minutes, options)


if __name__ == "__main__":
    main()
