"""Counting and searching as loops compiled by numba (extra `fast`); imported only where used."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray


def find_surface(
    labels: NDArray[np.uint8], count: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
    """The three fields of `labels.Surface` for the classes 1..count of a label map, 2D or 3D."""
    volume = np.ascontiguousarray(labels if labels.ndim == 3 else labels[None])
    surface, counts = _mark(volume, count, labels.ndim == 3)
    start = np.zeros(count + 2, np.int64)
    np.cumsum(counts, out=start[1:])
    return surface.reshape(labels.shape), _collect(surface.ravel(), start), start


def search(
    points: NDArray[np.int64],
    classes: NDArray[np.uint8],
    target: NDArray[np.uint8],
    steps: NDArray[np.int64],
    lengths: NDArray[np.float64],
    distances: NDArray[np.float64],
) -> None:
    """Write the length of the first step that meets the point's class in `target` into
    `distances`; points that no step brings there stay as they are. Three axes only.
    """
    margin = np.abs(steps).max(axis=0)
    _search(points, classes, target, steps, lengths, margin, distances)


_compile: Any = numba.njit(nogil=True, cache=True)


@_compile
def search_rows(
    points: Any,
    start: Any,
    targets: Any,
    target_start: Any,
    width: int,
    row_step: float,
    column_step: float,
    distances: Any,
) -> None:
    """Write the distance of each point of an image to the nearest target of its class; points and
    targets are flat indices, ascending within a class, whose ends `start` and `target_start` hold.

    Targets are in the order of their rows: from the index of the point on, both ways, only those in
    rows nearer than the best so far are looked at.
    """
    for c in range(1, start.size - 1):
        low, high = target_start[c], target_start[c + 1]
        if low == high:
            continue
        index = low
        for i in range(start[c], start[c + 1]):
            p = points[i]
            y, x = divmod(p, width)
            while index < high and targets[index] < p:
                index += 1
            best = np.inf
            # The neighbours in reading order first, so that a whole side is rarely walked through.
            for j in (index, index - 1):
                if low <= j < high:
                    down, across = divmod(targets[j], width)
                    dy, dx = (down - y) * row_step, (across - x) * column_step
                    best = min(best, dy * dy + dx * dx)
            for way in (-1, 1):
                j = index - 2 if way < 0 else index + 1
                while low <= j < high:
                    down, across = divmod(targets[j], width)
                    dy, dx = (down - y) * row_step, (across - x) * column_step
                    if dy * dy >= best:
                        break
                    best = min(best, dy * dy + dx * dx)
                    j += way
            distances[i] = np.sqrt(best)


@_compile
def count_pairs(ours: Any, theirs: Any, size: int) -> Any:
    """How often each pair of classes (theirs, ours) meets in two flat label maps of ids below
    `size`; two voxels of background are not counted.
    """
    table = np.zeros((size, size), np.int64)
    whole = ours.size // 8 * 8
    eight, other = ours[:whole].view(np.uint64), theirs[:whole].view(np.uint64)
    for first in range(0, ours.size, 8):
        if first < whole and eight[first // 8] == 0 and other[first // 8] == 0:
            continue
        for i in range(first, min(first + 8, ours.size)):
            if ours[i] != 0 or theirs[i] != 0:
                table[theirs[i], ours[i]] += 1
    return table


@_compile
def _mark(labels: Any, count: int, deep: bool) -> Any:
    depth, height, width = labels.shape
    surface = np.zeros(labels.shape, np.uint8)
    counts = np.zeros(count + 1, np.int64)
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                c = labels[z, y, x]
                if c == 0:
                    continue
                edge = y == 0 or x == 0 or y == height - 1 or x == width - 1
                edge = edge or (deep and (z == 0 or z == depth - 1))
                if (
                    edge
                    or labels[z, y - 1, x] != c
                    or labels[z, y + 1, x] != c
                    or labels[z, y, x - 1] != c
                    or labels[z, y, x + 1] != c
                    or (deep and (labels[z - 1, y, x] != c or labels[z + 1, y, x] != c))
                ):
                    surface[z, y, x] = c
                    counts[c] += 1
    return surface, counts


@_compile
def _collect(surface: Any, start: Any) -> Any:
    position = start[:-1].copy()
    points = np.empty(start[-1], np.int64)
    whole = surface.size // 8 * 8
    eight = surface[:whole].view(np.uint64)
    for first in range(0, surface.size, 8):
        if first < whole and eight[first // 8] == 0:
            continue
        for i in range(first, min(first + 8, surface.size)):
            c = surface[i]
            if c != 0:
                points[position[c]] = i
                position[c] += 1
    return points


@_compile
def _search(
    points: Any, classes: Any, target: Any, steps: Any, lengths: Any, margin: Any, distances: Any
) -> None:
    depth, height, width = target.shape
    flat = target.ravel()
    jumps = (steps[:, 0] * height + steps[:, 1]) * width + steps[:, 2]
    for i in range(points.size):
        p, c = points[i], classes[i]
        z, rest = divmod(p, height * width)
        y, x = divmod(rest, width)
        inside = (
            margin[0] <= z < depth - margin[0]
            and margin[1] <= y < height - margin[1]
            and margin[2] <= x < width - margin[2]
        )
        if inside:
            for k in range(jumps.size):
                if flat[p + jumps[k]] == c:
                    distances[i] = lengths[k]
                    break
        else:
            for k in range(jumps.size):
                zz, yy, xx = z + steps[k, 0], y + steps[k, 1], x + steps[k, 2]
                if (
                    0 <= zz < depth
                    and 0 <= yy < height
                    and 0 <= xx < width
                    and flat[p + jumps[k]] == c
                ):
                    distances[i] = lengths[k]
                    break
