"""Computes any registered metric by its card: of two arrays, or of all classes of two label maps at
once.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from segweave.errors import UsageError
from segweave.metrics.empties import Missing, missing
from segweave.metrics.labels import Spacing
from segweave.metrics.overlap import Confusion, confusion
from segweave.registry import MetricCard, build
from segweave.registry import metrics as registry


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
