"""Large-window attention: each window of a map looks at a larger region around it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention

from segweave.blocks.conv_norm import ConvNorm

WINDOW = 8


class LargeWindowAttention(nn.Module):
    """Windows of 8×8 positions attend to the 8R×8R positions around them, brought to 8×8 (Yan et
    al., Lawin Transformer, arXiv:2201.01615): (B, C, H, W) → the same. H and W are multiples of 8.

    The region is brought to 8×8 by a convolution of kernel = stride = R and a layer norm; beyond
    the map it is 0. In each head a linear layer over its 64 positions is added (position mixing).
    Queries, keys and values are 1×1 convolutions to half of the channels; the result is brought
    back by a 1×1 convolution with batch norm, whose weight starts at 0, and added to the map.

    The regions of neighbouring windows overlap, and R divides the distance of windows, so that one
    convolution of the map holds the patches of all of them.

    Args:
        channels: channels of the map.
        ratio: R, a divisor of 8.
        heads: a divisor of half of the channels.
    """

    def __init__(self, channels: int, ratio: int, heads: int) -> None:
        super().__init__()
        self.ratio, self.heads = ratio, heads
        inner = channels // 2
        self.patches = nn.Conv2d(channels, channels, ratio, stride=ratio)
        self.norm = nn.LayerNorm(channels)
        self.mixing = nn.ModuleList(nn.Linear(WINDOW**2, WINDOW**2) for _ in range(heads))
        self.query = nn.Conv2d(channels, inner, 1)
        self.key = nn.Conv2d(channels, inner, 1)
        self.value = nn.Conv2d(channels, inner, 1)
        self.out = ConvNorm(inner, channels, 1)
        for layer in self.out:
            if isinstance(layer, nn.BatchNorm2d):
                nn.init.zeros_(layer.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → the same."""
        batch, _, height, width = x.shape
        rows, columns = height // WINDOW, width // WINDOW
        contexts = self._contexts(x)
        keys, values = (
            layer(contexts)
            .unflatten(1, (self.heads, -1))
            .permute(0, 3, 1, 4, 2)
            .flatten(0, 1)
            .contiguous()
            for layer in (self.key, self.value)
        )
        queries = (
            self.query(x)
            .reshape(batch, self.heads, -1, rows, WINDOW, columns, WINDOW)
            .permute(0, 3, 5, 1, 4, 6, 2)
            .reshape(batch * rows * columns, self.heads, WINDOW**2, -1)
        )
        attended = (
            scaled_dot_product_attention(queries, keys, values)
            .reshape(batch, rows, columns, self.heads, WINDOW, WINDOW, -1)
            .permute(0, 3, 6, 1, 4, 2, 5)
            .reshape(batch, -1, height, width)
        )
        out: Tensor = self.out(attended)
        return x + out

    def _contexts(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → the mixed contexts (B, C, windows, 64)."""
        border = (self.ratio - 1) * WINDOW // 2
        grid = self.patches(pad(x, (border,) * 4))
        grid = self.norm(grid.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        step = WINDOW // self.ratio
        windows = grid.unfold(2, WINDOW, step).unfold(3, WINDOW, step)
        contexts = windows.flatten(4).flatten(2, 3).unflatten(1, (self.heads, -1))
        weight = torch.stack([layer.weight for layer in self._layers()])
        bias = torch.stack([layer.bias for layer in self._layers()])
        mixed = torch.matmul(contexts.flatten(2, 3), weight.mT) + bias[:, None]
        return (contexts + mixed.view_as(contexts)).flatten(1, 2)

    def _layers(self) -> list[nn.Linear]:
        return [layer for layer in self.mixing if isinstance(layer, nn.Linear)]
