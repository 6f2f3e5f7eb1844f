"""What could be trained, from the most to the least ambitious, and what each costs by counting."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from segweave.networks import create_network
from segweave.workflow.planner.facts import StoreFacts

UNET, PRETRAINED = "unet", "timm-unet"
# Longer side of the image and channels at full resolution, from most to least ambitious. The pair
# 128, 16 is that of the shipped recipes whose figures are in benchmarks/.
_LADDER = (
    (512, 32),
    (384, 32),
    (320, 32),
    (256, 32),
    (224, 32),
    (192, 32),
    (192, 16),
    (160, 16),
    (128, 16),
    (96, 16),
    (64, 16),
    (64, 8),
)
_SMALLEST_SIDE = 64
_COUNTED_AT = 64


@dataclass(frozen=True)
class Candidate:
    """One possible training.

    Attributes:
        network: name of the network.
        width: channels at full resolution; None where the network has no such option.
        size: (height, width) of the network's image.
        slices: length of the window.
        batch: samples per batch.
    """

    network: str
    width: int | None
    size: tuple[int, int]
    slices: int = 1
    batch: int = 8

    @property
    def title(self) -> str:
        """For people to read."""
        width = "" if self.width is None else f" of width {self.width}"
        window = f", windows of {self.slices}" if self.slices > 1 else ""
        return f"{self.network}{width} at {self.size[0]} × {self.size[1]}{window}"


@dataclass(frozen=True)
class Count:
    """What one image costs, counted from shapes.

    Attributes:
        work: multiply-accumulates of a forward pass.
        held: bytes that a training step holds for the backward pass.
        weights: bytes of the weights, their gradients and the optimiser's two means.
    """

    work: float
    held: float
    weights: float


def ladder(facts: StoreFacts, *, pretrained: bool, batch: int) -> list[Candidate]:
    """The candidates for a store, from most to least ambitious."""
    native = max(facts.size)
    rungs = [(side, width) for side, width in _LADDER if side <= max(native, _SMALLEST_SIDE)]
    top = rungs[0][0]
    if rungs[0] != (top, 32):
        rungs.insert(0, (top, 32))
    if pretrained:
        sides = list(dict.fromkeys(side for side, _ in rungs))
        return [Candidate(PRETRAINED, None, size_at(facts, s, 32), 1, batch) for s in sides]
    found = [Candidate(UNET, width, size_at(facts, s, 16), 1, batch) for s, width in rungs]
    if reads_neighbours(facts):
        first = found[0]
        found.insert(0, Candidate(UNET, first.width, first.size, 3, batch))
    return list(dict.fromkeys(found))


def reads_neighbours(facts: StoreFacts) -> bool:
    """Whether neighbouring slices are near enough to be read together."""
    if not facts.volumes or facts.spacing is None or facts.depth < 8:
        return False
    return facts.spacing[0] <= 2 * max(facts.spacing[1:])


def size_at(facts: StoreFacts, side: int, divisor: int) -> tuple[int, int]:
    """(height, width) with a longer side of `side`, shaped as the median image, both sides
    multiples of the divisor.
    """
    height, width = facts.size
    factor = side / max(height, width)

    def rounded(length: float) -> int:
        return max(round(length * factor / divisor) * divisor, _SMALLEST_SIDE)

    return rounded(height), rounded(width)


def count(candidate: Candidate, channels: int, classes: int) -> Count:
    """What one sample of a candidate costs, without running it. All networks here are
    convolutional, so that work and maps grow with the number of pixels.
    """
    one = _counted(candidate.network, candidate.width, channels, classes)
    factor = candidate.size[0] * candidate.size[1] / _COUNTED_AT**2 * candidate.slices
    return Count(one.work * factor, one.held * factor, one.weights)


def memory_of(candidate: Candidate, counted: Count) -> float:
    """Bytes that a training step of a candidate takes, with the gradients of its maps."""
    return 2 * counted.held * candidate.batch + counted.weights


@cache
def _counted(network: str, width: int | None, channels: int, classes: int) -> Count:
    options: dict[str, Any] = {} if width is None else {"width": width}
    held: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor)
    with torch.random.fork_rng(devices=[]):
        built = create_network(network, in_channels=channels, classes=classes, **options)
        image = torch.zeros(2, channels, _COUNTED_AT, _COUNTED_AT)
        with FlopCounterMode(display=False) as counter, hooks:
            output = built(image)
        del output  # until here it keeps the maps, so that each has an address for itself
    weights = sum(p.numel() * p.element_size() for p in built.parameters())
    saved = sum(held.values()) - weights
    return Count(counter.get_total_flops() / 2 / 2, max(saved, 0) / 2, 4.0 * weights)


def batches_below(most: int) -> Iterator[int]:
    """Batch sizes from `most` down, halved each time."""
    while most >= 1:
        yield most
        most //= 2
