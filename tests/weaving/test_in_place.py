"""Layers that write into the map that they read, drawn at random around the place of weaving: the
woven network equals the same network with a copy of the map before each layer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from segweave.context import ContextModule
from segweave.networks.base import Decoded, Features, Output, SegmentationNetwork
from segweave.weaving import WovenNetwork, volume_outputs, weave
from tests.weaving.toy import AddInPlace, Weighted, settle

WIDTH = 4


class Scale(nn.Module):
    """Halves the map, written into the map that it reads."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mul_(0.5)


class Residual(nn.Module):
    """Adds a convolution of the map to it, in place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        x = x.clone()
        x += y
        return x.tanh_()


class PassedOn(ContextModule):
    """Returns the current map itself, as a user's module may."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = self.out_channels = channels
        self.both_sides = True

    def prepare(self, step: Tensor) -> dict[str, Tensor]:
        return {"map": step}

    def fuse(self, prepared: Any) -> Tensor:
        return prepared[self.current(len(prepared))]["map"]


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "relu": lambda: nn.ReLU(inplace=True),
    "leaky": lambda: nn.LeakyReLU(0.1, inplace=True),
    "silu": lambda: nn.SiLU(inplace=True),
    "hardtanh": lambda: nn.Hardtanh(inplace=True),
    "elu": lambda: nn.ELU(inplace=True),
    "add": lambda: AddInPlace(WIDTH),
    "scale": Scale,
    "residual": Residual,
    "norm": lambda: nn.BatchNorm2d(WIDTH),
    "conv": lambda: nn.Conv2d(WIDTH, WIDTH, 3, padding=1),
}
BEFORE = ["norm", "conv", "relu", "add"]
CONTEXTS: list[Any] = [
    *("sa-lstm", "lstm-sa", "sa-embedded-lstm", "sa-embedded-lstm-no-position", "separate"),
    *("lstm-only", "sa-only", "identity", "mean", "conv", Weighted, PassedOn),
]


class Chain(nn.Module):
    """A convolution, layers one after the other, and a convolution to two classes."""

    def __init__(self, names: list[str]) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, WIDTH, 3, padding=1),
            *(LAYERS[name]() for name in names),
            nn.Conv2d(WIDTH, 2, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layers(x)
        return logits


def by_hand(made: WovenNetwork, window: Tensor) -> Tensor:
    """The logits, with a copy before each layer."""
    layers, place = list(made.network.layers), int(made.at.split(".")[1])

    def run(x: Tensor, part: list[nn.Module]) -> Tensor:
        for layer in part:
            x = layer(x.clone())
        return x

    maps = [run(image, layers[: place + 1]) for image in window.unbind(1)]
    current = maps[len(maps) // 2]
    fused = current
    if not made.is_bare:
        fused = made.context[0](torch.stack(maps, 1))
        fused = fused.clone() if made.join == "replace" else fused + current
    return run(fused, layers[place + 1 :])


@st.composite
def chains(draw: st.DrawFn) -> tuple[WovenNetwork, Tensor]:
    before = draw(st.lists(st.sampled_from(BEFORE), max_size=2))
    behind = draw(st.lists(st.sampled_from(list(LAYERS)), min_size=1, max_size=3))
    torch.manual_seed(draw(st.integers(0, 3)))
    network = Chain([*before, *behind])
    try:
        network(torch.rand(1, 1, 6, 5)).sum().backward()
    except RuntimeError:
        assume(False)  # two in-place layers that have no gradient one after the other
    made = weave(
        network,
        draw(st.sampled_from(CONTEXTS)),
        at=f"layers.{len(before)}",
        slices=draw(st.sampled_from([1, 3])),
        join=draw(st.sampled_from(["add", "replace"])),
        channels=WIDTH,
    )
    return settle(made), torch.rand(1, made.slices, 1, 6, 5, dtype=torch.float64)


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@settings(max_examples=60)
@given(chains())
def test_numbers_and_gradients(drawn: tuple[WovenNetwork, Tensor]) -> None:
    made, window = drawn
    expected = by_hand(made, window)
    close(made(window).logits, expected)
    parameters = [p for p in made.parameters() if p.requires_grad]
    ours = torch.autograd.grad(made(window).logits.square().sum(), parameters, allow_unused=True)
    theirs = torch.autograd.grad(expected.square().sum(), parameters, allow_unused=True)
    for one, other in zip(ours, theirs, strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            close(one, other)


@settings(max_examples=40)
@given(chains())
def test_prepared_slices_stay_as_they_are(drawn: tuple[WovenNetwork, Tensor]) -> None:
    made, window = drawn
    with torch.no_grad():
        expected = by_hand(made, window)
        prepared = [made.prepare(image) for image in window.unbind(1)]
        for _ in range(2):
            close(made.fuse(prepared).logits, expected)
        volume = torch.rand(3, 1, 1, 6, 5, dtype=torch.float64)
        half = made.slices // 2
        indices = [[min(max(i + j, 0), 2) for j in range(-half, half + 1)] for i in range(3)]
        outputs = volume_outputs(made, 3, lambda i: volume[i], lambda i: indices[i])
        for around, output in zip(indices, outputs, strict=True):
            close(output.logits, by_hand(made, torch.stack([volume[i] for i in around], 1)))


@settings(max_examples=8)
@given(chains())
def test_exported(drawn: tuple[WovenNetwork, Tensor]) -> None:
    made, window = drawn
    exported = torch.export.export(made, (torch.rand_like(window),)).module()
    with torch.no_grad():
        close(exported(window).logits, by_hand(made, window))


class Steps(SegmentationNetwork):
    """Whose decoder and head write into the maps that they read, the skips excepted."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(1, WIDTH, 2, stride=2)
        self.up = nn.ConvTranspose2d(WIDTH, WIDTH, 2, stride=2)
        self.last = nn.Conv2d(WIDTH, 2, 1)
        self.channels = {
            "skips": (1, WIDTH),
            "bottleneck": (WIDTH,),
            "decoder": (WIDTH,),
            "output": (2,),
        }
        self.stride, self.in_channels, self.classes = 2, 1, 2

    def encode(self, x: Tensor, **inputs: Tensor) -> Features:
        deep = self.down(x)
        return Features((x, deep.sin()), deep, {})

    def decode(self, features: Features) -> Decoded:
        shallow, middle = features.skips
        deep = features.bottleneck.relu_() if self.writes == "bottleneck" else features.bottleneck
        middle = middle.tanh_() if self.writes == "skips" else middle
        return Decoded(self.up(deep + middle) + shallow, {})

    def head(self, decoded: Decoded, size: tuple[int, int], auxiliary: bool) -> Output:
        x = decoded.map.relu_() if self.writes == "decoder" else decoded.map
        return Output(self.last(x), {})

    writes = ""


def first_passes_on() -> Callable[[int], ContextModule]:
    return lambda channels: PassedOn(channels) if channels == WIDTH else Weighted(channels)


@pytest.mark.parametrize("at", ["bottleneck", "skips", "decoder"])
@pytest.mark.parametrize("join", ["add", "replace"])
@pytest.mark.parametrize("context", ["sa-lstm", "mean", "passed on"])
def test_positions_with_a_name(at: str, join: str, context: str) -> None:
    torch.manual_seed(0)
    module: Any = first_passes_on() if context == "passed on" else context
    made = settle(weave(Steps(), module, at=at, join=join))
    window = torch.rand(1, 3, 1, 8, 8, dtype=torch.float64)
    prepared = [made.prepare(image) for image in window.unbind(1)]
    made.network.writes = at
    first = made.fuse(prepared).logits
    close(made.fuse(prepared).logits, first)
    made(window).logits.sum().backward()
    close(made(window).logits, first)
