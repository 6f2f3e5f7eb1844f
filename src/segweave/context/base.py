"""The contract of a context module: a sequence of feature maps in, one feature map out, split into
per-slice and per-window work.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence

from torch import Tensor, nn

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
        return self.fuse([self.prepare(step) for step in sequence.unbind(1)])

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
