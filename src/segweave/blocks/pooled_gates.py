"""Gates from means and maxima (Woo et al., CBAM, ECCV 2018): one weight per channel, or one per
position.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from segweave.blocks.conv_norm import relu


class ChannelGate(nn.Sequential):
    """x · sigmoid(f(mean) + f(maximum)), mean and maximum over space, f: 1×1 convolution to
    `hidden` channels, ReLU, 1×1 convolution back: (B, C, H, W) → the same.

    Args:
        channels: channels of the map.
        hidden: channels between the two convolutions.
        bias: whether these have a bias.
    """

    def __init__(self, channels: int, hidden: int, *, bias: bool = False) -> None:
        super().__init__(
            nn.Conv2d(channels, hidden, 1, bias=bias),
            relu(),
            nn.Conv2d(hidden, channels, 1, bias=bias),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C, H, W)."""
        mean, largest = x.mean((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
        return x * (self._scores(mean) + self._scores(largest)).sigmoid()

    def _scores(self, x: Tensor) -> Tensor:
        for layer in self:
            x = layer(x)
        return x


class SpatialGate(nn.Conv2d):
    """x · sigmoid(7×7 convolution of [mean, maximum]), both over channels: (B, C, H, W) → the
    same.
    """

    def __init__(self, *, bias: bool = False) -> None:
        super().__init__(2, 1, 7, padding=3, bias=bias)

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C, H, W)."""
        summary = torch.cat([input.mean(1, keepdim=True), input.amax(1, keepdim=True)], dim=1)
        weights = conv2d(summary, self.weight, self.bias, padding=3)
        return input * weights.sigmoid()
