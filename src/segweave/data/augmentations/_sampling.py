"""Reads images and label maps at other positions: by a matrix, or anywhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import grid_sample

_STEPS = 8  # of the fixed-point iteration; elastic displacements need about four


def sample_affine(
    image: Tensor,
    label: Tensor,
    matrices: NDArray[np.floating[Any]],
    outside: Tensor,
    *,
    nearest: bool = False,
    overwrite: bool = False,
) -> tuple[Tensor, Tensor]:
    """Sample windows (B, S, C, h, w) and labels (B, h, w) or (B, K, h, w) at `matrices` (B, 2, 3).

    All slices of a window and its label move together. `outside` (B, C) fills what is beyond the
    edges; labels are 0 there. The label keeps its dtype; the result is on the image's device.
    `overwrite` allows the image's memory to be worked in, which saves a copy.
    """
    batch, slices, channels, height, width = image.shape
    planes = image.reshape(batch, slices * channels, height, width)
    maps = label.reshape(batch, -1, height, width)
    fill = outside.to(image).repeat(1, slices)[:, :, None, None]
    theta = torch.from_numpy(np.ascontiguousarray(matrices, np.float32)).to(image.device)
    reflections = [reflection_of(matrix, square=height == width) for matrix in matrices]
    rest = [number for number, reflection in enumerate(reflections) if reflection is None]
    if len(rest) == batch:
        work = planes if overwrite else planes.clone()
        grid = affine_positions(theta, (height, width))
        moved, moved_label = read_at(work, maps, grid, fill, nearest=nearest)
        return moved.reshape(image.shape), moved_label.reshape(label.shape)
    moved, moved_label = torch.empty_like(planes), torch.empty_like(maps)
    for number, reflection in enumerate(reflections):
        if reflection is None:
            continue
        # Nothing is computed where the pixels only change places.
        swapped, flips = reflection
        for source, target in ((planes, moved), (maps, moved_label)):
            picture = source[number].mT if swapped else source[number]
            target[number] = picture.flip(flips) if flips else picture
    if rest:
        grid = affine_positions(theta[rest], (height, width))
        moved[rest], moved_label[rest] = read_at(
            planes[rest], maps[rest], grid, fill[rest], nearest=nearest
        )
    return moved.reshape(image.shape), moved_label.reshape(label.shape)


def read_at(
    planes: Tensor, maps: Tensor, grid: Tensor, fill: Tensor, *, nearest: bool
) -> tuple[Tensor, Tensor]:
    """`planes` (B, C, h, w) and `maps` (B, K, h, w) read at `grid` (B, h, w, 2), maps by nearest
    neighbour.

    Overwrites `planes`: for arrays of this size, new memory costs as much as the work. `fill`
    (B, C, 1, 1) is what images hold beyond their edges; maps hold 0 there.
    """
    mode = "nearest" if nearest else "bilinear"
    # Beyond the edges grid_sample knows only zeros.
    moved = grid_sample(
        planes.sub_(fill), grid, mode=mode, padding_mode="zeros", align_corners=False
    ).add_(fill)
    return moved, read_maps(maps, grid, planes.dtype)


def read_maps(maps: Tensor, grid: Tensor, dtype: torch.dtype) -> Tensor:
    """`maps` (B, K, h, w) read at `grid` (B, h, w, 2) by nearest neighbour, 0 beyond the edges."""
    moved: Tensor = grid_sample(
        maps.to(dtype), grid, mode="nearest", padding_mode="zeros", align_corners=False
    ).to(maps.dtype)
    return moved


def affine_positions(theta: Tensor, size: tuple[int, int]) -> Tensor:
    """Where each output pixel is read, (B, h, w, 2): torch's `affine_grid` for matrices of two
    dimensions, as sums along rows and columns, which take a tenth of its time.
    """
    x, y = ((2 * torch.arange(n, device=theta.device) + 1) / n - 1 for n in reversed(size))
    grid = theta.new_empty(len(theta), *size, 2)
    for axis in (0, 1):
        across = theta[:, axis, 0, None, None] * x
        down = theta[:, axis, 1, None, None] * y[:, None] + theta[:, axis, 2, None, None]
        torch.add(across, down, out=grid[..., axis])
    return grid


def reflection_of(
    matrix: NDArray[np.floating[Any]], *, square: bool
) -> tuple[bool, list[int]] | None:
    """(are rows and columns exchanged, the axes that are turned round after that) of a matrix under
    which pixels only change places; None for any other.
    """
    (a, b, right), (c, d, down) = matrix.tolist()
    if right or down:
        return None
    if b == 0 == c and abs(a) == 1 == abs(d):
        return False, [axis for axis, sign in ((-2, d), (-1, a)) if sign < 0]
    if square and a == 0 == d and abs(b) == 1 == abs(c):
        return True, [axis for axis, sign in ((-2, b), (-1, c)) if sign < 0]
    return None


def inverse_positions(grid: Tensor) -> Tensor:
    """Where each pixel of the original is in an image that was read at `grid` (B, h, w, 2).

    Fits an affine map to the grid and corrects what is left by fixed-point iteration, so that it is
    exact for affine maps and close for smooth displacements that do not fold.
    """
    batch, height, width = grid.shape[:3]
    still = torch.eye(2, 3, dtype=grid.dtype, device=grid.device).expand(batch, 2, 3)
    pixels = affine_positions(still, (height, width))
    ones = torch.ones_like(pixels[..., :1])
    design = torch.cat([pixels, ones], dim=-1).reshape(batch, -1, 3)
    # Least squares by the normal equations, which are only 3 × 3.
    affine = torch.linalg.solve(design.mT @ design, design.mT @ grid.reshape(batch, -1, 2))
    back = torch.linalg.inv(affine[:, :2])
    shift = affine[:, 2][:, None, None]
    inverse = ((pixels - shift).flatten(1, 2) @ back).reshape(grid.shape)
    for _ in range(_STEPS):
        reached = grid_sample(
            grid.movedim(-1, 1),
            inverse,
            mode="bilinear",
            padding_mode="border",
            align_corners=False,
        ).movedim(1, -1)
        inverse = inverse + ((pixels - reached).flatten(1, 2) @ back).reshape(grid.shape)
    return inverse
