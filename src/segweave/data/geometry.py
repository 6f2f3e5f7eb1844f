"""Turns a file's voxel axes into a case's (slice, row, column) by their anatomical direction."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from segweave.data.case import SourceGrid

LEFT, POSTERIOR, SUPERIOR = 0, 1, 2
_RAS_TO_LPS = np.array([-1.0, -1.0, 1.0])
_TIE = 1e-3
"""Spacings closer than this share count as equal: headers hold them in float32."""


def spacing_of(affine: NDArray[Any]) -> tuple[float, float, float]:
    """Millimetres between neighbours along each voxel axis of a 4×4 affine."""
    steps = np.linalg.norm(np.asarray(affine, dtype=np.float64)[:3, :3], axis=0)
    return float(steps[0]), float(steps[1]), float(steps[2])


def with_spacing(affine: NDArray[Any], spacing: tuple[float, ...]) -> NDArray[np.float64]:
    """The affine with the same directions and origin, and steps of `spacing` mm."""
    rebuilt = np.array(affine, dtype=np.float64)
    rebuilt[:3, :3] *= np.asarray(spacing) / np.linalg.norm(rebuilt[:3, :3], axis=0)
    return rebuilt


def _slice_axis(spacing: NDArray[Any], directions: NDArray[Any], shape: tuple[int, ...]) -> int:
    """The axis of largest spacing; in a tie the one nearest to superior.

    An only axis of length one is the slice axis whatever its spacing: the file holds one image.
    """
    single = [axis for axis in range(3) if shape[axis] == 1]
    if len(single) == 1:
        return single[0]

    def preference(axis: int) -> tuple[float, ...]:
        # Products of components don't change with the sign of an axis: a last tie (45°) is decided
        # by the direction of the axis in the patient, never by its index in the file.
        left, posterior, superior = directions[:, axis]
        keys = (abs(superior), abs(posterior), posterior * superior, left * superior)
        return tuple(round(float(key), 3) for key in (*keys, left * posterior))

    longest = spacing.max()
    tied = [axis for axis in range(3) if spacing[axis] >= longest * (1 - _TIE)]
    return max(tied, key=preference)


def source_grid(affine: NDArray[Any], shape: tuple[int, ...]) -> SourceGrid:
    """How a file with this `affine` (voxel → RAS+ mm) and spatial `shape` becomes a case.

    The slice axis is the one of largest spacing, in a tie the nearest to superior. Columns are the
    in-plane axis nearest to left; where the slices themselves are stacked from side to side, the
    one nearest to posterior. Axes run to left, posterior and superior; only rows along superior
    run to inferior, so that the head is up.
    """
    matrix = np.asarray(affine, dtype=np.float64)[:3, :3]
    spacing = np.linalg.norm(matrix, axis=0)
    directions = _RAS_TO_LPS[:, None] * matrix / spacing
    slice_axis = _slice_axis(spacing, directions, shape)
    across = np.round(np.abs(directions[:, slice_axis]), 3)
    slice_way = max((SUPERIOR, POSTERIOR, LEFT), key=lambda way: across[way])
    column_way = POSTERIOR if slice_way == LEFT else LEFT
    row_way = 3 - slice_way - column_way

    def nearness(axis: int) -> tuple[float, float]:
        along, beside = directions[column_way, axis], directions[row_way, axis]
        return round(abs(float(along)), 3), round(float(along * beside), 3)

    column_axis = max((axis for axis in range(3) if axis != slice_axis), key=nearness)
    row_axis = 3 - slice_axis - column_axis
    row_sign = -1.0 if row_way == SUPERIOR else 1.0
    return SourceGrid(
        axes=(slice_axis, row_axis, column_axis),
        flips=(
            bool(directions[slice_way, slice_axis] < 0),
            bool(row_sign * directions[row_way, row_axis] < 0),
            bool(directions[column_way, column_axis] < 0),
        ),
        shape=(int(shape[0]), int(shape[1]), int(shape[2])),
    )


def case_affine(affine: NDArray[Any], grid: SourceGrid) -> NDArray[np.float64]:
    """The affine of the case's axes: (slice, row, column, 1) → RAS+ mm, 4×4."""
    turn = np.zeros((4, 4))
    turn[3, 3] = 1.0
    for case_axis, (axis, flip) in enumerate(zip(grid.axes, grid.flips, strict=True)):
        turn[axis, case_axis] = -1.0 if flip else 1.0
        turn[axis, 3] = grid.shape[axis] - 1 if flip else 0.0
    return np.asarray(affine, dtype=np.float64) @ turn


def farthest_apart(first: NDArray[Any], second: NDArray[Any], shape: tuple[int, ...]) -> float:
    """Largest distance in mm between where two affines put the same corner voxel of `shape`."""
    corners = np.array([[*np.ravel(corner), 1.0] for corner in np.ndindex(2, 2, 2)])
    corners[:, :3] *= np.asarray(shape, dtype=np.float64) - 1
    offset = (np.asarray(first) - np.asarray(second)) @ corners.T
    return float(np.linalg.norm(offset[:3], axis=0).max())
