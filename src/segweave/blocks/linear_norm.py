"""The block of a linear layer and a batch norm over tokens; `fold_weights` folds it."""

from __future__ import annotations

from torch import Tensor, nn


class TokenBatchNorm(nn.BatchNorm1d):
    """Batch norm of the last axis over all tokens of all images: (..., C) → (..., C)."""

    def forward(self, input: Tensor) -> Tensor:
        """(..., C) → (..., C)."""
        return super().forward(input.flatten(0, -2)).view_as(input)


class LinearNorm(nn.Sequential):
    """Linear layer without bias, then batch norm over tokens: (..., C_in) → (..., C_out).

    Its tensors are named `0.weight` (linear layer) and `1.*` (batch norm), as in `ConvNorm`.

    Args:
        in_channels: channels of a token.
        out_channels: channels of the result.
        start: start value of the batch norm's weight; 0 lets a residual branch begin as nothing.
    """

    def __init__(self, in_channels: int, out_channels: int, *, start: float = 1.0) -> None:
        norm = TokenBatchNorm(out_channels)
        nn.init.constant_(norm.weight, start)
        super().__init__(nn.Linear(in_channels, out_channels, bias=False), norm)
