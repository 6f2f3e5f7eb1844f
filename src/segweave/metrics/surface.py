"""Distances between surfaces: one pass gives Hausdorff, HD95, average and normalised surface
distances of all classes.

Surface voxels are those that one erosion with the cross (4 neighbours in 2D, 6 in 3D) takes away;
beyond the array's edge is background, so that voxels at the edge are surface.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from segweave.errors import UsageError, nearest
from segweave.metrics.labels import (
    Engine,
    Spacing,
    Surface,
    check_classes,
    check_pair,
    find_surface,
    foreground_box,
    nearest_distances,
    numbered,
)
from segweave.registry import MetricCard

CARDS = (
    MetricCard(
        name="hd",
        title="Hausdorff distance",
        entry="hausdorff",
        spacing=True,
        unit="mm",
        better="lower",
        label="HD",
        shared="surface_distances",
        value="hausdorff",
    ),
    MetricCard(
        name="hd95",
        title="95 % Hausdorff distance, the larger of the two directed percentiles",
        entry="hausdorff95",
        spacing=True,
        unit="mm",
        better="lower",
        label="HD95",
        options={"percentile": "max"},
        shared="surface_distances",
        value="hausdorff95",
    ),
    MetricCard(
        name="hd95-pooled",
        title="95 % Hausdorff distance, one percentile of both directions together",
        entry="hausdorff95",
        spacing=True,
        unit="mm",
        better="lower",
        label="HD95 pooled",
        options={"percentile": "pooled"},
        shared="surface_distances",
        value="hausdorff95",
    ),
    MetricCard(
        name="asd",
        title="Average surface distance, prediction to reference",
        entry="average_surface_distance",
        spacing=True,
        unit="mm",
        better="lower",
        label="ASD",
        options={"direction": "to-reference"},
        shared="surface_distances",
        value="average",
    ),
    MetricCard(
        name="asd-reverse",
        title="Average surface distance, reference to prediction",
        entry="average_surface_distance",
        spacing=True,
        unit="mm",
        better="lower",
        label="ASD reverse",
        options={"direction": "to-prediction"},
        shared="surface_distances",
        value="average",
    ),
    MetricCard(
        name="assd",
        title="Average symmetric surface distance, all surface voxels together",
        entry="average_symmetric_surface_distance",
        spacing=True,
        unit="mm",
        better="lower",
        label="ASSD",
        shared="surface_distances",
        value="average_symmetric",
    ),
    MetricCard(
        name="nsd",
        title="Normalised surface distance: share of surface voxels within a tolerance",
        entry="normalised_surface_distance",
        spacing=True,
        label="NSD",
        options={"tolerance": 2.0},
        shared="surface_distances",
        value="normalised",
    ),
)

Percentile = Literal["max", "pooled"]
Direction = Literal["to-reference", "to-prediction"]


@dataclass(frozen=True, eq=False)
class SurfaceDistances:
    """Of one class: for each surface voxel the distance to the other map's nearest surface voxel.

    `to_reference` runs over the prediction's surface, `to_prediction` over the reference's; the
    unit is that of the spacing (mm), or pixels. Where one map lacks the class, the other's
    distances are infinite and every distance below is nan.
    """

    to_reference: NDArray[np.float64]
    to_prediction: NDArray[np.float64]

    @property
    def defined(self) -> bool:
        """Whether both maps hold the class."""
        return self.to_reference.size > 0 and self.to_prediction.size > 0

    def hausdorff(self) -> float:
        """The largest distance of all."""
        if not self.defined:
            return math.nan
        return float(max(self.to_reference.max(), self.to_prediction.max()))

    def hausdorff95(self, percentile: Percentile = "max") -> float:
        """95th percentile (linear between ranks): "max" takes the larger of the two directed ones,
        "pooled" (medpy) one of both directions together.
        """
        if percentile not in ("max", "pooled"):
            raise UsageError(
                "choosing the percentile of HD95",
                found=repr(percentile),
                remedy=nearest(str(percentile), ("max", "pooled")),
            )
        if not self.defined:
            return math.nan
        if percentile == "pooled":
            return float(np.percentile(np.concatenate(self._both), 95))
        return float(max(np.percentile(side, 95) for side in self._both))

    def average(self, direction: Direction = "to-reference") -> float:
        """Average surface distance (ASD) in one direction."""
        sides = {"to-reference": self.to_reference, "to-prediction": self.to_prediction}
        if direction not in sides:
            raise UsageError(
                "choosing the direction of ASD",
                found=repr(direction),
                remedy=nearest(str(direction), sides),
            )
        return float(sides[direction].mean()) if self.defined else math.nan

    def average_symmetric(self) -> float:
        """Average symmetric surface distance (ASSD): the mean over all surface voxels of both."""
        if not self.defined:
            return math.nan
        count = self.to_reference.size + self.to_prediction.size
        return float((self.to_reference.sum() + self.to_prediction.sum()) / count)

    def normalised(self, tolerance: float) -> float:
        """Normalised surface distance: share of all surface voxels at most `tolerance` away; 0
        where one map lacks the class, nan where both do.
        """
        count = self.to_reference.size + self.to_prediction.size
        near = sum(int(np.count_nonzero(within(side, tolerance))) for side in self._both)
        return near / count if count else math.nan

    @property
    def _both(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return self.to_reference, self.to_prediction


def within(distances: NDArray[np.float64], tolerance: float) -> NDArray[np.bool_]:
    """Where distances are at most `tolerance`; rounding decides no tie (3 × 0.8 mm is not more than
    2.4 mm, though its double is).
    """
    return distances <= tolerance * (1 + 1e-9)


def surface_distances(
    prediction: NDArray[Any],
    reference: NDArray[Any],
    spacing: Spacing,
    classes: Sequence[int],
    *,
    engine: Engine = "auto",
) -> dict[int, SurfaceDistances]:
    """Exact surface distances of all `classes` (ids ≥ 1) of two label maps of one shape, (height,
    width) or (slices, height, width).

    Args:
        prediction: class ids.
        reference: class ids, of the same shape.
        spacing: mm per axis; None means pixels.
        classes: the ids to measure.
        engine: "numpy" works with NumPy and SciPy alone, "compiled" needs the extra `fast`, "auto"
            takes the compiled one where it is installed and worth its start. The values are equal.

    Raises InputError for wrong arrays and UsageError for a wrong spacing.
    """
    check_pair(prediction, reference)
    ids = check_classes(classes)
    steps = checked_spacing(spacing, prediction.ndim)
    box = foreground_box(prediction, reference)
    empty = np.empty(0)
    if box is None:
        return {c: SurfaceDistances(empty, empty) for c in ids}
    ours = find_surface(numbered(prediction[box], ids), len(ids), engine)
    theirs = find_surface(numbered(reference[box], ids), len(ids), engine)
    forward = nearest_distances(ours, theirs, steps, engine)
    backward = nearest_distances(theirs, ours, steps, engine)
    return {
        c: SurfaceDistances(_part(forward, ours, k), _part(backward, theirs, k))
        for k, c in enumerate(ids, start=1)
    }


def _part(distances: NDArray[np.float64], surface: Surface, number: int) -> NDArray[np.float64]:
    return distances[surface.start[number] : surface.start[number + 1]]


def checked_spacing(spacing: Spacing, axes: int) -> tuple[float, ...]:
    """`spacing` as a tuple, ones where it is None; UsageError unless it has `axes` positive
    numbers.
    """
    if spacing is None:
        return (1.0,) * axes
    steps = tuple(float(s) for s in spacing)
    if len(steps) != axes or not all(math.isfinite(s) and s > 0 for s in steps):
        raise UsageError(
            "measuring surface distances",
            expected=f"a spacing of {axes} positive numbers in mm, or None for pixels",
            found=str(tuple(spacing)),
        )
    return steps


def hausdorff(prediction: NDArray[Any], reference: NDArray[Any], spacing: Spacing) -> float:
    """Hausdorff distance of two masks in mm (pixels where `spacing` is None)."""
    return _of_masks(prediction, reference, spacing).hausdorff()


def hausdorff95(
    prediction: NDArray[Any],
    reference: NDArray[Any],
    spacing: Spacing,
    percentile: Percentile = "max",
) -> float:
    """95 % Hausdorff distance of two masks; see `SurfaceDistances.hausdorff95`."""
    return _of_masks(prediction, reference, spacing).hausdorff95(percentile)


def average_surface_distance(
    prediction: NDArray[Any],
    reference: NDArray[Any],
    spacing: Spacing,
    direction: Direction = "to-reference",
) -> float:
    """Average surface distance of two masks in one direction."""
    return _of_masks(prediction, reference, spacing).average(direction)


def average_symmetric_surface_distance(
    prediction: NDArray[Any], reference: NDArray[Any], spacing: Spacing
) -> float:
    """Average symmetric surface distance of two masks."""
    return _of_masks(prediction, reference, spacing).average_symmetric()


def normalised_surface_distance(
    prediction: NDArray[Any], reference: NDArray[Any], spacing: Spacing, tolerance: float = 2.0
) -> float:
    """Share of surface voxels of two masks at most `tolerance` (mm, or pixels) apart."""
    return _of_masks(prediction, reference, spacing).normalised(tolerance)


def _of_masks(
    prediction: NDArray[Any], reference: NDArray[Any], spacing: Spacing
) -> SurfaceDistances:
    check_pair(prediction, reference)
    return surface_distances(prediction != 0, reference != 0, spacing, (1,))[1]
