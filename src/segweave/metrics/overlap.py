"""Overlap of two label maps: Dice, IoU, precision, sensitivity, specificity, accuracy, from one
count of voxels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segweave.metrics.labels import (
    Engine,
    Spacing,
    check_classes,
    check_pair,
    compiled_loops,
    foreground_box,
    numbered,
)
from segweave.registry import MetricCard

CARDS = (
    MetricCard(
        name="dice",
        title="Dice coefficient",
        entry="dice",
        label="Dice",
        shared="confusion",
        value="dice",
    ),
    MetricCard(
        name="iou",
        title="Intersection over union (Jaccard index)",
        entry="iou",
        shared="confusion",
        value="iou",
    ),
    MetricCard(
        name="dice-smooth",
        title="Dice coefficient with 1 added to numerator and denominator",
        entry="smooth_dice",
        paper="released evaluation of DCSAU-Net",
        shared="confusion",
        value="smooth_dice",
    ),
    MetricCard(
        name="iou-smooth",
        title="Intersection over union with 1 added to numerator and denominator",
        entry="smooth_iou",
        paper="released evaluation of DCSAU-Net",
        shared="confusion",
        value="smooth_iou",
    ),
    MetricCard(
        name="precision",
        title="Precision (positive predictive value)",
        entry="precision",
        shared="confusion",
        value="precision",
    ),
    MetricCard(
        name="sensitivity",
        title="Sensitivity (recall)",
        entry="sensitivity",
        shared="confusion",
        value="sensitivity",
    ),
    MetricCard(
        name="specificity",
        title="Specificity",
        entry="specificity",
        shared="confusion",
        value="specificity",
    ),
    MetricCard(
        name="accuracy",
        title="Accuracy",
        entry="accuracy",
        shared="confusion",
        value="accuracy",
    ),
    MetricCard(
        name="false-alarm",
        title="Size of what was predicted of a class that is not in the reference",
        entry="false_alarm",
        spacing=True,
        unit="ml",
        better="lower",
        label="false alarms",
        absent=True,
    ),
)


# Up to here, comparing whole maps with each class is faster than coding every voxel.
_FEW_CLASSES = 3


@dataclass(frozen=True)
class Confusion:
    """Voxel counts of one class. Every ratio is in 0..1, or nan where it divides 0 by 0."""

    true_positives: int
    false_positives: int
    false_negatives: int
    true_negatives: int

    @property
    def predicted(self) -> int:
        """Voxels that the prediction gives to the class."""
        return self.true_positives + self.false_positives

    @property
    def present(self) -> int:
        """Voxels that the reference gives to the class."""
        return self.true_positives + self.false_negatives

    @property
    def dice(self) -> float:
        """2·TP / (2·TP + FP + FN): nan where the class is in neither, 0 where it is in one."""
        return _ratio(2 * self.true_positives, self.predicted + self.present)

    @property
    def iou(self) -> float:
        """TP / (TP + FP + FN)."""
        return _ratio(self.true_positives, self.predicted + self.false_negatives)

    @property
    def smooth_dice(self) -> float:
        """(2·TP + 1) / (2·TP + FP + FN + 1)."""
        return (2 * self.true_positives + 1) / (self.predicted + self.present + 1)

    @property
    def smooth_iou(self) -> float:
        """(TP + 1) / (TP + FP + FN + 1)."""
        return (self.true_positives + 1) / (self.predicted + self.false_negatives + 1)

    @property
    def precision(self) -> float:
        """TP / (TP + FP): nan where nothing was predicted."""
        return _ratio(self.true_positives, self.predicted)

    @property
    def sensitivity(self) -> float:
        """TP / (TP + FN): nan where the class is not in the reference."""
        return _ratio(self.true_positives, self.present)

    @property
    def specificity(self) -> float:
        """TN / (TN + FP)."""
        return _ratio(self.true_negatives, self.true_negatives + self.false_positives)

    @property
    def accuracy(self) -> float:
        """(TP + TN) / all voxels."""
        right = self.true_positives + self.true_negatives
        return _ratio(right, right + self.false_positives + self.false_negatives)


def confusion(
    prediction: NDArray[Any],
    reference: NDArray[Any],
    classes: Sequence[int],
    *,
    engine: Engine = "auto",
) -> dict[int, Confusion]:
    """Voxel counts of several classes in one pass over two label maps.

    Args:
        prediction: class ids, (height, width) or (slices, height, width).
        reference: class ids, of the same shape.
        classes: the ids to count, 1 or more each.
        engine: as in `surface_distances`.

    Raises InputError where shapes or types are wrong.
    """
    check_pair(prediction, reference)
    ids = check_classes(classes)
    total = prediction.size
    box = foreground_box(prediction, reference)
    if box is None:
        hits = predicted = present = np.zeros(len(ids) + 1, np.int64)
    elif (loops := compiled_loops(engine, prediction.size)) is not None:
        ours, theirs = (
            np.ascontiguousarray(numbered(array[box], ids)).ravel()
            for array in (prediction, reference)
        )
        hits, predicted, present = _of_table(loops.count_pairs(ours, theirs, len(ids) + 1))
    elif len(ids) <= _FEW_CLASSES:
        hits, predicted, present = _count_masks(prediction[box], reference[box], ids)
    else:
        hits, predicted, present = _count_codes(prediction[box], reference[box], ids)
    return {
        c: Confusion(
            true_positives=int(hits[k]),
            false_positives=int(predicted[k] - hits[k]),
            false_negatives=int(present[k] - hits[k]),
            true_negatives=int(total - predicted[k] - present[k] + hits[k]),
        )
        for k, c in enumerate(ids, start=1)
    }


def _count_masks(
    prediction: NDArray[Any], reference: NDArray[Any], ids: tuple[int, ...]
) -> tuple[NDArray[np.int64], ...]:
    """(shared, predicted, present) voxels by the class's number in `ids` from 1 on, by masks."""
    counts = np.zeros((3, len(ids) + 1), np.int64)
    for k, c in enumerate(ids, start=1):
        ours, theirs = prediction == c, reference == c
        for row, mask in enumerate((ours & theirs, ours, theirs)):
            counts[row, k] = np.count_nonzero(mask)
    return counts[0], counts[1], counts[2]


def _count_codes(
    prediction: NDArray[Any], reference: NDArray[Any], ids: tuple[int, ...]
) -> tuple[NDArray[np.int64], ...]:
    """The same for any number of classes at once."""
    size = len(ids) + 1
    p, r = numbered(prediction, ids).ravel(), numbered(reference, ids).ravel()
    # Only voxels that belong to a class in either map are counted one by one.
    either = np.flatnonzero(p | r)
    codes = r[either].astype(np.intp) * size + p[either]
    table = np.bincount(codes, minlength=size * size).reshape(size, size)
    return _of_table(table)


def _of_table(table: NDArray[np.int64]) -> tuple[NDArray[np.int64], ...]:
    """(shared, predicted, present) of a table of true by predicted classes."""
    return np.diag(table), table.sum(axis=0), table.sum(axis=1)


def dice(prediction: NDArray[Any], reference: NDArray[Any]) -> float:
    """Dice coefficient of two masks (everything that is not 0 is foreground)."""
    return _of_masks(prediction, reference).dice


def iou(prediction: NDArray[Any], reference: NDArray[Any]) -> float:
    """Intersection over union of two masks."""
    return _of_masks(prediction, reference).iou


def smooth_dice(prediction: NDArray[Any], reference: NDArray[Any]) -> float:
    """Dice coefficient of two masks with 1 added to numerator and denominator."""
    return _of_masks(prediction, reference).smooth_dice


def smooth_iou(prediction: NDArray[Any], reference: NDArray[Any]) -> float:
    """Intersection over union of two masks with 1 added to numerator and denominator."""
    return _of_masks(prediction, reference).smooth_iou


def precision(prediction: NDArray[Any], reference: NDArray[Any]) -> float:
    """Share of the predicted voxels that are right; nan where nothing was predicted."""
    return _of_masks(prediction, reference).precision


def sensitivity(prediction: NDArray[Any], reference: NDArray[Any]) -> float:
    """Share of the reference's voxels that were found; nan where it is empty."""
    return _of_masks(prediction, reference).sensitivity


def specificity(prediction: NDArray[Any], reference: NDArray[Any]) -> float:
    """Share of the reference's background that was left alone; nan where it has none."""
    return _of_masks(prediction, reference).specificity


def accuracy(prediction: NDArray[Any], reference: NDArray[Any]) -> float:
    """Share of all voxels that are right."""
    return _of_masks(prediction, reference).accuracy


def false_alarm(prediction: NDArray[Any], reference: NDArray[Any], spacing: Spacing) -> float:
    """Size of the predicted mask where the reference is empty, else nan: in ml for a volume of
    known `spacing` (mm), else the number of pixels or voxels.
    """
    counts = _of_masks(prediction, reference)
    if counts.present:
        return math.nan
    if spacing is None or prediction.ndim == 2:
        return float(counts.predicted)
    return counts.predicted * math.prod(spacing) / 1000


def _of_masks(prediction: NDArray[Any], reference: NDArray[Any]) -> Confusion:
    check_pair(prediction, reference)
    return confusion(prediction != 0, reference != 0, (1,))[1]


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan
