"""The double convolution of the UNet family: twice convolution, batch norm, ReLU."""

from __future__ import annotations

from torch import nn

from segweave.networks.blocks.conv_norm import ConvNorm, relu


class DoubleConvolution(nn.Sequential):
    """Twice (3×3 convolution with bias, batch norm, ReLU): (B, C_in, H, W) → (B, C_out, H, W)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        # Unpacked, so that the tensors keep the names 0, 1, 3, 4 of the released code.
        super().__init__(
            *ConvNorm(in_channels, out_channels, 3, bias=True, activation=relu),
            *ConvNorm(out_channels, out_channels, 3, bias=True, activation=relu),
        )
