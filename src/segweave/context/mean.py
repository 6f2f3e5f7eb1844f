"""The control `mean`: the average of the steps, which sees the neighbours and has nothing to
learn.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from segweave.context.base import Control, Prepared
from segweave.registry import ContextCard

CARD = ContextCard(
    name="mean",
    title="Mean of the steps (control)",
    entry="Mean",
    forms=("paper", "released"),
    kind="control",
)


class Mean(Control):
    """(B, T, C, H, W) → the mean over T (B, C, H, W).

    Without parameters, except where `out_channels` differs from `channels`: then a 1×1 convolution
    follows. `form` changes nothing; `both_sides` decides only which step is the current one.
    """

    def fuse(self, prepared: Sequence[Prepared]) -> Tensor:
        """The mean of the prepared maps (B, C_out, H, W); a 1×1 convolution may come before it."""
        return torch.stack([step["map"] for step in prepared]).mean(0)

    def forward(self, sequence: Tensor) -> Tensor:
        """(B, T, C, H, W) → (B, C_out, H, W)."""
        mean: Tensor = self.conv(sequence.mean(1))
        return mean
