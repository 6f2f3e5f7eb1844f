"""The decoder of CASCADE: attention gates on the skips, convolutional attention after each join."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from segweave.blocks.conv_norm import ConvNorm, relu
from segweave.blocks.pooled_gates import ChannelGate, SpatialGate

REDUCTION = 16
"""Channels divided by those between the layers of the channel attention."""


class CascadeDecoder(nn.Module):
    """Maps of an encoder from shallow to deep → four decoded maps from deep to shallow, each with
    the channels and the size of its encoder's map.

    Rahman and Marculescu, Medical Image Segmentation via Cascaded Attention Decoding, WACV 2023.
    Written from the paper's description alone.

    Args:
        channels: those of the maps, from shallow to deep.
        join: "add" or "concatenate" the gated skip and the upsampled map.
    """

    def __init__(self, channels: Sequence[int], *, join: str) -> None:
        super().__init__()
        self.join = join
        deep_first = list(reversed(channels))
        pairs = list(pairwise(deep_first))
        self.upsampling = nn.ModuleList(
            ConvNorm(before, after, 3, activation=relu) for before, after in pairs
        )
        self.gates = nn.ModuleList(AttentionGate(after) for _, after in pairs)
        joined = [(1 if join == "add" else 2) * after for _, after in pairs]
        self.blocks = nn.ModuleList(
            ConvolutionalAttention(before, after)
            for before, after in zip([deep_first[0], *joined], deep_first, strict=True)
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps from shallow to deep → decoded maps from deep to shallow."""
        *skips, x = maps
        decoded = [self.blocks[0](x)]
        for up, gate, block, skip in zip(
            self.upsampling, self.gates, self.blocks[1:], reversed(skips), strict=True
        ):
            x = functional.interpolate(
                decoded[-1], size=skip.shape[-2:], mode="bilinear", align_corners=False
            )
            x = up(x)
            gated = gate(x, skip)
            decoded.append(block(x + gated if self.join == "add" else torch.cat([x, gated], 1)))
        return decoded


class AttentionGate(nn.Module):
    """skip · sigmoid(BN(1×1(ReLU(BN(1×1(signal)) + BN(1×1(skip)))))): two maps (B, C, H, W) → the
    same, one weight per position.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(1, channels // 2)
        self.signal = ConvNorm(channels, inner, 1, bias=True)
        self.skip = ConvNorm(channels, inner, 1, bias=True)
        self.weight = ConvNorm(inner, 1, 1, bias=True)

    def forward(self, signal: Tensor, skip: Tensor) -> Tensor:
        """(B, C, H, W) twice → (B, C, H, W)."""
        weight = self.weight(functional.relu(self.signal(signal) + self.skip(skip)))
        return skip * weight.sigmoid()


class ConvolutionalAttention(nn.Module):
    """Channel attention, spatial attention, two 3×3 convolutions with batch norm and ReLU: (B,
    C_in, H, W) → (B, C_out, H, W).
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        inner = max(1, in_channels // REDUCTION)
        self.channel = ChannelGate(in_channels, inner)
        self.spatial = SpatialGate()
        self.body = nn.Sequential(
            ConvNorm(in_channels, out_channels, 3, activation=relu),
            ConvNorm(out_channels, out_channels, 3, activation=relu),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) → (B, C_out, H, W)."""
        result: Tensor = self.body(self.spatial(self.channel(x)))
        return result
