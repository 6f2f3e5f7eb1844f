"""Tiles: an image larger than the network's is read in overlapping tiles at its own resolution, and
their probabilities are joined with Gaussian weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from segweave.data.case import Case
from segweave.data.inputs import network_slice, normalise, to_case_grid, window_indices
from segweave.data.specs import InputSpec
from segweave.errors import UsageError

_MEMORY = 2**28  # bytes that the slices in progress may take; one slice is always allowed

Planes: TypeAlias = NDArray[np.float32]
RunSlices: TypeAlias = Callable[
    [int, Callable[[int], Planes], Callable[[int], Sequence[int]]], Iterator[Planes]
]
"""(number of slices, slice by index as (channels, h, w), window of the nth slice) → probabilities
(classes, h, w) of each slice."""


@dataclass(frozen=True)
class Tiles:
    """`size` (height, width) of a tile in pixels, that of the InputSpec where None; neighbouring
    tiles share at least the fraction `overlap` of their length. Raises UsageError.
    """

    size: tuple[int, int] | None = None
    overlap: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < 1 or (self.size is not None and min(self.size) < 1):
            raise UsageError(
                "choosing tiles",
                expected="an overlap from 0 to below 1, and sizes from 1",
                found=f"overlap {self.overlap}, size {self.size}",
            )

    def size_for(self, spec: InputSpec) -> tuple[int, int]:
        """The tile's size for a network with this InputSpec."""
        size = self.size or spec.size
        if size is None:
            raise UsageError(
                "choosing tiles",
                expected="a size, as the network takes images of any size",
                found="none",
                remedy="give the size of a tile in Python: Tiles(size=(256, 256))",
            )
        return size


def tile_starts(length: int, tile: int, overlap: float) -> list[int]:
    """First pixels of tiles that cover `length` pixels, evenly spread; `tile` ≤ `length`."""
    step = max(1, math.floor(tile * (1 - overlap)))
    count = math.ceil((length - tile) / step) + 1
    return [round(start) for start in np.linspace(0, length - tile, count)]


def gaussian_weights(size: tuple[int, int]) -> Planes:
    """Weights (height, width) of a tile's pixels: a Gaussian of an eighth of the tile's length,
    because a network sees less of what surrounds a pixel near the tile's edge. All above 0.
    """
    axes = [
        np.exp(-0.5 * ((np.arange(length) - (length - 1) / 2) / (length / 8)) ** 2)
        for length in size
    ]
    # Where one tile alone covers a pixel its weight cancels, whatever it is.
    return np.maximum(np.outer(*axes), 1e-6).astype(np.float32)


def tiled_probabilities(
    case: Case, spec: InputSpec, tiles: Tiles, run: RunSlices
) -> Iterator[Planes]:
    """Probabilities (classes, height, width) of each slice on the case's own grid.

    The image keeps its resolution, or is brought to the InputSpec's pixel size in mm; where it is
    smaller than a tile it is padded. Slices are done in blocks, tile after tile within a block,
    so that memory does not grow with the number of slices, and few slices are encoded twice.
    """
    whole = spec.model_copy(update={"fit": "tile"})
    tile = tiles.size_for(spec)
    numbers = normalise(case, whole)
    first = network_slice(case, 0, whole, numbers)
    size = (int(first.shape[-2]), int(first.shape[-1]))
    canvas = (max(size[0], tile[0]), max(size[1], tile[1]))
    top, left = (canvas[0] - size[0]) // 2, (canvas[1] - size[1]) // 2
    inside = (slice(None), slice(top, top + size[0]), slice(left, left + size[1]))
    weights = gaussian_weights(tile)
    corners = [
        (y, x)
        for y in tile_starts(canvas[0], tile[0], tiles.overlap)
        for x in tile_starts(canvas[1], tile[1], tiles.overlap)
    ]
    total = np.zeros(canvas, np.float32)
    for y, x in corners:
        total[y : y + tile[0], x : x + tile[1]] += weights

    def padded(index: int) -> Planes:
        out = np.empty((first.shape[0], *canvas), np.float32)
        out[:] = np.asarray(numbers.outside, np.float32)[:, None, None]
        out[inside] = network_slice(case, index, whole, numbers)
        return out

    start = 0
    block = 1  # the number of classes is known after the first
    while start < case.slices:
        stop = min(start + block, case.slices)
        # Kept for all tiles of the block: its slices and their neighbours.
        read = lru_cache(maxsize=stop - start + spec.slices)(padded)
        sums = _block(case, spec, range(start, stop), tile, corners, weights, read, run)
        for maps in sums:
            yield to_case_grid((maps / total)[inside], case.size, whole)
        one_slice = 4 * canvas[0] * canvas[1] * (sums[0].shape[0] + first.shape[0])
        start, block = stop, max(1, _MEMORY // one_slice)


def _block(
    case: Case,
    spec: InputSpec,
    indices: range,
    tile: tuple[int, int],
    corners: Sequence[tuple[int, int]],
    weights: Planes,
    read: Callable[[int], Planes],
    run: RunSlices,
) -> list[Planes]:
    """Weighted sums (classes, height, width) of the tiles of each of these slices."""
    sums: list[Planes] = []

    def window(number: int) -> list[int]:
        index = indices.start + number
        return window_indices(case.slices, index, spec.slices, spec.edge, case.gaps)

    for y, x in corners:
        area = (slice(None), slice(y, y + tile[0]), slice(x, x + tile[1]))

        def cut(index: int, area: tuple[slice, ...] = area) -> Planes:
            return np.ascontiguousarray(read(index)[area])

        for number, maps in enumerate(run(len(indices), cut, window)):
            if number == len(sums):
                sums.append(np.zeros((maps.shape[0], *read(indices.start).shape[1:]), np.float32))
            sums[number][area] += maps * weights
    return sums
