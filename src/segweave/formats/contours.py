"""Polygons along the edges of a mask's pixels, holes joined to their outline by keyholes."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

Corner = tuple[int, int]
_STEPS = ((0, 1), (1, 0), (0, -1), (-1, 0))
"""Right, down, left, up: with the mask on the right hand, one step along the side of a pixel."""


def outlines(mask: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
    """The outline of every object of a mask (rows, columns), objects that touch at a corner apart.

    Returns polygons of shape (points, 2), (row, column) of corners of pixels: pixel (0, 0) reaches
    from corner (0, 0) to (1, 1). A hole is joined to its outline by a keyhole: a line to the hole
    and back on itself. So every polygon is one closed line, and a pixel is in the mask where its
    centre is inside one of the polygons, whether lines or turns around it are counted.
    """
    loops = _loops(mask)
    outside = [k for k, loop in enumerate(loops) if _area(loop) > 0]
    holes = sorted((min(loop), k) for k, loop in enumerate(loops) if _area(loop) <= 0)
    at = {corner: k for k, loop in enumerate(loops) for corner in loop}
    polygons = {k: list(loops[k]) for k in outside}
    owner = {k: k for k in outside}
    for (row, column), hole in holes:
        # Left of the first corner of a hole is mask, then the outline or a hole above: the order
        # of the holes makes sure that this one is joined already.
        end = column - 1
        while (row, end) not in at:
            end -= 1
        owner[hole] = owner[at[row, end]]
        polygon = polygons[owner[hole]]
        start = polygon.index((row, end))
        loop = loops[hole]
        first = loop.index((row, column))
        there = [(row, k) for k in range(end, column)]
        around = [*loop[first:], *loop[: first + 1]]
        polygon[start : start + 1] = [*there, *around, *reversed(there)]
    return [_corners(polygon) for polygon in polygons.values()]


def _loops(mask: NDArray[np.bool_]) -> list[list[Corner]]:
    """The closed lines of sides between mask and background, with all corners on their way."""
    inside = np.pad(np.asarray(mask, bool), 1)
    middle = inside[1:-1, 1:-1]
    beside = (inside[:-2, 1:-1], inside[1:-1, 2:], inside[2:, 1:-1], inside[1:-1, :-2])
    # The side of a pixel towards each neighbour begins at this corner of it.
    begins = ((0, 0), (0, 1), (1, 1), (1, 0))
    ways: dict[Corner, list[int]] = defaultdict(list)
    for way, (other, begin) in enumerate(zip(beside, begins, strict=True)):
        for row, column in (np.argwhere(middle & ~other) + begin).tolist():
            ways[row, column].append(way)
    loops: list[list[Corner]] = []
    done: set[tuple[Corner, int]] = set()
    for start in sorted(ways):
        for first in ways[start]:
            side, loop = (start, first), []
            while side not in done:
                done.add(side)
                corner, way = side
                loop.append(corner)
                corner = corner[0] + _STEPS[way][0], corner[1] + _STEPS[way][1]
                # Where two pixels touch at a corner, stay at the same pixel: turn right.
                right = (way + 1) % 4
                side = corner, right if right in ways[corner] else ways[corner][0]
            if loop:
                loops.append(loop)
    return loops


def _area(loop: list[Corner]) -> float:
    """Twice the area, positive where the mask is inside the line."""
    rows, columns = np.array(loop, np.int64).T
    return float((columns * np.roll(rows, -1) - np.roll(columns, -1) * rows).sum())


def _corners(polygon: list[Corner]) -> NDArray[np.int64]:
    """The polygon without the points at which it goes straight on."""
    points = np.array(polygon, np.int64)
    before = points - np.roll(points, 1, axis=0)
    after = np.roll(points, -1, axis=0) - points
    return points[(before != after).any(axis=1)]
