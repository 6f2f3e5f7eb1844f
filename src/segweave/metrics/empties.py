"""What a metric scores where a class is missing in the prediction, the reference or both: named
policies, so that no such case is dropped silently.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from segweave.errors import UsageError, nearest
from segweave.metrics.labels import Spacing
from segweave.registry import MetricCard

Missing = Literal["prediction", "reference", "both"]
Rule = float | Literal["formula", "diagonal", "failed", "skipped"]
Status = Literal["scored", "failed", "rule"]


class Outcome(NamedTuple):
    """A value and how it came about: computed ("scored"), set by a rule ("rule"), or None
    ("failed").
    """

    value: float | None
    status: Status


@dataclass(frozen=True)
class EmptyPolicy:
    """What is scored where a side lacks the class: a pair of rules (for distances the second, for
    all other metrics the first).

    A rule is a number, or "formula" (what the metric's own function gives; where that is undefined,
    0 for a metric of which more is better, else failed), "diagonal" (that of the image), "failed"
    (counted, without a value), or "skipped" (not scored).

    Attributes:
        name: its name.
        meaning: one sentence.
        prediction: the rules where the prediction lacks the class and the reference holds it.
        reference: the rules where the reference lacks the class and the prediction holds it.
        both: the rules where both lack it.
        marked: whether values of missing classes have the status "rule".
        undefined: what a metric scores that is undefined although both sides hold the class; None
            means failed.
    """

    name: str
    meaning: str
    prediction: tuple[Rule, Rule]
    reference: tuple[Rule, Rule]
    both: tuple[Rule, Rule]
    marked: bool = True
    undefined: float | None = None

    def outcome(
        self,
        card: MetricCard,
        computed: float,
        missing: Missing | None,
        shape: Sequence[int],
        spacing: Spacing,
    ) -> Outcome | None:
        """What a metric scores for one class of one image or volume; None where it is skipped.

        Args:
            card: the metric's card.
            computed: what its function gives; nan or infinite where it is undefined.
            missing: the side that lacks the class.
            shape: the shape of the image or volume.
            spacing: its spacing, for the diagonal.
        """
        if missing is None:
            if math.isfinite(computed):
                return Outcome(computed, "scored")
            return Outcome(self.undefined, "failed" if self.undefined is None else "scored")
        rules: tuple[Rule, Rule] = getattr(self, missing)
        rule = rules[card.is_distance]
        if rule == "skipped":
            return None
        if rule == "failed":
            return Outcome(None, "failed")
        status: Status = "rule" if self.marked else "scored"
        if rule == "diagonal":
            return Outcome(diagonal(shape, spacing), status)
        if rule != "formula":
            return Outcome(rule, status)
        if math.isfinite(computed):
            return Outcome(computed, status)
        return Outcome(0.0, status) if card.better == "higher" else Outcome(None, "failed")


POLICIES = {
    policy.name: policy
    for policy in (
        EmptyPolicy(
            "clean",
            "where the class is in the reference; where it is not predicted, overlaps are 0 and "
            "distances fail",
            prediction=("formula", "failed"),
            reference=("skipped", "skipped"),
            both=("skipped", "skipped"),
            marked=False,
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
        EmptyPolicy(
            "glas",
            "as the GlaS challenge: on both sides perfect; on one side 0, and distances fail",
            prediction=(0.0, "failed"),
            reference=(0.0, "failed"),
            both=(1.0, 0.0),
        ),
        EmptyPolicy(
            "formula",
            "what the formula gives, and 0 for 0 / 0",
            prediction=("formula", "failed"),
            reference=("formula", "failed"),
            both=("formula", "failed"),
            undefined=0.0,
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


def diagonal(shape: Sequence[int], spacing: Spacing) -> float:
    """The longest distance in an image: √Σ((n − 1)·spacing)², in pixels where spacing is None."""
    steps = (1.0,) * len(shape) if spacing is None else spacing
    return math.hypot(*((n - 1) * s for n, s in zip(shape, steps, strict=True)))
