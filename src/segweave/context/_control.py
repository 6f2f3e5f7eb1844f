"""What the controls without memory share: options, and the maps that they prepare."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from segweave.context.base import ContextModule, Prepared
from segweave.errors import UsageError


class Control(ContextModule):
    """A module without parameters, except where `out_channels` differs from `channels`: then a 1×1
    convolution follows.

    Args:
        channels: channels of the maps that it reads.
        out_channels: channels of the map that it returns; default: `channels`.
        form: changes nothing.
        both_sides: whether the current step is the middle one, else the last one.

    Raises:
        UsageError: other `out_channels`, where the control cannot change them.
    """

    changes_width: ClassVar[bool] = True

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
        if self.out_channels != channels and not self.changes_width:
            raise UsageError(
                f"creating the control {type(self).__name__.lower()!r}",
                expected=f"as many output channels as input channels, {channels}",
                found=str(out_channels),
                remedy="'mean' and 'conv' can change the number of channels",
            )
        self.conv: nn.Module = (
            nn.Identity()
            if self.out_channels == channels
            else nn.Conv2d(channels, self.out_channels, kernel_size=1)
        )

    def prepare(self, step: Tensor) -> Prepared:
        """(B, C, H, W) → the map as it leaves the 1×1 convolution, where there is one."""
        return {"map": self.conv(step)}
