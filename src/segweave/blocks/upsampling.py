"""Ways back to a finer map."""

from __future__ import annotations

from torch import Tensor, compiler, nn, tensor
from torch.nn import functional

from segweave.blocks.conv_norm import relu

# Row a: which of the three taps of a kernel fall on one coarse pixel, for the four distances that
# occur between a fine pixel and the coarse ones.
_TAPS = ((0, 0, 1), (0, 1, 1), (1, 1, 0), (1, 0, 0))
# Measured on one thread: for 1 × 16 × 16 pixels the sums gain 1.2-fold with 256 channels and lose
# 1.2-fold with 1024, for fewer pixels they lose, for more they gain.
_FEW_PIXELS = 256


class NearestUpsampledConv2d(nn.Conv2d):
    """3×3 convolution with bias of the map that nearest-neighbour upsampling by 2 gives: (B, C_in,
    H, W) → (B, C_out, 2H, 2W).

    Of the nine taps several read the same coarse pixel. Their weights are added first: one
    transposed convolution with kernel 4 and stride 2 gives the same numbers for 4/9 of the
    multiply-accumulates, and the upsampled map is never built. On a small map the sums would take
    longer than they save, so there the map is upsampled.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1)
        taps = tensor(_TAPS, dtype=self.weight.dtype)
        sums = taps[:, None, :, None] * taps[None, :, None, :]
        self.register_buffer("sums", sums.reshape(16, 9), persistent=False)

    sums: Tensor

    def forward(self, input: Tensor) -> Tensor:
        """(B, C_in, H, W) → (B, C_out, 2H, 2W)."""
        few = input.shape[0] * input.shape[2] * input.shape[3] <= _FEW_PIXELS
        # A program that is exported may take images of another size later.
        if few and not compiler.is_compiling():
            return super().forward(functional.interpolate(input, scale_factor=2.0))
        sums = functional.linear(self.weight.flatten(2), self.sums)
        kernel = sums.reshape(self.out_channels, self.in_channels, 4, 4)
        return functional.conv_transpose2d(
            input, kernel.transpose(0, 1), self.bias, stride=2, padding=1
        )


class NearestConvolution(nn.Sequential):
    """Nearest-neighbour upsampling by 2, then 3×3 convolution with bias, batch norm, ReLU: (B,
    C_in, H, W) → (B, C_out, 2H, 2W).
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            NearestUpsampledConv2d(in_channels, out_channels),
            nn.BatchNorm2d(out_channels),
            relu(),
        )
