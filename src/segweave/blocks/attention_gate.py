"""The gate that lets a skip through where the decoder's map wants it."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from segweave.blocks.conv_norm import ConvNorm


class AttentionGate(nn.Module):
    """x · σ(BN(ψ(ReLU(BN(W_g g) + BN(W_x x))))) for a skip x and a signal g of the same size; W_g,
    W_x and ψ are 1×1 convolutions with bias, ψ to one channel.

    Oktay et al., Attention U-Net, MIDL 2018, Section 3.2. The networks here take for g the
    decoder's map that is upsampled already; the paper takes the coarser one.

    Args:
        signal_channels: channels of g.
        skip_channels: channels of x.
        inner: channels in which both are added.
    """

    def __init__(self, signal_channels: int, skip_channels: int, inner: int) -> None:
        super().__init__()
        self.signal = ConvNorm(signal_channels, inner, 1, bias=True)
        self.skip = ConvNorm(skip_channels, inner, 1, bias=True)
        self.score = nn.Sequential(*ConvNorm(inner, 1, 1, bias=True), nn.Sigmoid())

    def forward(self, signal: Tensor, skip: Tensor) -> Tensor:
        """Signal (B, C_g, H, W) and skip (B, C_x, H, W) → the gated skip (B, C_x, H, W)."""
        return skip * cast(Tensor, self.score((self.signal(signal) + self.skip(skip)).relu_()))
