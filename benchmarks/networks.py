"""One forward of each network against the released arithmetic: `python benchmarks/networks.py`.

Both sides hold the same weights and see the same image; outputs are compared first, then the two
take turns in one process on one thread. A CPU is timed by processor time, a GPU by wall time
between synchronisations. Prints the Markdown table of benchmarks/networks.md.
"""

from __future__ import annotations

import argparse
import gc
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from itertools import chain
from pathlib import Path
from statistics import median, quantiles

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import _released_networks as released
from benchmarks import _released_repeats as repeats
from benchmarks._as_released import AsReleased

from segweave import create_network, load_released, registry
from segweave.blocks.conv_norm import fold_weights
from segweave.blocks.dual_attention import EfficientAttention
from segweave.networks.base import Output

# Networks with attention or repeated work, at the input of their released recipes; quick: ≤ 64.
RESTATED: dict[str, tuple[int, int, int]] = {
    "transunet": (1, 224, 224),
    "missformer": (1, 224, 224),
    "dae-former": (1, 224, 224),
    "swin-unet": (1, 224, 224),
    "hiformer-b": (3, 224, 224),
    "ssformer-s": (3, 352, 352),
    "ssformer-l": (3, 352, 352),
    "fcbformer": (3, 352, 352),
    "esfpnet-t": (3, 352, 352),
    "transfuse-s": (3, 192, 256),
    "fat-net": (3, 224, 224),
    "fct": (1, 224, 224),
    "tmunet": (3, 256, 256),
    "ldnet": (3, 256, 256),
    "medsam-vit-b": (3, 1024, 1024),
}
# As built for the quick table, which shows that the script runs.
_QUICK = "esfpnet-t"


class Block(nn.Module):
    """A part of a network, whose result is given as a network's."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Output:
        """Anything → what the block returns, as logits."""
        return Output(self.block(x), {})


class WithBox(nn.Module):
    """A network that is asked about a box: the middle of the image."""

    def __init__(self, network: nn.Module, height: int, width: int) -> None:
        super().__init__()
        self.network = network
        box = [width / 4, height / 4, 3 * width / 4, 3 * height / 4]
        self.register_buffer("boxes", torch.tensor([box]))

    def forward(self, x: Tensor) -> Output:
        """(1, C, H, W) → what the network returns."""
        return self.network(x, boxes=self.boxes)


def restated(quick: bool) -> Iterator[tuple[str, nn.Module, nn.Module, tuple[int, ...]]]:
    """The networks of `RESTATED`, one at a time: (title, released, ours, shape of the image)."""
    for name, (channels, height, width) in RESTATED.items():
        if quick and name != _QUICK:
            continue
        if quick:
            height = width = 64
        torch.manual_seed(0)
        shape = (1, channels, height, width)
        if registry.networks.card(name).prompt:
            ours = WithBox(create_network(name, in_channels=channels), height, width).eval()
            yield f"{name}, batch 1, {height}×{width}", AsReleased(ours).eval(), ours, shape
            continue
        ours = create_network(name, in_channels=channels, classes=2)
        ours.train()
        with torch.no_grad():
            for _ in range(2):
                ours(torch.randn(2, *shape[1:]))
        ours.eval()
        yield f"{name}, batch 1, {height}×{width}", AsReleased(ours).eval(), ours, shape


def pairs(quick: bool) -> list[tuple[str, nn.Module, nn.Module, tuple[int, ...]]]:
    """(title, released, ours, shape of the image) with equal weights and settled batch norms."""
    unet, mt = (4, 4) if quick else (32, 64)
    side, r2 = (64, 4) if quick else (256, 64)
    channels, tokens = (16, 16) if quick else (128, 56)
    torch.manual_seed(0)
    theirs_attention = repeats.EfficientAttention(channels)
    ours_attention = EfficientAttention(channels)
    ours_attention.load_state_dict(theirs_attention.state_dict())
    rows = [
        (
            f"unet, width {unet}, batch 1, {side}×{side}",
            released.UNet(width=unet),
            create_network("unet", width=unet),
            (1, 3, side, side),
        ),
        (
            f"mt-unet, width {mt}, batch 1, 224×224",
            released.MTUNet(width=mt),
            create_network("mt-unet", classes=4, width=mt),
            (1, 3, 224, 224),
        ),
        (
            f"r2unet, width {r2}, batch 1, 64×64",
            repeats.R2UNet(width=r2),
            create_network("r2unet", width=r2),
            (1, 3, 64, 64),
        ),
        (
            f"efficient attention of dae-former, {channels} channels, {tokens}×{tokens} tokens",
            theirs_attention,
            Block(ours_attention),
            (1, tokens, tokens, channels),
        ),
    ]
    for _, theirs, ours, shape in rows:
        if isinstance(ours, Block):
            continue
        theirs.train()
        with torch.no_grad():
            for _ in range(2):
                theirs(torch.randn(2, *shape[1:]))
        load_released(ours, theirs.state_dict())
        theirs.eval()
        ours.eval()
    return rows


def difference(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference relative to the largest value."""
    return float((ours - theirs).abs().max() / theirs.abs().max())


def seconds(run: Callable[[], object], device: torch.device) -> float:
    """One run: processor time on the CPU, wall time on a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        start = time.perf_counter()
        run()
        torch.cuda.synchronize(device)
        return time.perf_counter() - start
    start = time.process_time()
    run()
    return time.process_time() - start


def turns(runs: list[Callable[[], object]], device: torch.device, rounds: int) -> list[list[float]]:
    """Times of each run, taken in turn; the first round warms up and is dropped."""
    times: list[list[float]] = [[] for _ in runs]
    gc.disable()
    for number in range(rounds + 1):
        order = list(range(len(runs)))
        for index in order if number % 2 else reversed(order):
            taken = seconds(runs[index], device)
            if number:
                times[index].append(taken)
    gc.enable()
    return times


def spread(values: list[float]) -> str:
    """Median and quartiles in milliseconds."""
    low, _, high = quantiles(values, n=4)
    return f"{1e3 * median(values):.1f} ({1e3 * low:.1f} to {1e3 * high:.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny networks, few rounds")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", default="", help="rows whose title has this text")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bfloat16", action="store_true", help="under autocast to bfloat16")
    options = parser.parse_args()
    rounds = 3 if options.quick else options.rounds
    device = torch.device(options.device)
    torch.set_num_threads(1)
    machine = (
        torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
    ) or platform.machine()
    precision = "bfloat16 autocast" if options.bfloat16 else "float32"
    clock = "wall time" if device.type == "cuda" else "processor time, one thread"
    print(f"{machine}, torch {torch.__version__}, {precision}, {clock}, {rounds} rounds in turn.")
    print("Milliseconds: median (quartiles). Ratio: released / ours, median of the rounds.\n")
    print("| network | released | ours | ratio | ours folded, channels last | ratio | difference |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for title, theirs, ours, shape in chain(pairs(options.quick), restated(options.quick)):
        if options.only not in title:
            continue
        with torch.no_grad():
            # Checked in float64, where rounding cannot hide a difference.
            x = torch.randn(shape, dtype=torch.float64)
            error = difference(ours.double()(x).logits, theirs.double()(x))
            folded = fold_weights(ours).to(device, torch.float32)
            folded = folded.to(memory_format=torch.channels_last)
            if (
                error > 1e-8
                or difference(folded.double()(x.to(device)).logits.cpu(), theirs(x)) > 1e-4
            ):
                raise SystemExit(f"{title}: outputs differ by {error:.1e}")
            theirs, ours, folded = (m.to(device, torch.float32) for m in (theirs, ours, folded))
            x = x.to(device, torch.float32)
            last = x.to(memory_format=torch.channels_last)
            half = (
                torch.autocast(device.type, torch.bfloat16) if options.bfloat16 else nullcontext()
            )
            with half:
                one, two, three = turns(
                    [
                        lambda net=theirs, x=x: net(x),
                        lambda net=ours, x=x: net(x),
                        lambda net=folded, x=last: net(x),
                    ],
                    device,
                    rounds,
                )
        ratio = median(a / b for a, b in zip(one, two, strict=True))
        folded_ratio = median(a / b for a, b in zip(one, three, strict=True))
        print(
            f"| {title} | {spread(one)} | {spread(two)} | {ratio:.2f} | {spread(three)} "
            f"| {folded_ratio:.2f} | {error:.0e} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
