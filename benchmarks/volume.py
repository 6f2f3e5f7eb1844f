"""A volume of ten slices at once, each slice encoded once, against window by window:
`python benchmarks/volume.py`.

First row: the whole released SA-LSTM model, against the released arithmetic (each window runs the
network three times in turn) and against our own forward window by window. Second row: UNet with
SA-LSTM at the bottleneck, for which no released arithmetic exists. Weights and slices are the same;
outputs are compared first (in float64, on three slices), then the ways take turns in one process. A
CPU is timed by processor time on one thread, a GPU by wall time. Prints the Markdown table of
benchmarks/volume.md.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import _released_context, _released_networks
from benchmarks.networks import difference, spread, turns

from segweave import create_network, load_released, weave
from segweave.weaving import WovenNetwork, volume_outputs
from segweave.weaving.author_models import released_model

CLASSES = 4
SIDE = 224


class ReleasedModel(nn.Module):
    """The released whole model: one network three times in turn, the module behind it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.encoder = _released_networks.MTUNet(classes=width, width=width)
        self.lstmlayer = _released_context.Layer("sa-lstm", width, 5, CLASSES, 88 * 88)

    def forward(self, window: Tensor) -> Tensor:
        """(B, 3, 1, H, W) → logits (B, classes, H, W)."""
        return self.lstmlayer(torch.stack([self.encoder(x) for x in window.unbind(1)], 1))


def settle(network: nn.Module) -> None:
    """Batch norm statistics of random images, then eval mode."""
    network.train()
    with torch.no_grad():
        for _ in range(2):
            network(torch.randn(2, 1, SIDE, SIDE))
    network.eval()


def models(quick: bool) -> list[tuple[str, ReleasedModel | None, WovenNetwork]]:
    """(title, released arithmetic where there is one, ours)."""
    torch.manual_seed(0)
    wide, narrow = (4, 4) if quick else (64, 32)
    theirs = ReleasedModel(wide)
    settle(theirs.encoder)
    ours = released_model("salstm", classes=CLASSES, width=wide)
    load_released(ours, theirs.state_dict())
    unet = create_network("unet", in_channels=1, classes=CLASSES, width=narrow)
    settle(unet)
    woven = weave(unet, "sa-lstm", at="bottleneck", slices=3)
    return [
        (f"released SA-LSTM model, width {wide}", theirs.eval(), ours.eval()),
        (f"unet (width {narrow}) + sa-lstm at the bottleneck", None, woven.eval()),
    ]


def indices(count: int, index: int) -> list[int]:
    return [min(max(i, 0), count - 1) for i in (index - 1, index, index + 1)]


def by_window(network: Callable[[Tensor], Tensor], volume: Tensor) -> Tensor:
    """Every window (1, 3, 1, H, W) from its images alone."""
    with torch.no_grad():
        return torch.cat(
            [network(volume[indices(len(volume), i)][None]) for i in range(len(volume))]
        )


def at_once(woven: WovenNetwork, volume: Tensor) -> Tensor:
    """Every slice encoded once."""
    count = len(volume)
    outputs = volume_outputs(woven, count, lambda i: volume[i : i + 1], lambda i: indices(count, i))
    return torch.cat([output.logits for output in outputs])


def ways(
    theirs: ReleasedModel | None, ours: WovenNetwork, volume: Tensor
) -> list[Callable[[], Tensor]]:
    """At once, ours window by window, and the released arithmetic window by window."""
    runs: list[Callable[[], Tensor]] = [
        lambda: at_once(ours, volume),
        lambda: by_window(lambda window: ours(window).logits, volume),
    ]
    return runs if theirs is None else [*runs, lambda: by_window(theirs, volume)]


def ratio(slow: list[float], fast: list[float]) -> str:
    return f"{median(a / b for a, b in zip(slow, fast, strict=True)):.2f}×"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="narrow networks, three slices")
    parser.add_argument("--rounds", type=int, default=5, help="rounds that are timed")
    parser.add_argument("--slices", type=int, default=10, help="slices of the volume")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", default="", help="models whose title begins with this")
    options = parser.parse_args()
    rounds, count = (2, 3) if options.quick else (options.rounds, options.slices)
    device = torch.device(options.device)
    torch.set_num_threads(1)
    cuda = device.type == "cuda"
    machine = (torch.cuda.get_device_name(device) if cuda else platform.processor()) or (
        platform.machine()
    )
    clock = "wall time" if cuda else "processor time, one thread"
    print(
        f"{machine}, torch {torch.__version__}, float32, {clock}, {rounds} rounds in turn; "
        f"{count} slices of {SIDE}×{SIDE}, windows of three."
    )
    print("Milliseconds per volume: median (quartiles). Ratios: medians over the rounds.\n")
    print(
        "| model | parameters (added) | released arithmetic, window by window "
        "| ours, window by window | each slice once | against released | against ours "
        "| difference |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for title, theirs, ours in models(options.quick):
        if not title.startswith(options.only):
            continue
        volume = torch.rand(count, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
        for network in (theirs, ours):
            if network is not None:
                network.to(device, torch.float64)
        found, *expected = [
            run() for run in ways(theirs, ours, volume[:3].to(device, torch.float64))
        ]
        error = max(difference(found, other) for other in expected)
        if error > 1e-9:
            raise SystemExit(f"{title}: results differ by {error:.1e}")
        for network in (theirs, ours):
            if network is not None:
                network.to(device, torch.float32)
        runs = ways(theirs, ours, volume.to(device))
        once, window, *released = turns(list(runs), device, rounds)
        total = sum(p.numel() for p in ours.parameters()) / 1e6
        print(
            f"| {title} | {total:.2f} M ({ours.parameters_added / 1e6:.2f} M) "
            f"| {spread(released[0]) if released else '–'} | {spread(window)} | {spread(once)} "
            f"| {ratio(released[0], once) if released else '–'} | {ratio(window, once)} "
            f"| {error:.0e} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
