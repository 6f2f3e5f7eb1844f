"""DANIE's hierarchical-attentional perception: channel and spatial attention, each in a branch of
maxima and a branch of means, and their dynamic calibration.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from segweave.blocks.conv_norm import ConvNorm

ORDERS = ("channel-spatial", "spatial-channel")
_REDUCTION = 16
_STEM = 64
"""Channels of the embedding at half the image's size, for every width of the stages."""

Maps = tuple[Tensor, Tensor]
"""The branch of maxima and the branch of means, each (B, C, H, W)."""


def convolutions(in_channels: int, out_channels: int) -> nn.Sequential:
    """Two 3×3 convolutions, each with batch norm and GELU: (B, C_in, H, W) → (B, C_out, H, W)."""
    return nn.Sequential(
        ConvNorm(in_channels, out_channels, 3, activation=nn.GELU),
        ConvNorm(out_channels, out_channels, 3, activation=nn.GELU),
    )


class HierarchicalStream(nn.Module):
    """(B, C, H, W) → the maps of the stages at strides 4, 8, 16, ...

    Li et al., DANIE, Sections 3.2 and 3.3. The embedding has a 3×3 convolution with stride 2 to 64
    channels, `embedding` of stride 1 and one with stride 2 to the first width. Stages are joined by
    a 3×3 convolution with stride 2. All have batch norm and GELU. The paper leaves both open; the
    printed costs decide (`docs/fidelity.md`).

    Args:
        in_channels: channels of an image.
        widths: channels of the stages.
        embedding: number of 3×3 convolutions at half the image's size.
        stage: makes a stage of that many channels.
    """

    def __init__(
        self,
        in_channels: int,
        widths: tuple[int, ...],
        *,
        embedding: int,
        stage: Callable[[int], nn.Module],
    ) -> None:
        super().__init__()
        gelu = nn.GELU
        down = partial(ConvNorm, kernel_size=3, stride=2, activation=gelu)
        self.embedding = nn.Sequential(
            down(in_channels, _STEM),
            *(ConvNorm(_STEM, _STEM, 3, activation=gelu) for _ in range(embedding)),
            down(_STEM, widths[0]),
        )
        self.reductions = nn.ModuleList([nn.Identity(), *(down(a, b) for a, b in pairwise(widths))])
        self.stages = nn.ModuleList(stage(width) for width in widths)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, C, H, W) → the maps of the stages, from shallow to deep."""
        x = self.embedding(x)
        maps = []
        for reduction, stage in zip(self.reductions, self.stages, strict=True):
            x = stage(reduction(x))
            maps.append(x)
        return maps


class HierarchicalAttention(nn.Module):
    """One stage: O = ConvBlock(A_d ⊙ h), Eq. 2 to 5; (B, C, H, W) → the same.

    Both attentions are sigmoids, one weight per channel or per position, not normalised over any
    axis. With `front`, h is a 3×3 convolution of the input. Without the spatial attention, the
    calibration and the convolution block are left out too, and the weighted sum of the branches is
    the result; without the channel attention the convolution in front is left out. So the printed
    costs ask; in form `literal` (`front=False`) an attention leaves alone.

    Args:
        channels: C.
        channel_attention: whether to weigh channels (Eq. 2).
        spatial_attention: whether to weigh positions (Eq. 3).
        order: "channel-spatial" or "spatial-channel".
        calibration: whether the branches have learned weights and A_d weighs h (Eq. 4 and 5).
            Without, the convolution block reads the mean of the branches.
        front: whether there is a 3×3 convolution in front.
    """

    def __init__(
        self,
        channels: int,
        *,
        channel_attention: bool = True,
        spatial_attention: bool = True,
        order: str = "channel-spatial",
        calibration: bool = True,
        front: bool = True,
    ) -> None:
        super().__init__()
        whole = spatial_attention or not front
        with_front = front and channel_attention
        self.front = ConvNorm(channels, channels, 3, activation=nn.GELU) if with_front else None
        attentions: list[nn.Module] = []
        if channel_attention:
            attentions.append(ChannelAttention(channels))
        if spatial_attention:
            attentions.append(SpatialAttention())
        self.attentions = nn.ModuleList(attentions if order == ORDERS[0] else reversed(attentions))
        self.calibration = DynamicCalibration() if calibration else None
        self.gate = nn.Conv2d(channels, channels, 1) if calibration and whole else None
        self.body = convolutions(channels, channels) if whole else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C, H, W)."""
        h = x if self.front is None else self.front(x)
        maps: Maps = (h, h)
        for attention in self.attentions:
            maps = attention(maps)
        mixed = (maps[0] + maps[1]) / 2 if self.calibration is None else self.calibration(maps)
        if self.gate is not None:
            mixed = self.gate(mixed).sigmoid() * h
        result: Tensor = mixed if self.body is None else self.body(mixed)
        return result


class ChannelAttention(nn.Module):
    """Eq. 2: σ(MLP(pooled over positions)) ⊙ the branch, (B, C, H, W) → the same; the branches are
    pooled by maximum and by mean and share the MLP (hidden layer: a sixteenth of the channels).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(1, channels // _REDUCTION)
        self.mlp = nn.Sequential(
            nn.Conv2d(channels, hidden, 1), nn.ReLU(inplace=True), nn.Conv2d(hidden, channels, 1)
        )

    def forward(self, maps: Maps) -> Maps:
        """Two branches (B, C, H, W) → the same."""
        largest, mean = maps
        pooled = torch.cat([largest.amax((2, 3), True), mean.mean((2, 3), keepdim=True)])
        first, second = self.mlp(pooled).sigmoid().chunk(2)
        return largest * first, mean * second


class SpatialAttention(nn.Module):
    """Eq. 3: σ(Conv(pooled over channels)) ⊙ the branch, (B, C, H, W) → the same; the branches are
    pooled by maximum and by mean and share the 1×1 convolution from one channel to one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 1, 1)

    def forward(self, maps: Maps) -> Maps:
        """Two branches (B, C, H, W) → the same."""
        largest, mean = maps
        first = self.convolution(largest.amax(1, keepdim=True)).sigmoid()
        second = self.convolution(mean.mean(1, keepdim=True)).sigmoid()
        return largest * first, mean * second


class DynamicCalibration(nn.Module):
    """Eq. 4: O_d = ω_max O_max + ω_avg O_avg, two learned numbers that start at a half each: two
    branches (B, C, H, W) → (B, C, H, W).
    """

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.full((2,), 0.5))

    def forward(self, maps: Maps) -> Tensor:
        """Two branches → (B, C, H, W)."""
        return self.weights[0] * maps[0] + self.weights[1] * maps[1]
