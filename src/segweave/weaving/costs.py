"""What one window costs: parameters, multiply-accumulates, time and memory, step by step."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from segweave.networks.base import Feedback, Prompt, SegmentationNetwork, Size, check_size
from segweave.weaving.woven import WovenNetwork

T = TypeVar("T")
_REPEATS = 3


@dataclass(frozen=True)
class Step:
    """One step of a window.

    Attributes:
        name: what it is.
        shapes: the shapes (channels, height, width) that it returns, batch left out.
        parameters: number of its weights.
        multiply_accumulates: products of convolutions and matrices, for the slices that it runs on;
            half of what torch's FlopCounterMode counts.
    """

    name: str
    shapes: tuple[tuple[int, ...], ...]
    parameters: int
    multiply_accumulates: int


@dataclass(frozen=True)
class Costs:
    """What one window of a woven network costs, or one image of a bare one.

    Attributes:
        steps: the network's steps and the context modules.
        parameters: all weights.
        multiply_accumulates: of the whole window, measured at once.
        seconds: of one forward pass, the median of three after one that is left out; None where
            nothing was run.
        peak_bytes: the most that one forward pass allocates beside the weights and the image; None
            where nothing was run.
    """

    steps: tuple[Step, ...]
    parameters: int
    multiply_accumulates: int
    seconds: float | None
    peak_bytes: int | None


def measure_costs(woven: WovenNetwork, size: Size, *, run: bool = True) -> Costs:
    """The costs of one window at `size` = (height, width), in eval mode on the CPU.

    The encoder runs once per slice, the decoder and the head once; beside a network that weaves at
    `encoder`, neighbours are embedded and not encoded. Another network than a `SegmentationNetwork`
    has no steps of its kind: the totals alone are given.

    Args:
        woven: the woven network.
        size: height and width of the image.
        run: False counts parameters and multiply-accumulates from shapes alone (torch's fake
            tensors), which takes a moment for any size.

    Raises UsageError for a size that the network does not take, with one that it takes.
    """
    network = woven.network
    if isinstance(network, SegmentationNetwork):
        check_size(
            type(network).__name__,
            size,
            divisor=network.divisor,
            smallest=network.smallest,
            fixed=network.fixed,
        )
    training = woven.training
    woven.eval()
    seconds = peak = None
    with torch.no_grad(), nullcontext() if run else FakeTensorMode(allow_non_fake_inputs=True):
        window = torch.zeros(1, woven.slices, woven.in_channels, *size)
        inputs = {
            name: value[:, None].expand(-1, woven.slices, *value.shape[1:])
            for name, value in _empty_inputs(network, window[:, 0]).items()
        }
        _, total = _counted(lambda: woven(window, **inputs))
        steps = _steps(woven, window, inputs)
        if run:
            seconds = _seconds(lambda: woven(window, **inputs))
            peak = _peak_bytes(lambda: woven(window, **inputs))
    woven.train(training)
    return Costs(steps, _weights(woven), total, seconds, peak)


def _steps(woven: WovenNetwork, window: Tensor, inputs: dict[str, Tensor]) -> tuple[Step, ...]:
    network = woven.network
    added = woven.parameters_added
    if not isinstance(network, SegmentationNetwork):
        return ()
    image = window[:, 0]
    size = (int(image.shape[-2]), int(image.shape[-1]))
    first = {name: value[:, 0] for name, value in inputs.items()}
    features, encoding = _counted(lambda: network.encode(image, **first))
    decoded, decoding = _counted(lambda: network.decode(features))
    output, heading = _counted(lambda: network.head(decoded, size, False))
    runs = 1 if woven.is_bare or woven.at == "encoder" else woven.slices
    times = f" × {runs} slices" if runs > 1 else ""
    used = [_used(network, name) for name in ("encode", "decode", "head")]
    steps = [
        Step(
            f"encoder{times}",
            tuple(_shape(one) for one in (*features.skips, features.bottleneck)),
            used[0],
            encoding * runs,
        ),
        Step("decoder", (_shape(decoded.map),), used[1], decoding),
        Step("head", (_shape(output.logits),), used[2], heading),
    ]
    if added:
        maps = woven.sequences(window, **inputs)
        _, context = _counted(
            lambda: [module(one) for module, one in zip(woven.context, maps, strict=True)]
        )
        shapes = tuple((one.shape[1], *_shape(one[:, 0])) for one in maps)
        steps.insert(1, Step(f"context at {woven.at}", shapes, added, context))
    return tuple(steps)


def _empty_inputs(network: nn.Module, image: Tensor) -> dict[str, Tensor]:
    """What the network takes besides an image, as zeros: without numbers (on the device "meta") a
    first mask can't be computed.
    """
    feedback: Feedback | None = getattr(network, "feedback", None)
    prompt: Prompt | None = getattr(network, "prompt", None)
    inputs = {}
    if feedback is not None:
        inputs[feedback.name] = torch.zeros_like(image[:, :1])
    if prompt is not None:
        inputs[prompt.name] = image.new_zeros(len(image), 4)
    return inputs


def _used(network: SegmentationNetwork, step: str) -> int:
    """Weights that a step reads, found by which submodules run in it."""
    seen: set[int] = set()
    hooks = []

    def note(module: nn.Module, *_: Any) -> None:
        seen.update(id(p) for p in module.parameters(recurse=False))

    for module in network.modules():
        hooks.append(module.register_forward_pre_hook(note))
    side = some_size(network)
    image = torch.zeros(1, network.in_channels, *side)
    try:
        features = network.encode(image, **_empty_inputs(network, image))
        if step != "encode":
            seen.clear()
            decoded = network.decode(features)
            if step == "head":
                seen.clear()
                network.head(decoded, side, False)
    finally:
        for hook in hooks:
            hook.remove()
    return sum(p.numel() for p in network.parameters() if id(p) in seen)


def some_size(network: SegmentationNetwork) -> Size:
    """A small height and width that a network takes."""
    if network.fixed:
        first = network.fixed[0]
        return (first, first) if isinstance(first, int) else first
    side = -(-max(network.smallest, 32) // network.divisor) * network.divisor
    return side, side


def _counted(run: Callable[[], T]) -> tuple[T, int]:
    """What `run` returns, and its multiply-accumulates."""
    with FlopCounterMode(display=False) as counter:
        result = run()
    return result, int(counter.get_total_flops()) // 2


def _seconds(run: Callable[[], Any]) -> float:
    run()
    times = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _peak_bytes(run: Callable[[], Any]) -> int:
    """The highest sum of what torch holds at one time, from its profiler."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    results: Any = profiler.profiler
    events = [e for e in results.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def _weights(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _shape(x: Tensor) -> tuple[int, ...]:
    return tuple(int(n) for n in x.shape[1:])
