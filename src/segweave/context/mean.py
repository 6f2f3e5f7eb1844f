"""The control `mean`: the average of the steps, which sees the neighbours and has nothing to
learn.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from segweave.context.base import ContextModule, Prepared
from segweave.registry import ContextCard

CARD = ContextCard(
    name="mean",
    title="Mean of the steps (control)",
    entry="Mean",
    forms=("paper", "released"),
    kind="control",
)


class Mean(ContextModule):
    """(B, T, C, H, W) → the mean over T (B, C, H, W).

    Without parameters, except where `out_channels` differs from `channels`: then a 1×1 convolution
    follows. `form` changes nothing; `both_sides` decides only which step is the current one.
    """

    def __init__(
        self,
        channels: int,
        *,
        out_channels: int | None = None,
        form: str = "paper",
        both_sides: bool = False,
    ) -> None:
        super().__init__()
        self.channels = channels
        self.out_channels = channels if out_channels is None else out_channels
        self.form = form
        self.both_sides = both_sides
        self.conv: nn.Module = (
            nn.Identity()
            if self.out_channels == channels
            else nn.Conv2d(channels, self.out_channels, kernel_size=1)
        )

    def prepare(self, step: Tensor) -> Prepared:
        """(B, C, H, W) → the map as it leaves the 1×1 convolution, which is linear and so may come
        before the mean.
        """
        return {"map": self.conv(step)}

    def fuse(self, prepared: Sequence[Prepared]) -> Tensor:
        """The mean of the prepared maps (B, C_out, H, W)."""
        return torch.stack([step["map"] for step in prepared]).mean(0)

    def forward(self, sequence: Tensor) -> Tensor:
        """(B, T, C, H, W) → (B, C_out, H, W)."""
        mean: Tensor = self.conv(sequence.mean(1))
        return mean
