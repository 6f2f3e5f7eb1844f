"""Scores of single objects (glands): object Dice, object F1 and object Hausdorff distance of two
instance maps, as the GlaS challenge defines them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from segweave.metrics.labels import Spacing, check_pair
from segweave.metrics.surface import checked_spacing
from segweave.registry import MetricCard

CARDS = (
    MetricCard(
        name="object-dice",
        title="Object Dice: each object against the one that it shares most with, by area",
        entry="object_dice",
        reads="instances",
        paper="Sirinukunwattana et al., Medical Image Analysis 35, 2017",
    ),
    MetricCard(
        name="object-f1",
        title="Object F1: an object is found where more than half of it is covered",
        entry="object_f1",
        reads="instances",
        paper="Sirinukunwattana et al., Medical Image Analysis 35, 2017",
    ),
    MetricCard(
        name="object-hd",
        title="Object Hausdorff distance of all pixels of matched objects, weighted by area",
        entry="object_hausdorff",
        reads="instances",
        spacing=True,
        label="object HD",
        unit="mm",
        better="lower",
        paper="Sirinukunwattana et al., Medical Image Analysis 35, 2017",
    ),
)

Box = tuple[slice, ...]


@dataclass(frozen=True)
class ObjectScores:
    """Sums over the objects of one image; `+` gives those of several images together.

    The areas are in pixels; the `…_sum` of Dice and distance are weighted by the objects' areas.
    """

    predicted: int = 0
    present: int = 0
    found: int = 0
    predicted_area: int = 0
    present_area: int = 0
    predicted_dice_sum: float = 0.0
    present_dice_sum: float = 0.0
    predicted_distance_sum: float = 0.0
    present_distance_sum: float = 0.0

    def __add__(self, other: ObjectScores) -> ObjectScores:
        return ObjectScores(
            *(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__)
        )

    @property
    def dice(self) -> float:
        """Object Dice, 0..1: nan where there is no object at all, 0 where one side has none."""
        return self._both_sides(self.predicted_dice_sum, self.present_dice_sum, missing=0.0)

    @property
    def hausdorff(self) -> float:
        """Object Hausdorff distance; nan where a side has no object."""
        return self._both_sides(
            self.predicted_distance_sum, self.present_distance_sum, missing=math.nan
        )

    @property
    def precision(self) -> float:
        """Share of the predicted objects that find one; nan where there is none."""
        return self.found / self.predicted if self.predicted else math.nan

    @property
    def recall(self) -> float:
        """Share of the reference's objects that are found; nan where there is none."""
        return self.found / self.present if self.present else math.nan

    @property
    def f1(self) -> float:
        """2·found / (predicted + present): nan where there is no object at all."""
        whole = self.predicted + self.present
        return 2 * self.found / whole if whole else math.nan

    def _both_sides(self, ours: float, theirs: float, *, missing: float) -> float:
        if not self.predicted and not self.present:
            return math.nan
        if not self.predicted or not self.present:
            return missing
        return (ours / self.predicted_area + theirs / self.present_area) / 2


def connected_objects(mask: NDArray[Any]) -> NDArray[np.int32]:
    """A mask → its connected parts as 1, 2, ...; pixels that touch at a corner are connected."""
    objects = np.empty(mask.shape, np.int32)
    ndimage.label(mask, structure=np.ones((3,) * mask.ndim), output=objects)
    return objects


def object_scores(
    prediction: NDArray[Any],
    reference: NDArray[Any],
    spacing: Spacing,
    *,
    distances: bool = True,
) -> ObjectScores:
    """Scores of two instance maps of one shape, 2D or 3D: 0 is background, every other id an
    object, in one part or several.

    Each object is matched with the object of the other map that it shares most pixels with (of
    equal ones the lowest id). Where it shares none, its Dice is 0, and its distance is the smallest
    Hausdorff distance to any object of the other map. A predicted object finds the one that it is
    matched with where it covers more than half of it.

    Args:
        prediction: ids of predicted objects.
        reference: ids of true objects, of the same shape.
        spacing: mm per axis; None means pixels.
        distances: whether distances are measured; else their sums stay 0.

    Raises InputError for wrong arrays, UsageError for a wrong spacing.
    """
    check_pair(prediction, reference)
    steps = checked_spacing(spacing, prediction.ndim)
    ours, theirs = _numbered(prediction), _numbered(reference)
    counts = (int(ours.max(initial=0)), int(theirs.max(initial=0)))
    codes = ours.astype(np.int64) * (counts[1] + 1) + theirs
    table = np.bincount(codes.ravel(), minlength=(counts[0] + 1) * (counts[1] + 1))
    shared = table.reshape(counts[0] + 1, counts[1] + 1)
    areas = (shared.sum(axis=1)[1:], shared.sum(axis=0)[1:])
    inner = shared[1:, 1:]
    if 0 in counts:
        return ObjectScores(
            *counts, 0, predicted_area=int(areas[0].sum()), present_area=int(areas[1].sum())
        )
    match = inner.argmax(axis=1)
    overlap = inner[np.arange(counts[0]), match]
    dice = (
        _dice_sum(inner, areas[0], areas[1]),
        _dice_sum(inner.T, areas[1], areas[0]),
    )
    apart = (0.0, 0.0)
    if distances:
        measure = _Hausdorff(ours, theirs, steps)
        apart = (
            measure.weighted(inner, areas[0], swapped=False),
            measure.weighted(inner.T, areas[1], swapped=True),
        )
    return ObjectScores(
        *counts,
        found=int(np.count_nonzero(overlap > areas[1][match] / 2)),
        predicted_area=int(areas[0].sum()),
        present_area=int(areas[1].sum()),
        predicted_dice_sum=dice[0],
        present_dice_sum=dice[1],
        predicted_distance_sum=apart[0],
        present_distance_sum=apart[1],
    )


def object_dice(prediction: NDArray[Any], reference: NDArray[Any]) -> float:
    """Object Dice of two instance maps; see `object_scores`."""
    return object_scores(prediction, reference, None, distances=False).dice


def object_f1(prediction: NDArray[Any], reference: NDArray[Any]) -> float:
    """Object F1 of two instance maps; see `object_scores`."""
    return object_scores(prediction, reference, None, distances=False).f1


def object_hausdorff(prediction: NDArray[Any], reference: NDArray[Any], spacing: Spacing) -> float:
    """Object Hausdorff distance of two instance maps in mm (pixels where `spacing` is None)."""
    return object_scores(prediction, reference, spacing).hausdorff


def _numbered(instances: NDArray[Any]) -> NDArray[np.int32]:
    """Ids as 0, 1, 2, ... without gaps, in their order."""
    ids = np.unique(instances)
    ids = ids[ids != 0]
    numbers = np.searchsorted(ids, instances) + 1
    return np.where(instances != 0, numbers, 0).astype(np.int32)


def _dice_sum(
    shared: NDArray[np.int64], areas: NDArray[np.int64], others: NDArray[np.int64]
) -> float:
    match = shared.argmax(axis=1)
    overlap = shared[np.arange(len(areas)), match]
    return float((areas * 2 * overlap / (areas + others[match])).sum())


class _Hausdorff:
    """Distances between the objects of two maps, each pair measured once."""

    def __init__(
        self, ours: NDArray[np.int32], theirs: NDArray[np.int32], spacing: tuple[float, ...]
    ) -> None:
        self.maps = (ours, theirs)
        self.spacing = spacing
        self.boxes: tuple[list[Box], list[Box]] = (
            ndimage.find_objects(ours),
            ndimage.find_objects(theirs),
        )
        self.known: dict[tuple[int, int], float] = {}

    def weighted(
        self, shared: NDArray[np.int64], areas: NDArray[np.int64], *, swapped: bool
    ) -> float:
        """Sum over objects of area times the distance to the object matched with it."""
        total = 0.0
        for k, area in enumerate(areas):
            row = shared[k]
            candidates: Sequence[int] = [int(row.argmax())] if row.any() else range(row.size)
            pairs = [(other, k) if swapped else (k, other) for other in candidates]
            total += float(area) * min(self._distance(*pair) for pair in pairs)
        return total

    def _distance(self, k: int, other: int) -> float:
        if (k, other) not in self.known:
            boxes = zip(self.boxes[0][k], self.boxes[1][other], strict=True)
            box = tuple(slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in boxes)
            a, b = self.maps[0][box] == k + 1, self.maps[1][box] == other + 1
            self.known[k, other] = max(
                float(ndimage.distance_transform_edt(~to, sampling=self.spacing)[of].max())
                for of, to in ((a, b), (b, a))
            )
        return self.known[k, other]
