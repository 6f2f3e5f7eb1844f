"""Ways back to a finer map."""

from __future__ import annotations

from torch import nn

from segweave.networks.blocks.conv_norm import ConvNorm, relu


class NearestConvolution(nn.Sequential):
    """Nearest-neighbour upsampling by 2, then 3×3 convolution with bias, batch norm, ReLU: (B,
    C_in, H, W) → (B, C_out, 2H, 2W).
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        # Unpacked, so that the tensors keep the names 1, 2 of the released code.
        super().__init__(
            nn.Upsample(scale_factor=2),
            *ConvNorm(in_channels, out_channels, 3, bias=True, activation=relu),
        )
