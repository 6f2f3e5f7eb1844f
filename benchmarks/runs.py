"""Tables of trained networks, from what finished runs left.

    python benchmarks/runs.py acdc --keep RUN ...   copy what the tables need to benchmarks/acdc
    python benchmarks/runs.py acdc                  print the tables of benchmarks/acdc.md

`acdc` is a folder beside this file; another set of runs takes another name. Kept are the evaluation
folders of a run and a few numbers, as ARM-seedN, no weights and no names of folders. The runs come
from the grids in benchmarks/grids.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
from pathlib import Path

from segweave.errors import InputError
from segweave.evaluation import read_evaluation, summarise, summary_table

PROTOCOLS = ("clean", "published")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", help="folder beside this file: acdc, cvc-clinicdb, isic2018")
    parser.add_argument("--keep", nargs="+", type=Path, default=[], metavar="RUN")
    options = parser.parse_args()
    kept = Path(__file__).parent / options.name
    for run in options.keep:
        keep(run, kept)
    if not options.keep:
        tables(kept)


def keep(folder: Path, kept: Path) -> None:
    """Copy the evaluation folders of a finished run, and note what else its rows say."""
    from segweave.training import Run

    run = Run(folder)
    rows, card, recipe = run.metrics, run.model_card, run.recipe
    target = kept / f"{recipe.arm}-seed{recipe.seed}"
    for protocol in PROTOCOLS:
        source = folder / "evaluation" / protocol
        if not source.is_dir():
            raise InputError(
                "keeping a run",
                file=source,
                expected="an evaluation",
                found="none",
                remedy=f"segweave evaluate {folder} --protocol {protocol}",
            )
        shutil.copytree(source, target / protocol, dirs_exist_ok=True)
        forget_places(target / protocol / "manifest.json")
    scores = {name: value for name, value in rows[-1].items() if name.startswith("validation_")}
    environment = run.environment
    note = {
        "arm": recipe.arm,
        "seed": recipe.seed,
        "parameters": card["parameters"],
        "steps": int(rows[-1]["step"]),
        "epochs": recipe.training.epochs,
        "precision": recipe.training.precision,
        "seconds": round(rows[-1]["seconds"]),
        "validation": scores,
        "processor": processor(),
        "libraries": environment["libraries"],
        "threads": environment["sessions"][0]["threads"],
    }
    (target / "run.json").write_text(json.dumps(note, indent=2) + "\n", encoding="utf-8")


def forget_places(file: Path) -> None:
    """What is kept says nothing of the folders of the machine that made it."""
    manifest = json.loads(file.read_text(encoding="utf-8"))
    for name in ("run", "members", "predictions"):
        manifest["sources"].pop(name, None)
    file.write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def processor() -> str:
    """The processor's own name."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in text.splitlines() if "model name" in line]
    return names[0] if names else platform.processor()


def tables(kept: Path) -> None:
    """Print one line a run, then the arms under each protocol."""
    notes = [json.loads(path.read_text()) for path in kept.glob("*/run.json")]
    notes.sort(key=lambda note: (note["arm"], note["seed"]))
    print(
        "| arm | seed | parameters | steps | seconds | validation: mean Dice | test, clean: mean "
        "Dice | test, published: mean Dice |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for note in notes:
        folder = kept / f"{note['arm']}-seed{note['seed']}"
        found = [summarise([read_evaluation(folder / protocol)])[0] for protocol in PROTOCOLS]
        dice = [f"{part.macro.overlaps['dice'].mean:.4f}" for part in found]
        print(
            f"| {note['arm']} | {note['seed']} | {note['parameters']:,} | {note['steps']:,} "
            f"| {note['seconds']:,} | {note['validation']['validation_dice']:.4f} "
            f"| {dice[0]} | {dice[1]} |"
        )
    for protocol in PROTOCOLS:
        folders = [kept / f"{note['arm']}-seed{note['seed']}" / protocol for note in notes]
        evaluations = [read_evaluation(folder) for folder in folders]
        print()
        print(summary_table(evaluations, heading=f"Test cases, protocol {protocol}").markdown())


if __name__ == "__main__":
    main()
