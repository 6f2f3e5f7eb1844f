"""Each context module in form released against the released arithmetic, over a window of three:
`python benchmarks/context.py`.

Both sides hold the same weights and see the same maps; outputs and gradients are compared first (in
float64), then the two take turns in one process. A CPU is timed by processor time on one thread, a
GPU by wall time between synchronisations. Prints the Markdown table of benchmarks/context.md.
"""

from __future__ import annotations

import argparse
import gc
import os
import platform
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from statistics import median, quantiles

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import _released_context as released

from segweave import create_context, load_released

MODULES = {"sa-lstm": 88 * 88, "lstm-sa": 88 * 88, "sa-embedded-lstm": 224 * 224}
CLASSES = 4
KERNEL = 5


def pair(name: str, channels: int) -> tuple[nn.Module, nn.Module]:
    """The released arithmetic and ours, in eval mode, with the same weights."""
    torch.manual_seed(0)
    size = MODULES[name]
    theirs = released.Layer(name, channels, KERNEL, CLASSES, size)
    ours = create_context(
        name,
        channels,
        out_channels=CLASSES,
        form="released",
        both_sides=True,
        kernel_size=KERNEL,
        attention_size=size,
    )
    load_released(ours, theirs.state_dict())
    return theirs.eval(), ours.eval()


def forward(module: nn.Module, maps: Tensor) -> Tensor:
    with torch.no_grad():
        return module(maps)


def backward(module: nn.Module, maps: Tensor) -> Tensor:
    """Forward and backward of the sum of squares; the gradient with respect to the maps."""
    module.zero_grad(set_to_none=True)
    maps = maps.detach().requires_grad_()
    module(maps).float().square().sum().backward()
    assert maps.grad is not None
    return maps.grad


def difference(name: str, channels: int, side: int) -> float:
    """Largest difference of outputs and of gradients, relative to the largest value, in float64."""
    theirs, ours = (module.double() for module in pair(name, channels))
    maps = torch.randn(1, 3, channels, side, side, dtype=torch.float64)
    found = 0.0
    for run in (forward, backward):
        wanted = run(theirs, maps)
        found = max(found, float((run(ours, maps) - wanted).abs().max() / wanted.abs().max()))
    return found


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
    """Times of each run, taken in turn; the first two rounds warm up and are dropped."""
    times: list[list[float]] = [[] for _ in runs]
    gc.disable()
    for number in range(rounds + 2):
        order = list(range(len(runs)))
        for index in order if number % 2 else reversed(order):
            taken = seconds(runs[index], device)
            if number > 1:
                times[index].append(taken)
    gc.enable()
    return times


def spread(values: list[float], factor: float = 1e3, digits: int = 1) -> str:
    """Median and quartiles."""
    low, _, high = quantiles(values, n=4)
    return (
        f"{factor * median(values):.{digits}f} "
        f"({factor * low:.{digits}f} to {factor * high:.{digits}f})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few channels, small maps, few rounds")
    parser.add_argument("--repeat", type=int, default=15, help="rounds that are timed")
    parser.add_argument("--size", type=int, nargs="+", default=[28, 56], help="sides of the maps")
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bfloat16", action="store_true", help="under autocast to bfloat16")
    options = parser.parse_args()
    rounds, sides, channels = options.repeat, options.size, options.channels
    if options.quick:
        rounds, sides, channels = 3, [8], 8
    device = torch.device(options.device)
    torch.set_num_threads(1)
    torch.backends.cudnn.benchmark = True
    machine = (
        torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
    ) or platform.machine()
    precision = "bfloat16 autocast" if options.bfloat16 else "float32"
    clock = "wall time" if device.type == "cuda" else "processor time, one thread"
    print(f"{machine}, torch {torch.__version__}, {precision}, {clock}, {rounds} rounds in turn.")
    print(
        f"{channels} channels, kernel {KERNEL}, batch {options.batch}, window of three, both "
        "directions. Milliseconds and ratio (released / ours): median (quartiles).\n"
    )
    print("| module | maps | pass | released | ours | ratio | difference |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name in MODULES:
        for side in sides:
            error = difference(name, channels, side)
            if error > 1e-9:
                raise SystemExit(f"{name} at {side}×{side}: results differ by {error:.1e}")
            theirs, ours = (module.to(device) for module in pair(name, channels))
            maps = torch.randn(options.batch, 3, channels, side, side, device=device)
            half = (
                torch.autocast(device.type, torch.bfloat16) if options.bfloat16 else nullcontext()
            )
            for title, run in (("forward", forward), ("forward + backward", backward)):
                with half:
                    one, two = turns(
                        [
                            lambda run=run, net=theirs, maps=maps: run(net, maps),
                            lambda run=run, net=ours, maps=maps: run(net, maps),
                        ],
                        device,
                        rounds,
                    )
                ratios = [a / b for a, b in zip(one, two, strict=True)]
                print(
                    f"| {name} | {side}×{side} | {title} | {spread(one)} | {spread(two)} "
                    f"| {spread(ratios, 1, 2)} | {error:.0e} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
