"""Surface distances whose surface elements weigh their area (Nikolov et al., 2018), so that voxels
of unequal sides count by what they are on the surface.

A surface element is a block of 2 × 2 (× 2) neighbouring voxels that are not all equal; its area is
that of the surface between them.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segweave.metrics.labels import (
    Engine,
    Spacing,
    Surface,
    check_classes,
    check_pair,
    foreground_box,
    nearest_distances,
)
from segweave.metrics.surface import checked_spacing, within
from segweave.registry import MetricCard

CARDS = (
    MetricCard(
        name="hd95-area",
        title="95 % Hausdorff distance, surface elements weighted by area",
        entry="area_hausdorff95",
        spacing=True,
        unit="mm",
        better="lower",
        label="HD95 by area",
        shared="area_distances",
        value="hausdorff95",
        paper="Nikolov et al., arXiv 1809.04430",
    ),
    MetricCard(
        name="nsd-area",
        title="Normalised surface distance (surface Dice), surface elements weighted by area",
        entry="area_normalised_surface_distance",
        spacing=True,
        label="NSD by area",
        options={"tolerance": 2.0},
        shared="area_distances",
        value="normalised",
        paper="Nikolov et al., arXiv 1809.04430",
    ),
)

Corner = tuple[int, ...]
Edge = tuple[Corner, Corner]


@dataclass(frozen=True, eq=False)
class AreaDistances:
    """Of one class: distances (ascending) of each map's surface elements to the nearest of the
    other map, and their areas. Where a side lacks the class, distances are infinite and every
    number but `normalised` is nan.
    """

    to_reference: NDArray[np.float64]
    prediction_areas: NDArray[np.float64]
    to_prediction: NDArray[np.float64]
    reference_areas: NDArray[np.float64]

    @property
    def defined(self) -> bool:
        """Whether both maps hold the class."""
        return self.to_reference.size > 0 and self.to_prediction.size > 0

    def hausdorff(self, percent: float = 100) -> float:
        """The larger of the two distances within which `percent` of the area is."""
        if not self.defined:
            return math.nan
        largest = []
        for distances, areas in self._sides:
            share = np.cumsum(areas) / areas.sum()
            index = int(np.searchsorted(share, percent / 100))
            largest.append(float(distances[min(index, distances.size - 1)]))
        return max(largest)

    def hausdorff95(self) -> float:
        """The larger of the two distances within which 95 % of the area is."""
        return self.hausdorff(95)

    def averages(self) -> tuple[float, float]:
        """Mean distance by area, (prediction to reference, reference to prediction)."""
        if not self.defined:
            return math.nan, math.nan
        ours, theirs = (float((d * a).sum() / a.sum()) for d, a in self._sides)
        return ours, theirs

    def normalised(self, tolerance: float) -> float:
        """Share of the area of both surfaces at most `tolerance` away; nan where both are empty."""
        total = sum(float(areas.sum()) for _, areas in self._sides)
        near = sum(float(areas[within(d, tolerance)].sum()) for d, areas in self._sides)
        return near / total if total else math.nan

    @property
    def _sides(self) -> tuple[tuple[NDArray[np.float64], NDArray[np.float64]], ...]:
        return (
            (self.to_reference, self.prediction_areas),
            (self.to_prediction, self.reference_areas),
        )


def area_distances(
    prediction: NDArray[Any],
    reference: NDArray[Any],
    spacing: Spacing,
    classes: Sequence[int],
    *,
    engine: Engine = "auto",
) -> dict[int, AreaDistances]:
    """Distances by area of all `classes` of two label maps of one shape, 2D or 3D. Arguments and
    errors are those of `surface_distances`.
    """
    check_pair(prediction, reference)
    ids = check_classes(classes)
    steps = checked_spacing(spacing, prediction.ndim)
    areas = element_areas(steps)
    by_class = {}
    for c in ids:
        masks = (prediction == c, reference == c)
        box = foreground_box(*masks)
        sides = [_elements(mask[box] if box is not None else mask[:0]) for mask in masks]
        results = []
        for (of, codes), (to, _) in (sides, sides[::-1]):
            distances = nearest_distances(of, to, steps, engine)
            order = np.argsort(distances, kind="stable")
            results += [distances[order], areas[codes][order]]
        by_class[c] = AreaDistances(*results)
    return by_class


def area_hausdorff95(prediction: NDArray[Any], reference: NDArray[Any], spacing: Spacing) -> float:
    """95 % Hausdorff distance of two masks by area, in mm (pixels where `spacing` is None)."""
    return _of_masks(prediction, reference, spacing).hausdorff95()


def area_normalised_surface_distance(
    prediction: NDArray[Any], reference: NDArray[Any], spacing: Spacing, tolerance: float = 2.0
) -> float:
    """Share of the surfaces' area of two masks at most `tolerance` (mm, or pixels) apart."""
    return _of_masks(prediction, reference, spacing).normalised(tolerance)


@functools.lru_cache(maxsize=64)
def element_areas(spacing: tuple[float, ...]) -> NDArray[np.float64]:
    """Area (3D) or length (2D) of the surface element of every code, codes as in `_elements`.

    Each group of inner corners that are connected along edges is cut off halfway along the edges
    that leave it (the outer ones, where they are fewer). The cut, a closed line through points that
    need not be in one plane, is filled with those triangles that at equal sides have most area.
    """
    corners = list(itertools.product((0, 1), repeat=len(spacing)))
    table = np.zeros(2 ** len(corners))
    scale = np.asarray(spacing)
    for code in range(1, len(table) - 1):
        inside = {corner for k, corner in enumerate(corners) if code >> k & 1}
        if 2 * len(inside) > len(corners):
            inside = set(corners) - inside
        segments = list(_segments(corners, inside))
        if len(spacing) == 2:
            table[code] = sum(
                float(np.linalg.norm((_middle(a) - _middle(b)) * scale)) for a, b in segments
            )
            continue
        for loop in _loops(segments):
            points = np.array([_middle(edge) for edge in loop])
            filling = max(_fillings(0, len(loop) - 1), key=lambda t: _area(points, t))
            table[code] += _area(points * scale, filling)
    return table


def _elements(mask: NDArray[np.bool_]) -> tuple[Surface, NDArray[np.uint8]]:
    """The surface elements of a mask on the grid of voxel corners, and their codes: bit k is set
    where corner k (of `product((0, 1), ...)`) is inside.
    """
    padded = np.pad(mask, 1).astype(np.uint8)
    shape = tuple(n - 1 for n in padded.shape)
    codes = np.zeros(shape, np.uint8)
    corners = itertools.product((0, 1), repeat=mask.ndim)
    for k, corner in enumerate(corners):
        window = tuple(slice(c, c + n) for c, n in zip(corner, shape, strict=True))
        codes |= padded[window] << np.uint8(k)
    full = 2 ** (2**mask.ndim) - 1
    surface = ((codes != 0) & (codes != full)).view(np.uint8)
    points = np.flatnonzero(surface)
    return Surface(surface, points, np.array([0, 0, points.size])), codes.ravel()[points]


def _segments(corners: list[Corner], inside: set[Corner]) -> Iterator[tuple[Edge, Edge]]:
    """Where the cut crosses the faces of the cell: pairs of edges that it joins there."""
    axes = range(len(corners[0]))
    faces = (
        [corners]
        if len(axes) == 2
        else [[c for c in corners if c[axis] == side] for axis in axes for side in (0, 1)]
    )
    for face in faces:
        crossed = [
            edge
            for edge in itertools.combinations(face, 2)
            if sum(a != b for a, b in zip(*edge, strict=True)) == 1
            and (edge[0] in inside) != (edge[1] in inside)
        ]
        if len(crossed) == 2:
            yield crossed[0], crossed[1]
        elif len(crossed) == 4:
            # Two opposite corners inside: each is cut off by itself.
            for corner in inside.intersection(face):
                first, second = (edge for edge in crossed if corner in edge)
                yield first, second


def _loops(segments: list[tuple[Edge, Edge]]) -> Iterator[list[Edge]]:
    """The closed lines that segments form."""
    joined: dict[Edge, list[Edge]] = {}
    for a, b in segments:
        joined.setdefault(a, []).append(b)
        joined.setdefault(b, []).append(a)
    while joined:
        loop = [next(iter(joined))]
        while following := [edge for edge in joined.pop(loop[-1]) if edge in joined]:
            loop.append(following[0])
        yield loop


def _fillings(first: int, last: int) -> Iterator[tuple[tuple[int, int, int], ...]]:
    """Every way of filling the polygon of points first..last with triangles."""
    if last - first < 2:
        yield ()
    for middle in range(first + 1, last):
        for left in _fillings(first, middle):
            for right in _fillings(middle, last):
                yield (*left, *right, (first, middle, last))


def _area(points: NDArray[np.float64], triangles: tuple[tuple[int, int, int], ...]) -> float:
    a, b, c = (points[[triangle[k] for triangle in triangles]] for k in range(3))
    return float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum()) / 2


def _middle(edge: Edge) -> NDArray[np.float64]:
    return (np.array(edge[0]) + np.array(edge[1])) / 2


def _of_masks(prediction: NDArray[Any], reference: NDArray[Any], spacing: Spacing) -> AreaDistances:
    check_pair(prediction, reference)
    return area_distances(prediction != 0, reference != 0, spacing, (1,))[1]
