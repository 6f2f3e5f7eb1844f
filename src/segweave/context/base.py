"""The contract of a context module: a sequence of feature maps in, one feature map out, split into
per-slice and per-window work.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from typing import ClassVar

from torch import Tensor, nn

from segweave.context.contract import check_prepared
from segweave.errors import UsageError, nearest

Prepared = dict[str, Tensor]
"""What depends on one slice alone, as named tensors (nested names joined with a dot)."""


class ContextModule(nn.Module, ABC):
    """Sequence (B, T, C, H, W) → (B, C_out, H, W), any B, T ≥ 1, H, W.

    `prepare` does what depends on one step alone; `fuse` does what depends on the window, so that
    over a volume the former runs once per slice. `fuse([prepare(step) for each step])` equals
    `forward(sequence)`; `forward` may skip what its window does not use. `current` is the index of
    the step to segment: the last one for one-sided modules, the middle one for modules that read a
    window from both sides.

    Attributes:
        channels: channels of the maps that it reads.
        out_channels: channels of the map that it returns.
        both_sides: whether it reads a window from both sides.
    """

    channels: int
    out_channels: int
    both_sides: bool = False

    def current(self, steps: int) -> int:
        """Index of the step to segment among `steps`."""
        return steps // 2 if self.both_sides else steps - 1

    @abstractmethod
    def prepare(self, step: Tensor) -> Prepared:
        """(B, C, H, W) → everything about this step that does not depend on its neighbours."""

    @abstractmethod
    def fuse(self, prepared: Sequence[Prepared]) -> Tensor:
        """Prepared steps in reading order → (B, C_out, H, W)."""

    def forward(self, sequence: Tensor) -> Tensor:
        """(B, T, C, H, W) → (B, C_out, H, W)."""
        return self.fuse([check_prepared(self, self.prepare(x)) for x in sequence.unbind(1)])

    def states(self, sequence: Tensor, names: Collection[str]) -> dict[str, Tensor]:
        """Inner states by name, of i, f, g, o, c, h, query, key, value, attention, output, with
        leading axes (layers, batch, time) where they have them. Raises UsageError for a name that
        this module does not have.
        """
        unknown = sorted(set(names) - {"output"})
        if unknown:
            raise UsageError(
                f"reading states of {type(self).__name__}",
                expected="output",
                found=unknown[0],
                remedy=nearest(unknown[0], ["output"]),
            )
        return {"output": self(sequence)}


class Control(ContextModule):
    """What the controls without memory share: they have no parameters, except where `out_channels`
    differs from `channels`; then a 1×1 convolution follows.

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
