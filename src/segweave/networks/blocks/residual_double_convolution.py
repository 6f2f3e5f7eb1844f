"""MT-UNet's convolution block: two convolutions and a 1×1 convolution on top, summed."""

from __future__ import annotations

from torch import Tensor, nn

from segweave.networks.blocks.conv_norm import ConvNorm, relu


class ResidualDoubleConvolution(nn.Module):
    """y = two 3×3 convolutions of x, each with batch norm, a ReLU between; result = ReLU(y + BN(1×1
    convolution of y)): (B, C_in, H, W) → (B, C_out, H, W). Only the 1×1 convolution has a bias.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *ConvNorm(in_channels, out_channels, 3, activation=relu),
            *ConvNorm(out_channels, out_channels, 3),
        )
        self.mix = ConvNorm(out_channels, out_channels, 1, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) → (B, C_out, H, W)."""
        y = self.body(x)
        return (y + self.mix(y)).relu()
