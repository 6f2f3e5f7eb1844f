"""Exchange between maps of several sizes, as in MSCA-Net: attention of each of three maps to the
two others, attention inside of the deepest one, and a sum of two maps weighted at each position.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor, nn
from torch.nn.functional import relu, scaled_dot_product_attention

from segweave.blocks.conv_norm import ConvNorm
from segweave.blocks.conv_norm import relu as relu_layer
from segweave.blocks.pooled_gates import ChannelGate, SpatialGate


class CrossScaleBridge(nn.Module):
    """Each pixel of a map gives its value to the pixels of another map, divided by a softmax over
    the pixels that receive; a 1×1 convolution joins a map with what it got from the others. Maps
    (B, C_k, h_k, w_k) → maps of the same shapes (Sun et al., MSCA-Net, Section 3.2).

    Queries and keys of a map are one and the same, not scaled. The matrices of two maps hold
    h_a · w_a · h_b · w_b numbers.

    Args:
        channels: channels of each of the three maps.
        width: channels of queries, keys and values.
    """

    givers = ((2, 1), (0, 2), (1, 0))
    """For each map the others, in the order in which they are joined."""

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        self.keys = nn.ModuleList(nn.Conv2d(one, width, 1) for one in channels)
        self.values = nn.ModuleList(nn.Conv2d(one, width, 1) for one in channels)
        self.out = nn.ModuleList(nn.Conv2d(one + 2 * width, one, 1) for one in channels)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Three maps → three maps of the same shapes."""
        keys = [layer(x).flatten(2) for layer, x in zip(self.keys, maps, strict=True)]
        values = [layer(x).flatten(2) for layer, x in zip(self.values, maps, strict=True)]
        given = {}
        for a, b in combinations(range(len(maps)), 2):
            scores = keys[a].transpose(1, 2) @ keys[b]
            for giver, receiver, pairs in ((a, b, scores), (b, a, scores.transpose(1, 2))):
                value = values[giver]
                mixed = value @ pairs.softmax(dim=-1).to(value.dtype)
                given[giver, receiver] = mixed.reshape(*value.shape[:2], *maps[receiver].shape[-2:])
        return [
            layer(torch.cat([x, *(given[a, b] for a in self.givers[b])], dim=1))
            for b, (layer, x) in enumerate(zip(self.out, maps, strict=True))
        ]


class AffinityAttention(nn.Module):
    """y = x + γ · attention of the pixels to each other, then 2y + γ' · attention of the channels
    to each other, which prefers channels that are unlike: (B, C, H, W) → the same. Both γ start at
    zero.

    Args:
        channels: channels of the map.
        width: channels of queries and keys.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.query = ConvNorm(channels, width, (1, 3), bias=True, activation=relu_layer)
        self.key = ConvNorm(channels, width, (3, 1), bias=True, activation=relu_layer)
        self.value = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(1))
        self.channel_gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C, H, W)."""
        query, key, value = (
            layer(x).flatten(2).transpose(1, 2).contiguous()
            for layer in (self.query, self.key, self.value)
        )
        mixed = scaled_dot_product_attention(query, key, value, scale=1.0)
        x = x + self.gamma * mixed.transpose(1, 2).reshape(x.shape)
        pixels = x.flatten(2)
        alike = pixels @ pixels.transpose(1, 2)
        # softmax(maximum - alike): a constant per row changes nothing.
        weights = (-alike).softmax(dim=-1).to(pixels.dtype)
        return 2 * x + self.channel_gamma * (weights @ pixels).reshape(x.shape)


class ResidualGates(nn.Module):
    """x + x · channel gate, then the same with the spatial gate: (B, C, H, W) → the same (Woo et
    al., CBAM, ECCV 2018, with residuals and biases).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channel = ChannelGate(channels, max(1, channels // 2), bias=True)
        self.spatial = SpatialGate(bias=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C, H, W)."""
        x = x + self.channel(x)
        y: Tensor = x + self.spatial(x)
        return y


class ScaleFusion(nn.Module):
    """The sum of two maps with weights at each position, which three convolutions of both and a
    softmax give: (B, C, H, W) twice → (B, C, H, W) (Sun et al., MSCA-Net, Section 3.4).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = max(1, width // 2)
        self.first = nn.Conv2d(2 * width, width, 1)
        self.second = nn.Conv2d(width, inner, 3, padding=1)
        self.third = nn.Conv2d(inner, 2, 3, padding=1)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """(B, C, H, W) twice → (B, C, H, W)."""
        scores = relu(self.first(torch.cat([coarse, fine], dim=1)))
        weights = self.third(relu(self.second(scores))).softmax(dim=1).to(fine.dtype)
        return weights[:, :1] * coarse + weights[:, 1:] * fine
