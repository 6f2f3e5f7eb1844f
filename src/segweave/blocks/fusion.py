"""Joins of maps of several sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, interpolate

from segweave.blocks.conv_norm import ConvNorm, relu
from segweave.registry import Size


class LateFusion(nn.Module):
    """1×1 convolution without bias, batch norm and ReLU of several maps that are resized (bilinear)
    to one size and joined. A 1×1 convolution and the resizing commute, so each map passes its part
    of the convolution at its own size, which costs less and gives the same.

    Args:
        in_channels: channels of each map, in the order in which they are joined.
        out_channels: channels of the result.
    """

    def __init__(self, in_channels: Sequence[int], out_channels: int) -> None:
        super().__init__()
        self.widths = list(in_channels)
        self.layer = ConvNorm(sum(in_channels), out_channels, 1, activation=relu)

    def forward(self, maps: Sequence[Tensor], size: Size) -> Tensor:
        """Maps (B, C_k, h_k, w_k) → (B, C_out, H, W) at `size` = (H, W)."""
        convolution, norm, activation = self.layer
        weights = torch.split(cast(Tensor, convolution.weight), self.widths, dim=1)
        parts = [conv2d(one, weight) for one, weight in zip(maps, weights, strict=True)]
        joined = sum(
            part
            if part.shape[-2:] == size
            else interpolate(part, size=size, mode="bilinear", align_corners=False)
            for part in parts
        )
        # Where the norm was folded into the convolution, that has a bias.
        bias = cast(Tensor | None, convolution.bias)
        if bias is not None:
            joined = joined + bias[:, None, None]
        return cast(Tensor, activation(norm(joined)))


class PixelLinear(nn.Linear):
    """A linear layer over the channels of a map, (B, C_in, H, W) → (B, C_out, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) → (B, C_out, H, W)."""
        return conv2d(x, self.weight[:, :, None, None], self.bias)
