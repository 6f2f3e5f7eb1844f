"""What a score is where a class is missing in the prediction, the reference or both: named policies
and counts, so that no such case is dropped silently.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from segweave.errors import UsageError, nearest

Missing = Literal["prediction", "reference", "both"]
Value = float | Literal["diagonal"]


@dataclass(frozen=True)
class EmptyPolicy:
    """(overlap, distance) of a case whose `prediction` is empty, whose `reference` is, or `both`.

    An overlap of None is what the metric's own formula gives (Dice 0 where one side is empty, nan
    where both are); "diagonal" stands for the image's diagonal.
    """

    name: str
    meaning: str
    prediction: tuple[float | None, Value]
    reference: tuple[float | None, Value]
    both: tuple[float | None, Value]

    def overlap(self, missing: Missing, computed: float) -> float:
        """Dice and its like; `computed` is what the formula gives."""
        value: float | None = getattr(self, missing)[0]
        return computed if value is None else value

    def distance(
        self, missing: Missing, shape: Sequence[int], spacing: Sequence[float] | None
    ) -> float:
        """A surface distance, in the unit of `spacing` (None: pixels)."""
        value: Value = getattr(self, missing)[1]
        return diagonal(shape, spacing) if value == "diagonal" else float(value)


POLICIES = {
    policy.name: policy
    for policy in (
        EmptyPolicy(
            "nan",
            "what the formula gives; where it gives nothing, left out of means and counted",
            prediction=(None, math.nan),
            reference=(None, math.nan),
            both=(None, math.nan),
        ),
        EmptyPolicy(
            "penalise",
            "missing on one side: Dice 0 and the image's diagonal; on both: Dice 1 and 0",
            prediction=(0.0, "diagonal"),
            reference=(0.0, "diagonal"),
            both=(1.0, 0.0),
        ),
        EmptyPolicy(
            "published",
            "as the released ACDC and Synapse evaluations: a false alarm scores 1, a class missed "
            "or in neither scores 0, all with distance 0",
            prediction=(0.0, 0.0),
            reference=(1.0, 0.0),
            both=(0.0, 0.0),
        ),
    )
}


def get_policy(name: str) -> EmptyPolicy:
    """A policy by name; an unknown one raises UsageError with the nearest."""
    if name not in POLICIES:
        raise UsageError(
            "choosing what empty masks score", found=repr(name), remedy=nearest(name, POLICIES)
        )
    return POLICIES[name]


def missing(predicted: int, present: int) -> Missing | None:
    """Which side lacks a class, by its numbers of voxels; None where both have it."""
    if predicted and present:
        return None
    if predicted:
        return "reference"
    return "prediction" if present else "both"


def diagonal(shape: Sequence[int], spacing: Sequence[float] | None) -> float:
    """The longest distance in an image: √Σ((n − 1)·spacing)², in pixels where spacing is None."""
    steps = (1.0,) * len(shape) if spacing is None else spacing
    return math.hypot(*((n - 1) * s for n, s in zip(shape, steps, strict=True)))
