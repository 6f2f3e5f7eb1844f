"""Patch expansion: the step from coarse to fine tokens in decoders made of linear layers."""

from __future__ import annotations

from torch import Tensor, nn


class PatchExpansion(nn.Module):
    """A linear layer without bias to factor² · C_out channels, which are cut into squares of factor
    × factor tokens, and a layer norm: (B, H, W, C_in) → (B, factor · H, factor · W, C_out).

    Cao et al., Swin-Unet, ECCV Workshops 2022, "patch expanding layer".
    """

    def __init__(self, in_channels: int, out_channels: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.expand = nn.Linear(in_channels, factor * factor * out_channels, bias=False)
        self.norm = nn.LayerNorm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C_in) → (B, factor · H, factor · W, C_out)."""
        batch, height, width, _ = x.shape
        one = self.factor
        squares = self.expand(x).reshape(batch, height, width, one, one, -1)
        fine = squares.transpose(2, 3).reshape(batch, height * one, width * one, -1)
        result: Tensor = self.norm(fine)
        return result
