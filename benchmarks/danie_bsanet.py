"""What DANIE and the bilateral spatial attention network cost, beside what their papers print:
`python benchmarks/danie_bsanet.py`.

Nothing is computed: the networks are built without numbers, and the multiply-accumulates of one
image of 3×256×256 with nine classes are counted (matrix products included, half of PyTorch's
`FlopCounterMode`). Prints the Markdown tables of benchmarks/danie-bsanet.md.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from segweave import create_network

ADDED: dict[str, Any] = {"fusion": "add"}
# Row of the paper: (network, printed G, what it is, options).
DANIE: dict[str, tuple[str, float, str, dict[str, Any]]] = {
    "A.1": (
        "danie-l",
        19.06,
        "without hierarchical attention",
        {**ADDED, "hierarchical_attention": False},
    ),
    "A.2": ("danie-l", 10.98, "without self-attention", {**ADDED, "self_attention": False}),
    "A.3": ("danie-l", 22.13, "without spatial attention", {**ADDED, "spatial_attention": False}),
    "A.4": ("danie-l", 23.25, "without channel attention", {**ADDED, "channel_attention": False}),
    "A.5, C.2": ("danie-l", 25.16, "both streams, added", ADDED),
    "C.1": ("danie-l", 27.88, "concatenation and residual", {"fusion": "concatenate"}),
    "C.3": ("danie-l", 26.53, "EH and addition", {"fusion": "eh"}),
    "C.4": ("danie-l", 26.52, "ES and addition", {"fusion": "es"}),
    "C.5, DANIE-L": ("danie-l", 26.55, "joint preservation", {}),
    "DANIE-S": ("danie-s", 13.29, "joint preservation", {}),
}
# Rows of Table 6, for which no cost is printed.
ORDERS: dict[str, dict[str, Any]] = {
    "B.1": {**ADDED, "order": "spatial-channel", "calibration": False},
    "B.2": {**ADDED, "order": "spatial-channel"},
    "B.3": {**ADDED, "calibration": False},
    "B.4": ADDED,
}
READINGS: tuple[dict[str, Any], ...] = (
    {},
    {"form": "literal"},
    {"form": "literal", "embedding": 4},
)
PRINTED_PARAMETERS = 6.36


def cost(name: str, **options: Any) -> tuple[float, float]:
    """(giga multiply-accumulates, million parameters) with nine classes at 256×256."""
    with torch.device("meta"):
        network = create_network(name, classes=9, **options).eval()
        image = torch.zeros(1, 3, 256, 256)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(image)
    return counter.get_total_flops() / 2e9, millions(network)


def millions(module: nn.Module) -> float:
    return sum(parameter.numel() for parameter in module.parameters()) / 1e6


def danie(rows: list[str]) -> None:
    print("| row | what | printed | ours | literal | literal, embedding 4 | parameters |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for row in rows:
        name, printed, what, options = DANIE[row]
        counts = [cost(name, **options, **reading) for reading in READINGS]
        cells = [f"{count:.2f} ({100 * (count / printed - 1):+.1f} %)" for count, _ in counts]
        print(f"| {row} | {what} | {printed} | {' | '.join(cells)} | {counts[0][1]:.1f} M |")


def orders() -> None:
    print("\n| row | order | dynamic calibration | ours | parameters |")
    print("| --- | --- | --- | --- | --- |")
    for row, options in ORDERS.items():
        count, parameters = cost("danie-l", **options)
        order = options.get("order", "channel-spatial")
        calibrated = "yes" if options.get("calibration", True) else "no"
        print(f"| {row} | {order} | {calibrated} | {count:.2f} | {parameters:.1f} M |")


def bsanet() -> None:
    with torch.device("meta"):
        network = create_network("bsanet")
    titles = {
        "stem": "7×7 convolution",
        "encoder": "ResNeXt blocks",
        "swin": "Swin blocks",
        "mixing": "convolutions behind the Swin blocks",
        "feature_attention": "feature-space attention",
        "reductions": "1×1 convolutions of the decoder",
        "decoder": "3×3 convolutions of the decoder",
        "classifier": "1×1 convolution to the class",
        "rendering": "attention rendering",
    }
    print("\n| part of `bsanet` | parameters |\n| --- | --- |")
    for name, module in network.named_children():
        print(f"| {titles[name]} | {millions(module):.3f} M |")
    total = millions(network)
    difference = 100 * (total / PRINTED_PARAMETERS - 1)
    print(f"| all (printed: {PRINTED_PARAMETERS} M) | {total:.3f} M ({difference:+.1f} %) |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="DANIE-S and BSANet alone")
    quick = parser.parse_args().quick
    danie(["DANIE-S"] if quick else list(DANIE))
    if not quick:
        orders()
    bsanet()


if __name__ == "__main__":
    main()
