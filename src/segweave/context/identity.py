"""The control `identity`: the current map, untouched, so that what is woven with it is the bare
network.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from segweave.context.base import Control, Prepared
from segweave.registry import ContextCard

CARD = ContextCard(
    name="identity",
    title="Identity: the current map alone (control)",
    entry="Identity",
    forms=("paper", "released"),
    kind="control",
)


class Identity(Control):
    """(B, T, C, H, W) → the current step (B, C, H, W): the last one, or the middle one with
    `both_sides`.

    Raises UsageError where `out_channels` differs from `channels`. `form` changes nothing.
    """

    changes_width = False

    def fuse(self, prepared: Sequence[Prepared]) -> Tensor:
        """The map of the current step (B, C, H, W)."""
        return prepared[self.current(len(prepared))]["map"]
