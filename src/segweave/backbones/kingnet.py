"""KingNet-53, which its paper calls HarDNetV2-53: the backbone of HarDNet-DFUS."""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from segweave.author_weights import ReleasedNames, names_by_prefix
from segweave.blocks.conv_norm import ConvNorm
from segweave.blocks.squeeze_excitation import SqueezeExcitation


class StageSpec(NamedTuple):
    """One stage; channels are multiples of the network's width."""

    layers: int
    growth: int
    kept: tuple[int, ...]
    transition: int
    pooled: bool


STAGES = (
    StageSpec(layers=9, growth=1, kept=(3, 6, 9), transition=6, pooled=True),
    StageSpec(layers=9, growth=2, kept=(3, 6, 9), transition=12, pooled=False),
    StageSpec(layers=15, growth=3, kept=(3, 6, 9, 12, 15), transition=27, pooled=True),
    StageSpec(layers=9, growth=9, kept=(3, 6, 9), transition=40, pooled=True),
    StageSpec(layers=3, growth=20, kept=(2, 3), transition=60, pooled=False),
)
REDUCTION = 20


def relu6() -> nn.Module:
    """A ReLU in place whose values end at 6."""
    return nn.ReLU6(inplace=True)


class KingBlock(nn.Module):
    """A chain of 3×3 convolutions in which each channel is used once (the paper's Fig. 3).

    With n layers, each divisor d of n is a distance: the map k (0 is the input) is cut into groups
    of `growth` channels, one for each d that divides k, from near to far; the group of d goes to
    layer k + d. A layer reads what reached it, in the order of arrival, and has as many output
    channels. The result joins the maps that are kept. (B, C_in, H, W) → (B, C_out, H, W).

    Args:
        layers: n.
        growth: channels of a group.
        kept: layers whose maps form the result, counted from 1.
    """

    def __init__(self, layers: int, growth: int, kept: tuple[int, ...]) -> None:
        super().__init__()
        divisors = [d for d in range(1, layers + 1) if layers % d == 0]
        self.growth, self.kept = growth, kept
        self.targets = [[k + d for d in divisors if k % d == 0] for k in range(layers)]
        # Each layer has one group for each that reached it.
        groups = [sum(layer in targets for targets in self.targets) for layer in range(layers + 1)]
        self.in_channels = growth * len(divisors)
        self.out_channels = growth * sum(groups[layer] for layer in kept)
        self.layers = nn.ModuleList(
            ConvNorm(growth * count, growth * count, 3, activation=relu6) for count in groups[1:]
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) → (B, C_out, H, W)."""
        arrived: list[list[Tensor]] = [[] for _ in range(len(self.layers) + 1)]
        kept = []
        for number, layer in enumerate(self.layers, start=1):
            parts = torch.split(x, self.growth, dim=1)
            for part, target in zip(parts, self.targets[number - 1], strict=True):
                arrived[target].append(part)
            x = layer(torch.cat(arrived[number], dim=1))
            if number in self.kept:
                kept.append(x)
        return torch.cat(kept, dim=1)


class Stage(nn.Module):
    """King block, squeeze and excitation, and a 1×1 transition: (B, C_in, H, W) → the map before
    the transition and the one behind it.
    """

    def __init__(self, spec: StageSpec, width: int) -> None:
        super().__init__()
        self.block = KingBlock(spec.layers, spec.growth * width, spec.kept)
        channels = self.block.out_channels
        self.excitation = SqueezeExcitation(channels, max(1, channels // REDUCTION))
        self.transition = ConvNorm(channels, spec.transition * width, 1, activation=relu6)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C_in, H, W) → two maps of the same height and width."""
        x = self.excitation(self.block(x))
        return x, self.transition(x)


class KingNet(nn.Module):
    """A stem of stride 4 and five stages. It returns four maps, from fine to coarse: at stride 4
    the first stage's before its transition, at strides 8, 16 and 32 those behind the transitions of
    the stages 3, 4 and 5.

    Args:
        in_channels: channels of an image.
        width: the unit of all numbers of channels, even (released: 20).
    """

    def __init__(self, in_channels: int = 3, *, width: int = 20) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            ConvNorm(in_channels, 3 * width // 2, 3, stride=2, activation=relu6),
            ConvNorm(3 * width // 2, 3 * width, 3, activation=relu6),
            nn.MaxPool2d(2),
        )
        self.stages = nn.ModuleList(Stage(spec, width) for spec in STAGES)
        self.pool = nn.MaxPool2d(2)
        first = cast(Stage, self.stages[0]).block.out_channels
        self.out_channels = (first, *(STAGES[stage].transition * width for stage in (2, 3, 4)))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(B, C, H, W) → maps at the strides 4, 8, 16 and 32."""
        x = self.stem(x)
        taps = []
        for index, (stage, spec) in enumerate(zip(self.stages, STAGES, strict=True)):
            before, x = stage(x)
            if index != 1:
                taps.append(x if index else before)
            if spec.pooled:
                x = self.pool(x)
        fine, middle, coarse, deepest = taps
        return fine, middle, coarse, deepest

    def released_names(self) -> ReleasedNames:
        """Names of the released code, whose layers are numbered through; the ImageNet classifier is
        dead.
        """
        prefixes = {}

        def layer(ours: str, theirs: str) -> None:
            prefixes[f"{ours}.0."], prefixes[f"{ours}.1."] = f"{theirs}.conv.", f"{theirs}.norm."

        layer("stem.0", "base.0")
        layer("stem.1", "base.1")
        number = 3  # the pooling of the stem is number 2
        for index, spec in enumerate(STAGES):
            for k in range(spec.layers):
                layer(f"stages.{index}.block.layers.{k}", f"base.{number}.layers.{k}")
            prefixes[f"stages.{index}.excitation."] = f"base.{number + 1}."
            layer(f"stages.{index}.transition", f"base.{number + 2}")
            number += 4 if spec.pooled else 3
        return names_by_prefix(
            self, prefixes, dead=[f"base.{number}.3.{leaf}" for leaf in ("weight", "bias")]
        )
