"""Samples per second of training, and what share of it the loader takes:
`python benchmarks/training.py`.

Made hearts (cardiac phantoms) in the raw layout of ACDC are prepared and trained on with the
shipped recipes of `unet` alone and of `unet` + `sa-lstm` at 128×128, in the very way that
`segweave train` does it; the numbers are those of the run's metrics.csv, first steps left out. The
loader's part is everything from the memory-mapped images to an augmented batch. Prints the Markdown
table of benchmarks/training.md.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
from pathlib import Path
from statistics import median, quantiles

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from segweave.datasets import prepare
from segweave.phantoms.cardiac import write_cardiac
from segweave.recipes import load_recipe
from segweave.training import train

RECIPE = "acdc-unet-128"
ARMS = {"unet": (), "unet+sa-lstm": ("context.name=sa-lstm", "input.slices=3")}


def spread(values: list[float], digits: int) -> str:
    """Median (quartiles)."""
    low, _, high = quantiles(values, n=4)
    return f"{median(values):.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few patients, few steps, 32×32")
    parser.add_argument("--steps", type=int, default=60, help="optimiser steps that are timed")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch on a CPU")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    steps, patients, left_out = (6, 3, 2) if options.quick else (options.steps, 12, 5)
    torch.set_num_threads(options.threads)
    cuda = options.device.startswith("cuda")
    machine = (torch.cuda.get_device_name(options.device) if cuda else platform.processor()) or (
        platform.machine()
    )
    print(
        f"{machine}, torch {torch.__version__}, float32, {options.threads} thread(s), wall time, "
        f"{steps} steps after {left_out}; {patients} synthetic patients, 128×128, batch 8, "
        "rotation, scale and mirror.\n"
    )
    print("| arm | slices | parameters | samples per second: median (quartiles) | loader's share |")
    print("| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_cardiac(folder / "raw", patients=patients)
        prepare("acdc", folder / "raw", folder / "store")
        for arm, changes in ARMS.items():
            sets = [*changes, f"training.steps={steps + left_out}", "data.validation=null"]
            if options.quick:
                sets += ["input.size=[32, 32]", "network.options.width=4"]
            recipe = load_recipe(RECIPE, sets)
            run = train(
                recipe,
                folder / "store",
                folder / arm,
                score=None,
                device=options.device,
            )
            rows = run.metrics[left_out:]
            share = spread([100 * row["loader_share"] for row in rows], 1)
            speed = spread([row["samples_per_second"] for row in rows], 1)
            print(
                f"| {recipe.arm} | {recipe.slices} | {run.model_card['parameters'] / 1e6:.2f} M "
                f"| {speed} | {share} % |",
                flush=True,
            )


if __name__ == "__main__":
    main()
