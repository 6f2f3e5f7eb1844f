"""The double convolution of the UNet family: twice convolution, batch norm, ReLU."""

from __future__ import annotations

from torch import nn


class DoubleConvolution(nn.Sequential):
    """Twice (3×3 convolution with bias, batch norm, ReLU): (B, C_in, H, W) → (B, C_out, H, W)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, 3, padding=1),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(out_channels, out_channels, 3, padding=1),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )
