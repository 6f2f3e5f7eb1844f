"""Learned tables of positions for another size of the image."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import interpolate

from segweave.registry import Size


def resized(table: Tensor, grid: Size, size: Size) -> Tensor:
    """A table (1, rows · columns, C) of `grid` for another grid, bilinear with aligned corners."""
    if grid == size:
        return table
    x = table.transpose(1, 2).reshape(1, -1, *grid)
    x = interpolate(x, size=size, mode="bilinear", align_corners=True)
    return x.flatten(2).transpose(1, 2)
