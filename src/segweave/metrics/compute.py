"""Computes any registered metric by its card, of two arrays or of all classes of two label maps at
once, and says what it scores where a class is missing: by named policies, so that no such case is
dropped silently.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from numpy.typing import NDArray

from segweave.errors import UsageError, nearest
from segweave.metrics.labels import Spacing
from segweave.metrics.overlap import Confusion, confusion
from segweave.registry import MetricCard, build
from segweave.registry import metrics as registry

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


def compute_metric(
    name: str,
    prediction: NDArray[Any],
    reference: NDArray[Any],
    *,
    spacing: Spacing = None,
    **options: Any,
) -> float:
    """Any registered metric of two arrays; nan where it is undefined.

    Args:
        name: the metric's name, a plug-in's too.
        prediction: what the card states that the metric reads (`MetricCard.reads`): a mask of one
            class, a map of objects, probabilities, or an image.
        reference: the true mask, objects or class ids, or the image to compare with.
        spacing: mm per axis, None for pixels; not used where the metric takes none.
        options: other arguments of the metric, instead of the card's (`tolerance=1.0`); a metric
            of images needs `data_range=`.

    Raises UsageError for an unknown name or option, InputError for arrays that do not fit.

    >>> import numpy as np
    >>> truth = np.zeros((8, 8), np.uint8)
    >>> truth[2:6, 2:6] = 1
    >>> compute_metric("dice", np.roll(truth, 1, axis=0), truth)
    0.75
    >>> compute_metric("hd95", np.roll(truth, 1, axis=0), truth, spacing=(0.5, 0.5))
    0.5
    """
    card = registry.card(name)
    given = {**options, "spacing": spacing} if card.spacing else options
    if card.reads == "images" and "data_range" not in options:
        raise UsageError(
            f"computing the metric {name}",
            expected="data_range=, the range of the images' values (255 for 8 bits)",
            found="no range",
        )
    function = functools.partial(registry.entry(name), prediction, reference)
    return float(build(f"computing the metric {name}", function, card.options, given))


def value_unit(card: MetricCard, spacing: Spacing, axes: int) -> str:
    """The unit of a metric's values for an image of `axes` axes: that of the card, or px."""
    with_spacing = spacing is not None and (card.unit == "mm" or axes == 3)
    return card.unit if card.unit not in ("mm", "ml") or with_spacing else "px"


class LabelPair:
    """Two label maps whose metrics are computed class by class, with one pass over the voxels and
    one search for surfaces whatever the number of metrics and classes.
    """

    def __init__(
        self,
        prediction: NDArray[Any],
        reference: NDArray[Any],
        classes: Sequence[int],
        spacing: Spacing = None,
    ) -> None:
        """Count the voxels of each class.

        Args:
            prediction: class ids, (height, width) or (slices, height, width).
            reference: class ids, of the same shape.
            classes: the ids to score, 1 or more each.
            spacing: mm per axis, None for pixels.

        Raises InputError for wrong arrays, UsageError for wrong classes.
        """
        self.prediction, self.reference, self.spacing = prediction, reference, spacing
        self.counts: dict[int, Confusion] = confusion(prediction, reference, tuple(classes))
        self.both = tuple(c for c in self.counts if self.missing(c) is None)
        self._shared: dict[Any, dict[int, Any]] = {confusion: dict(self.counts)}

    def missing(self, label: int) -> Missing | None:
        """The side that lacks a class; None where both hold it."""
        return missing(self.counts[label].predicted, self.counts[label].present)

    def value(self, card: MetricCard, label: int) -> float:
        """A metric that reads labels, of one class; nan where it is undefined. Distances are not
        computed for a class that a side lacks.
        """
        if card.is_distance and self.missing(label) is not None:
            return float("nan")
        if card.absent and not self.counts[label].predicted and not self.counts[label].present:
            return 0.0
        if not card.shared:
            masks = self.prediction == label, self.reference == label
            return compute_metric(card.name, *masks, spacing=self.spacing)
        value = getattr(self._result(card, label), card.value)
        return float(value(**card.options) if callable(value) else value)

    def _result(self, card: MetricCard, label: int) -> Any:
        measure = registry.attribute(card.name, card.shared)
        results = self._shared.setdefault(measure, {})
        if label not in results:
            # All that both maps hold at once; one that a side lacks by itself.
            classes = self.both if label in self.both else (label,)
            steps = {"spacing": self.spacing} if card.spacing else {}
            results.update(measure(self.prediction, self.reference, classes=classes, **steps))
        return results[label]
