"""Context modules around a context module: fewer channels inside, an image cut into tiles, a user's
plain module.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn

from segweave.context.base import ContextModule, Prepared, check_map, check_prepared
from segweave.errors import UsageError


class Narrowed(ContextModule):
    """A 1×1 convolution from `channels` to the channels of `inner`, then `inner`.

    Both directions of `inner` read the narrowed map, so that the convolution runs once per slice.
    The way back is the last 1×1 convolution of `inner` itself.
    """

    def __init__(self, channels: int, inner: ContextModule) -> None:
        super().__init__()
        self.channels = channels
        self.out_channels = inner.out_channels
        self.both_sides = inner.both_sides
        self.narrow = nn.Conv2d(channels, inner.channels, kernel_size=1)
        self.inner = inner

    def prepare(self, step: Tensor) -> Prepared:
        """(B, C, H, W) → what `inner` prepares of the narrowed map."""
        return self.inner.prepare(self.narrow(step))

    def fuse(self, prepared: Sequence[Prepared]) -> Tensor:
        """Prepared steps → (B, C_out, H, W)."""
        return self.inner.fuse(prepared)

    def forward(self, sequence: Tensor) -> Tensor:
        """(B, T, C, H, W) → (B, C_out, H, W)."""
        fused: Tensor = self.inner(self._narrow(sequence))
        return fused

    def states(self, sequence: Tensor, names: Collection[str]) -> dict[str, Tensor]:
        """Inner states of the module inside, by name."""
        return self.inner.states(self._narrow(sequence), names)

    def _narrow(self, sequence: Tensor) -> Tensor:
        return torch.stack([self.narrow(step) for step in sequence.unbind(1)], 1)


class Tiled(ContextModule):
    """One map cut into n×n tiles: the sequence of a tile is the tiles before it in reading order
    and itself.

    Reads a sequence of one step and puts the output of each tile where the tile was. `inner` is
    one-sided. Raises UsageError for a longer sequence, and for a map whose height or width n does
    not divide.
    """

    def __init__(self, inner: ContextModule, tiles: int) -> None:
        super().__init__()
        if inner.both_sides:
            raise UsageError(
                "weaving with tiles",
                expected="a one-sided context module: a tile is the last of its sequence",
                found=f"{type(inner).__name__} that reads from both sides",
            )
        self.channels = inner.channels
        self.out_channels = inner.out_channels
        self.tiles = tiles
        self.inner = inner

    def prepare(self, step: Tensor) -> Prepared:
        """(B, C, H, W) → what `inner` prepares of each tile, under the number of the tile."""
        return {
            f"{index}.{name}": value
            for index, tile in enumerate(self._cut(step))
            for name, value in check_prepared(self.inner, self.inner.prepare(tile)).items()
        }

    def fuse(self, prepared: Sequence[Prepared]) -> Tensor:
        """One prepared map → (B, C_out, H, W)."""
        if len(prepared) != 1:
            raise UsageError(
                "running a context module over tiles",
                expected="one image, as tiles and neighbouring slices don't mix",
                found=f"{len(prepared)} slices",
                remedy="weave with slices=1, or with tiles=1",
            )
        steps: list[Prepared] = [{} for _ in range(self.tiles**2)]
        for key, value in prepared[0].items():
            index, _, name = key.partition(".")
            steps[int(index)][name] = value
        fused = [
            check_map(self.inner, self.inner.fuse(steps[: index + 1]))
            for index in range(len(steps))
        ]
        rows = [
            torch.cat(fused[first : first + self.tiles], -1)
            for first in range(0, len(fused), self.tiles)
        ]
        return torch.cat(rows, -2)

    def _cut(self, step: Tensor) -> list[Tensor]:
        height, width = int(step.shape[-2]), int(step.shape[-1])
        if height % self.tiles or width % self.tiles:
            raise UsageError(
                f"cutting a map of {height}×{width} into {self.tiles}×{self.tiles} tiles",
                expected=f"height and width of the map divisible by {self.tiles}",
                found=f"{height}×{width}",
                remedy=_tiles_that_work(height, width),
            )
        rows = step.chunk(self.tiles, -2)
        return [tile for row in rows for tile in row.chunk(self.tiles, -1)]


def _tiles_that_work(height: int, width: int) -> str:
    works = [n for n in range(2, min(height, width) + 1) if height % n == 0 and width % n == 0]
    if not works:
        return "weave with tiles=1, or resize the image"
    return "weave with tiles=" + " or ".join(str(n) for n in works[:4]) + ", or resize the image"


class Plain(ContextModule):
    """A user's module that maps a sequence (B, T, C, H, W) to (B, C_out, H, W) without `prepare`
    and `fuse`; everything happens in `fuse`.
    """

    def __init__(
        self, inner: nn.Module, channels: int, out_channels: int, both_sides: bool
    ) -> None:
        super().__init__()
        self.channels = channels
        self.out_channels = out_channels
        self.both_sides = both_sides
        self.inner = inner

    def prepare(self, step: Tensor) -> Prepared:
        """(B, C, H, W) → the same map."""
        return {"map": step}

    def fuse(self, prepared: Sequence[Prepared]) -> Tensor:
        """Prepared steps → (B, C_out, H, W)."""
        return self(torch.stack([step["map"] for step in prepared], 1))

    def forward(self, sequence: Tensor) -> Tensor:
        """(B, T, C, H, W) → (B, C_out, H, W)."""
        fused: Tensor = self.inner(sequence)
        return fused
