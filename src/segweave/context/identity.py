"""The control `identity`: the current map, untouched, so that what is woven with it is the bare
network.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from segweave.context.base import ContextModule, Prepared
from segweave.errors import UsageError
from segweave.registry import ContextCard

CARD = ContextCard(
    name="identity",
    title="Identity: the current map alone (control)",
    entry="Identity",
    forms=("paper", "released"),
    kind="control",
)


class Identity(ContextModule):
    """(B, T, C, H, W) → the current step (B, C, H, W): the last one, or the middle one with
    `both_sides`.

    Raises UsageError where `out_channels` differs from `channels`. `form` changes nothing.
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
        if out_channels not in (None, channels):
            raise UsageError(
                "creating the control 'identity'",
                expected=f"as many output channels as input channels, {channels}",
                found=str(out_channels),
                remedy="'mean' and 'conv' can change the number of channels",
            )
        self.channels = self.out_channels = channels
        self.form = form
        self.both_sides = both_sides

    def prepare(self, step: Tensor) -> Prepared:
        """(B, C, H, W) → the same map."""
        return {"map": step}

    def fuse(self, prepared: Sequence[Prepared]) -> Tensor:
        """The map of the current step (B, C, H, W)."""
        return prepared[self.current(len(prepared))]["map"]
