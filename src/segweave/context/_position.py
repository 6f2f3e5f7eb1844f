"""Codes of the position in a map: a trained grid, or the released table of sines and cosines."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segweave.errors import UsageError

GRID = 16


class TrainablePositionCode(nn.Module):
    """One learned number per channel and position of a 16×16 grid, interpolated (bilinear) to
    the map's size (P_dyn in Algorithm 1 of the SA-embedded LSTM).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.grid = nn.Parameter(torch.empty(1, channels, GRID, GRID))
        nn.init.trunc_normal_(self.grid, std=0.02)

    def forward(self, height: int, width: int) -> Tensor:
        """The code for a map of this size, (1, C, height, width)."""
        return F.interpolate(self.grid, (height, width), mode="bilinear", align_corners=False)


class SinePositionCode(nn.Module):
    """Sine and cosine of the position p = row · width + column, for up to `positions` positions.

    Channels 2j and 2j + 1 hold sin and cos of p · exp(−2j · ln(10000) / channels). The table is
    computed in float32, as the released code does, whatever it is cast to later.
    """

    table: Tensor

    def __init__(self, channels: int, positions: int) -> None:
        super().__init__()
        if channels % 2 and channels != 1:
            raise UsageError(
                "creating a sine position code",
                expected="an even width (sines and cosines come in pairs), or 1",
                found=f"{channels} channels",
                remedy='use an even width, or form="paper"',
            )
        self.positions = positions
        position = torch.arange(positions, dtype=torch.float32)
        pair = torch.arange(0, channels, 2, dtype=torch.float32)
        # The last bit of a float32 exponential differs between machines, and moves far positions by
        # 3e-3: computed in float64, and rounded as on the machine that made the reference numbers.
        frequency = (pair * (-math.log(10000.0) / channels)).double().exp() * (1 + 2.0**-31)
        angle = frequency.float()[:, None] * position
        table = torch.stack([angle.sin(), angle.cos()], 1).flatten(0, 1)[:channels]
        self.register_buffer("table", table, persistent=False)

    def forward(self, height: int, width: int) -> Tensor:
        """The code for a map of this size, (1, C, height, width); raises UsageError if it has more
        positions than the table.
        """
        if height * width > self.positions:
            raise UsageError(
                "adding the sine position code",
                expected=f"at most attention_size = {self.positions} positions",
                found=f"a map of {height}×{width} = {height * width}",
                remedy=f'create the module with attention_size={height * width}, or form="paper"',
            )
        return self.table[:, : height * width].reshape(1, -1, height, width)
