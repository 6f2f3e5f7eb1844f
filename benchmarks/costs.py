"""The papers' cost tables beside ours: `python benchmarks/costs.py`.

Printed: TIP Table III (parameters, "FLOPs" of a 1×3×256×256 tensor) and LSTMSA Table IV (the same
in percent). Ours: what
`segweave networks NAME --size 256 256 --context M --at P --slices S --count` prints. Prints the
Markdown tables of benchmarks/costs.md; it counts only, so it takes a minute or two.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import json
import math
import warnings
from pathlib import Path
from typing import NamedTuple

import torch

from segweave import create_context
from segweave.cli import main as segweave
from segweave.weaving.wrappers import Narrowed


class Row(NamedTuple):
    """A data set of the tables: the network, its printed costs in millions and billions.

    The percentages of `embedded` are those of LSTMSA's table; the others are absolute.
    """

    dataset: str
    network: str
    channels: int  # at the bottleneck
    classes: int
    slices: int  # of the papers' input for this data set
    parameters: dict[str, float]
    gigas: dict[str, float]


BARE, SA, LSTM, BOTH = "", "sa-lstm", "lstm-sa", "sa-embedded-lstm"
ROWS = (
    Row("Synapse", "merit", 768, 9, 1,
        {BARE: 146.51, SA: 147.62, LSTM: 147.67, BOTH: 146.51 * 1.0056},
        {BARE: 28.32, SA: 29.32, LSTM: 29.42, BOTH: 28.32 * 1.0028}),
    Row("ISIC 2018", "dcsau-net", 512, 1, 1,
        {BARE: 2.59, SA: 2.70, LSTM: 2.74, BOTH: 2.59 * 1.0415},
        {BARE: 15.88, SA: 16.79, LSTM: 17.01, BOTH: 15.88 * 1.0150}),
    Row("ACDC", "mt-unet", 1024, 4, 3,
        {BARE: 49.31, SA: 49.51, LSTM: 49.57, BOTH: 49.31 * 1.0165},
        {BARE: 14.35, SA: 15.16, LSTM: 15.42, BOTH: 14.35 * 1.0056}),
    Row("CVC-ClinicDB", "esfpnet-t", 256, 1, 3,
        {BARE: 3.53, SA: 3.63, LSTM: 3.67, BOTH: 3.53 * 1.0897},
        {BARE: 0.48, SA: 0.64, LSTM: 0.69, BOTH: 0.48 * 1.3429}),
)  # fmt: skip
RELEASED = {"released-salstm-whole": SA, "released-lstm-sa-whole": LSTM,
            "released-sa-embedded-lstm-whole": BOTH}  # fmt: skip
REFERENCE = Path(__file__).resolve().parent.parent / "tests" / "reference" / "networks"


def counted(row: Row, context: str, at: str, slices: int, side: int) -> tuple[float, float]:
    """Millions of parameters and billions of multiply-accumulates, from the command."""
    arguments = ["networks", row.network, "--size", str(side), str(side), "--count", "--json"]
    arguments += ["--classes", str(row.classes), "--slices", str(slices)]
    if context:
        arguments += ["--context", context, "--at", at]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        segweave(arguments)
    costs = json.loads(printed.getvalue())
    return costs["parameters"] / 1e6, costs["multiply_accumulates"] / 1e9


def network_rows(row: Row, side: int, contexts: tuple[str, ...] = (SA, LSTM, BOTH)) -> list[str]:
    """The rows of one data set."""
    bare = counted(row, BARE, "", 1, side)
    name = f"{row.dataset}, `{row.network}`"
    printed = f"{row.parameters[BARE]:.2f} | {row.gigas[BARE]:.2f}"
    rows = [f"| {name} | alone | {printed} | {bare[0]:.2f} | {bare[1]:.2f} | – | – |"]
    for context in contexts:
        printed = (
            f"+{row.parameters[context] - row.parameters[BARE]:.2f} | "
            f"+{row.gigas[context] - row.gigas[BARE]:.2f}"
        )
        cells = []
        for at in ("bottleneck", "output"):
            parameters, gigas = counted(row, context, at, row.slices, side)
            cells += [f"+{parameters - bare[0]:.2f}", f"+{gigas - bare[1]:.2f}"]
        rows.append(f"| {name} | `{context}` | {printed} | {' | '.join(cells)} |")
    return rows


def released_rows() -> list[str]:
    """The whole released models on ACDC, as the reference files measured them at 224×224."""
    row = next(row for row in ROWS if row.dataset == "ACDC")
    rows = []
    for name, context in RELEASED.items():
        measured = json.loads((REFERENCE / f"{name}.json").read_text(encoding="utf-8"))
        rows.append(
            f"| `{context}` | {row.parameters[context]:.2f} | {row.gigas[context]:.2f} "
            f"| {measured['parameters'] / 1e6:.2f} "
            f"| {measured['multiply_accumulates'] / 1e9:.2f} |"
        )
    return rows


def fit_rows() -> list[str]:
    """For each number of directions, the width and kernel at the bottleneck whose extra parameters
    come nearest to all four printed rows of `sa-lstm`.
    """
    printed = [row.parameters[SA] - row.parameters[BARE] for row in ROWS]
    best: dict[bool, tuple[float, int, int, list[float]]] = {}
    widths, kernels = (8, 16, 24, 32, 48, 64, 96, 128, 192, 256), (1, 3, 5, 7)
    for both, width, kernel in itertools.product((False, True), widths, kernels):
        ours = []
        for row in ROWS:
            with torch.device("meta"):
                options = {"out_channels": row.channels, "both_sides": both}
                inner = create_context(SA, width, kernel_size=kernel, **options)
                module = Narrowed(row.channels, inner)
            ours.append(sum(p.numel() for p in module.parameters()) / 1e6)
        worst = max(abs(math.log(a / b)) for a, b in zip(ours, printed, strict=True))
        if both not in best or worst < best[both][0]:
            best[both] = (worst, width, kernel, ours)
    rows = ["| printed | – | – | " + " | ".join(f"+{p:.2f}" for p in printed) + " | – |"]
    for both, (worst, width, kernel, ours) in best.items():
        cells = " | ".join(f"+{value:.2f}" for value in ours)
        rows.append(
            f"| {'two directions' if both else 'one direction'} | {width} | {kernel} | {cells} "
            f"| {math.exp(worst):.1f}× |"
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one network, small images")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    side = 64 if options.quick else 256
    print(f"torch {torch.__version__}. M: millions of parameters, G: billions of MACs (multiply-")
    print("accumulates); for a module, what it adds to the network alone.\n")
    print("| network | arm | printed M | printed G | ours, bottleneck M | G | ours, output M | G |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    if options.quick:
        print("\n".join(network_rows(ROWS[-1], side, (SA,))))
        return
    for row in ROWS:
        print("\n".join(network_rows(row, side)), flush=True)
    print("\n| whole released model | printed M | printed G | measured M | G |")
    print("| --- | --- | --- | --- | --- |")
    print("\n".join(released_rows()), flush=True)
    names = " | ".join(f"{row.dataset}" for row in ROWS)
    print(f"\n| `sa-lstm` between encoder and decoder | width | kernel | {names} | worst factor |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    print("\n".join(fit_rows()))


if __name__ == "__main__":
    main()
