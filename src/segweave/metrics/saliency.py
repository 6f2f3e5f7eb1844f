"""Scores of a soft foreground map against a mask, as the polyp and saliency fields print them: MAE,
S-measure, E-measure, weighted F-measure, and Dice and IoU over 256 thresholds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from segweave.errors import InputError, UsageError, nearest
from segweave.registry import MetricCard

CARDS = (
    MetricCard(
        name="mae",
        title="Mean absolute error of a soft map",
        entry="mean_absolute_error",
        reads="soft-map",
        better="lower",
    ),
    MetricCard(
        name="s-measure",
        title="Structure measure of a soft map, objects and regions weighing 1/2 each",
        entry="s_measure",
        reads="soft-map",
        paper="Fan et al., ICCV 2017",
    ),
    MetricCard(
        name="e-measure",
        title="Enhanced alignment measure, mean over 256 thresholds",
        entry="e_measure",
        reads="soft-map",
        paper="Fan et al., IJCAI 2018",
        options={"over": "mean"},
    ),
    MetricCard(
        name="e-measure-max",
        title="Enhanced alignment measure, largest over 256 thresholds",
        entry="e_measure",
        reads="soft-map",
        paper="Fan et al., IJCAI 2018",
        options={"over": "max"},
    ),
    MetricCard(
        name="e-measure-adaptive",
        title="Enhanced alignment measure at twice the map's mean",
        entry="e_measure",
        reads="soft-map",
        paper="Fan et al., IJCAI 2018",
        options={"over": "adaptive"},
    ),
    MetricCard(
        name="weighted-f",
        title="Weighted F-measure of a soft map (beta 1)",
        entry="weighted_f_measure",
        reads="soft-map",
        paper="Margolin, Zelnik-Manor and Tal, CVPR 2014",
    ),
    MetricCard(
        name="dice-256",
        title="Dice of a soft map, mean over 256 thresholds",
        entry="threshold_dice",
        reads="soft-map",
        paper="Fan et al., PraNet, MICCAI 2020 (released evaluation)",
        options={"over": "mean"},
    ),
    MetricCard(
        name="dice-256-max",
        title="Dice of a soft map, largest over 256 thresholds",
        entry="threshold_dice",
        reads="soft-map",
        paper="Fan et al., PraNet, MICCAI 2020 (released evaluation)",
        options={"over": "max"},
    ),
    MetricCard(
        name="iou-256",
        title="IoU of a soft map, mean over 256 thresholds",
        entry="threshold_iou",
        reads="soft-map",
        paper="Fan et al., PraNet, MICCAI 2020 (released evaluation)",
        options={"over": "mean"},
    ),
    MetricCard(
        name="iou-256-max",
        title="IoU of a soft map, largest over 256 thresholds",
        entry="threshold_iou",
        reads="soft-map",
        paper="Fan et al., PraNet, MICCAI 2020 (released evaluation)",
        options={"over": "max"},
    ),
    MetricCard(
        name="sensitivity-256",
        title="Sensitivity of a soft map, mean over 256 thresholds",
        entry="threshold_sensitivity",
        reads="soft-map",
        paper="Fan et al., PraNet, MICCAI 2020 (released evaluation)",
        options={"over": "mean"},
    ),
    MetricCard(
        name="specificity-256",
        title="Specificity of a soft map, mean over 256 thresholds",
        entry="threshold_specificity",
        reads="soft-map",
        paper="Fan et al., PraNet, MICCAI 2020 (released evaluation)",
        options={"over": "mean"},
    ),
)

Curve = NDArray[np.float64]
Over = Literal["mean", "max"]
LEVELS = 256


@dataclass(frozen=True, eq=False)
class ThresholdCurves:
    """Scores of the masks `map ≥ k/255`, arrays of 256 with k ascending.

    Dice, IoU, sensitivity and specificity are 0 wherever no pixel is rightly found, an empty
    reference included: the rule of PraNet's released evaluation.
    """

    dice: Curve
    iou: Curve
    sensitivity: Curve
    specificity: Curve
    e_measure: Curve


def stretched(soft_map: NDArray[Any]) -> NDArray[np.float64]:
    """A map stretched linearly to 0..1; one of a single value stays as it is (8-bit maps are
    divided by 255 first).
    """
    values = _unit(soft_map)
    low, high = float(values.min()), float(values.max())
    return values if low == high else (values - low) / (high - low)


def threshold_curves(soft_map: NDArray[Any], mask: NDArray[Any]) -> ThresholdCurves:
    """Scores at 256 thresholds of a soft map (height, width), float 0..1 or uint8, against a mask
    of the same shape. Raises InputError for other shapes and values.
    """
    values, truth = _checked(soft_map, mask)
    # The margin keeps values such as 29/255 on their own level in spite of rounding.
    level = np.floor(values * (LEVELS - 1) + 1e-9).astype(np.intp).ravel()
    inside = truth.ravel()
    hits = _at_or_above(np.bincount(level[inside], minlength=LEVELS))
    false = _at_or_above(np.bincount(level[~inside], minlength=LEVELS))
    present, total = float(np.count_nonzero(inside)), float(inside.size)
    found = hits > 0
    negatives = max(total - present, 1.0)
    zero = np.zeros(LEVELS)
    return ThresholdCurves(
        dice=np.divide(2 * hits, hits + false + present, out=zero.copy(), where=found),
        iou=np.divide(hits, false + present, out=zero.copy(), where=found),
        sensitivity=hits / max(present, 1.0),
        specificity=np.where(found, (total - present - false) / negatives, 0.0),
        e_measure=_alignment(hits, false, present, total),
    )


def threshold_dice(soft_map: NDArray[Any], mask: NDArray[Any], over: Over = "mean") -> float:
    """Dice of the 256 masks `map ≥ k/255`: their mean (the polyp field's "mDice"), or the largest.

    A map of 0 and 1 scores (255·Dice + 2g/(1 + g)) / 256 on the mean, g being the mask's share of
    the image: threshold 0 marks everything.
    """
    return _over(threshold_curves(soft_map, mask).dice, over)


def threshold_iou(soft_map: NDArray[Any], mask: NDArray[Any], over: Over = "mean") -> float:
    """IoU of the 256 masks `map ≥ k/255`: their mean (the polyp field's "mIoU"), or the largest."""
    return _over(threshold_curves(soft_map, mask).iou, over)


def threshold_sensitivity(soft_map: NDArray[Any], mask: NDArray[Any], over: Over = "mean") -> float:
    """Sensitivity of the 256 masks `map ≥ k/255`: their mean, or the largest."""
    return _over(threshold_curves(soft_map, mask).sensitivity, over)


def threshold_specificity(soft_map: NDArray[Any], mask: NDArray[Any], over: Over = "mean") -> float:
    """Specificity of the 256 masks `map ≥ k/255`: their mean, or the largest."""
    return _over(threshold_curves(soft_map, mask).specificity, over)


def e_measure(
    soft_map: NDArray[Any],
    mask: NDArray[Any],
    over: Literal["mean", "max", "adaptive"] = "mean",
) -> float:
    """Enhanced alignment measure, over 256 thresholds or at min(2 · mean of the map, 1).

    The sum over pixels is divided by their number less 1, as the authors' code does, so that a
    perfect mask of N pixels scores N/(N − 1).
    """
    if over != "adaptive":
        return _over(threshold_curves(soft_map, mask).e_measure, over, "adaptive")
    values, truth = _checked(soft_map, mask)
    chosen = values >= min(2 * float(values.mean()), 1.0)
    hits = np.array([np.count_nonzero(chosen & truth)], np.float64)
    false = np.array([np.count_nonzero(chosen)], np.float64) - hits
    return float(_alignment(hits, false, float(truth.sum()), float(truth.size))[0])


def mean_absolute_error(soft_map: NDArray[Any], mask: NDArray[Any]) -> float:
    """Mean of |map − mask| over all pixels."""
    values, truth = _checked(soft_map, mask)
    return float(np.abs(values - truth).mean())


def s_measure(soft_map: NDArray[Any], mask: NDArray[Any]) -> float:
    """Structure measure (Fan et al. 2017): half similarity of the objects, half that of the four
    regions around the mask's centroid. Without foreground it is 1 − mean of the map, and with
    nothing but foreground the mean of the map.
    """
    values, truth = _checked(soft_map, mask)
    share = float(truth.mean())
    if share in (0.0, 1.0):
        mean = float(values.mean())
        return mean if share else 1 - mean
    objects = share * _object(values[truth]) + (1 - share) * _object(1 - values[~truth])
    return max(0.0, (objects + _regions(values, truth)) / 2)


def weighted_f_measure(soft_map: NDArray[Any], mask: NDArray[Any]) -> float:
    """Weighted F-measure (Margolin et al. 2014) with beta 1: errors near true pixels weigh less,
    and errors far from the foreground more; 0 where the mask is empty.

    Several true pixels may be equally near to one outside; which of them gives its error is
    SciPy's choice here, so that the last digits can differ from other programs'.
    """
    values, truth = _checked(soft_map, mask)
    if not truth.any():
        return 0.0
    error = np.abs(values - truth)
    distance, nearest_pixel = ndimage.distance_transform_edt(~truth, return_indices=True)
    # Outside, the error of the nearest true pixel is used, so that smoothing sees the object.
    nearest_error = error[tuple(nearest_pixel)]
    weights = np.exp(-(np.arange(-3.0, 4.0) ** 2) / (2 * 5.0**2))
    weights /= weights.sum()
    smooth = ndimage.correlate1d(nearest_error, weights, axis=0, mode="constant")
    smooth = ndimage.correlate1d(smooth, weights, axis=1, mode="constant")
    error = np.where(truth & (smooth < error), smooth, error)
    importance = np.where(truth, 1.0, 2.0 - np.exp(math.log(0.5) / 5 * distance))
    weighted = error * importance
    hits = float(truth.sum() - weighted[truth].sum())
    false = float(weighted[~truth].sum())
    recall = 1 - float(weighted[truth].mean())
    precision = hits / (hits + false) if hits + false > 0 else 0.0
    both = recall + precision
    return 2 * recall * precision / both if both > 0 else 0.0


def _alignment(hits: Curve, false: Curve, present: float, total: float) -> Curve:
    """E-measure of masks by their counts of rightly and wrongly marked pixels."""
    absent = total - present
    marked = hits + false
    if present == 0 or absent == 0:
        summed = marked if absent == 0 else total - marked
        return summed / max(total - 1, 1.0)
    share, truth = marked / total, present / total
    summed = np.zeros_like(hits)
    for count, ours, theirs in (
        (hits, 1 - share, 1 - truth),
        (false, 1 - share, -truth),
        (present - hits, -share, 1 - truth),
        (absent - false, -share, -truth),
    ):
        aligned = 2 * ours * theirs / (ours**2 + theirs**2)
        summed += count * (aligned + 1) ** 2 / 4
    return summed / max(total - 1, 1.0)


def _object(values: NDArray[np.float64]) -> float:
    """Similarity of the map inside an object with a full one."""
    mean = float(values.mean())
    spread = float(values.std(ddof=1)) if values.size > 1 else 0.0
    return 2 * mean / (mean**2 + 1 + spread)


def _regions(values: NDArray[np.float64], truth: NDArray[np.bool_]) -> float:
    """Similarity of the four blocks around the centroid, each weighing its area."""
    rows, columns = (
        math.floor(float(np.average(np.arange(n), weights=truth.sum(axis=1 - axis))) + 1.5)
        for axis, n in enumerate(truth.shape)
    )
    blocks = [
        (vertical, horizontal)
        for vertical in (slice(None, rows), slice(rows, None))
        for horizontal in (slice(None, columns), slice(columns, None))
    ]
    return sum(_similarity(values[block], truth[block]) for block in blocks) / truth.size


def _similarity(values: NDArray[np.float64], truth: NDArray[np.bool_]) -> float:
    """SSIM of one block without its constants, times the block's size."""
    if values.size == 0:
        return 0.0
    x, y = float(values.mean()), float(truth.mean())
    freedom = max(values.size - 1, 1)
    spread = float(((values - x) ** 2).sum() + ((truth - y) ** 2).sum()) / freedom
    together = 4 * x * y * float(((values - x) * (truth - y)).sum()) / freedom
    apart = (x**2 + y**2) * spread
    if together != 0:
        return values.size * together / (apart + float(np.finfo(np.float64).eps))
    return float(values.size) if apart == 0 else 0.0


def _over(curve: Curve, over: str, *others: str) -> float:
    if over not in ("mean", "max"):
        raise UsageError(
            "scoring a soft map",
            found=f"over={over!r}",
            remedy=nearest(over, ("mean", "max", *others)),
        )
    return float(curve.mean() if over == "mean" else curve.max())


def _at_or_above(counts: NDArray[np.intp]) -> Curve:
    return counts[::-1].cumsum()[::-1].astype(np.float64)


def _unit(soft_map: NDArray[Any]) -> NDArray[np.float64]:
    """A map as float 0..1."""
    if soft_map.dtype == np.uint8:
        return soft_map / 255.0
    values = soft_map.astype(np.float64)
    if values.size == 0 or not (values.min() >= 0 and values.max() <= 1):
        raise InputError(
            "scoring a soft map",
            expected="a map of values from 0 to 1, or of 8 bits",
            found="no pixels" if not values.size else f"{values.min():.4g} to {values.max():.4g}",
            remedy="give probabilities, not logits",
        )
    return values


def _checked(
    soft_map: NDArray[Any], mask: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    if soft_map.shape != mask.shape or soft_map.ndim != 2:
        raise InputError(
            "scoring a soft map",
            expected="a map and a mask of one shape, (height, width)",
            found=f"map {soft_map.shape}, mask {mask.shape}",
        )
    return _unit(soft_map), mask != 0
