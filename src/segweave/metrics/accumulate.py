"""Collects scores of many label maps, image by image or volume by volume, with the counts of those
where a class is missing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segweave.errors import UsageError, nearest
from segweave.metrics.empties import get_policy, missing
from segweave.metrics.overlap import Confusion, confusion
from segweave.metrics.surface import Spacing, SurfaceDistances, checked_spacing, surface_distances

OVERLAPS = ("dice", "iou", "precision", "sensitivity", "specificity", "accuracy")
DISTANCES = {
    "hd": lambda d: d.hausdorff(),
    "hd95": lambda d: d.hausdorff95("max"),
    "hd95-pooled": lambda d: d.hausdorff95("pooled"),
    "asd": lambda d: d.average("to-reference"),
    "asd-reverse": lambda d: d.average("to-prediction"),
    "assd": lambda d: d.average_symmetric(),
}


@dataclass
class Accumulator:
    """Scores of `classes` under `metrics`, one value a class and pair of label maps.

    `policy` says what a pair scores where a class is missing on a side (`empties.POLICIES`);
    values that are nan stay out of means and are counted. Memory grows by one number a metric,
    class and pair. Raises UsageError for an unknown metric or policy.
    """

    classes: Sequence[int]
    metrics: Sequence[str] = ("dice",)
    policy: str = "nan"
    values: dict[tuple[str, int], list[float]] = field(default_factory=dict)
    empties: dict[int, Counter[str]] = field(default_factory=dict)
    pairs: int = 0

    def __post_init__(self) -> None:
        get_policy(self.policy)
        known = (*OVERLAPS, *DISTANCES)
        for name in self.metrics:
            if name not in known:
                raise UsageError("collecting scores", found=repr(name), remedy=nearest(name, known))
        for c in self.classes:
            self.empties.setdefault(c, Counter())
            for name in self.metrics:
                self.values.setdefault((name, c), [])

    def add(self, prediction: NDArray[Any], reference: NDArray[Any], spacing: Spacing) -> None:
        """Score one pair of label maps, 2D or 3D; `spacing` in mm, None means pixels."""
        checked_spacing(spacing, reference.ndim)
        counts = confusion(prediction, reference, self.classes)
        whole = [c for c in self.classes if counts[c].predicted and counts[c].present]
        apart: dict[int, SurfaceDistances] = {}
        if whole and any(name in DISTANCES for name in self.metrics):
            apart = surface_distances(prediction, reference, spacing, whole)
        rule = get_policy(self.policy)
        for c in self.classes:
            lack = missing(counts[c].predicted, counts[c].present)
            if lack is not None:
                self.empties[c][lack] += 1
            for name in self.metrics:
                if lack is None:
                    value = _value(name, counts[c], apart.get(c))
                elif name in DISTANCES:
                    value = rule.distance(lack, reference.shape, spacing)
                else:
                    value = rule.overlap(lack, float(getattr(counts[c], name)))
                self.values[name, c].append(value)
        self.pairs += 1

    def mean(self, metric: str) -> dict[int, float]:
        """Mean over pairs for each class, of the defined values; nan where there is none."""
        return {c: _mean(self.values[metric, c]) for c in self.classes}

    def macro(self, metric: str) -> float:
        """Mean over classes of their means, of those that have one."""
        return _mean(list(self.mean(metric).values()))

    def defined(self, metric: str) -> dict[int, int]:
        """For each class, of how many pairs the mean is one."""
        return {c: int(np.isfinite(self.values[metric, c]).sum()) for c in self.classes}

    def __add__(self, other: Accumulator) -> Accumulator:
        mine = (tuple(self.classes), tuple(self.metrics), self.policy)
        theirs = (tuple(other.classes), tuple(other.metrics), other.policy)
        if mine != theirs:
            raise UsageError("joining scores", expected=str(mine), found=str(theirs))
        return Accumulator(
            self.classes,
            self.metrics,
            self.policy,
            {key: held + other.values[key] for key, held in self.values.items()},
            {c: held + other.empties[c] for c, held in self.empties.items()},
            self.pairs + other.pairs,
        )


def _value(name: str, counts: Confusion, distances: SurfaceDistances | None) -> float:
    if name in DISTANCES:
        assert distances is not None
        return float(DISTANCES[name](distances))
    return float(getattr(counts, name))


def _mean(values: Sequence[float]) -> float:
    kept = [value for value in values if not math.isnan(value)]
    return float(np.mean(kept)) if kept else math.nan
