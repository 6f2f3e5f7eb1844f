"""Splits a prediction and its reference into label maps in which no classes overlap, and checks
them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segweave.data.specs import TargetSpec
from segweave.errors import InputError, UsageError


@dataclass(frozen=True, eq=False)
class Layer:
    """A prediction and a reference in which no classes overlap.

    Attributes:
        prediction: class ids (slices, height, width).
        reference: true class ids, of the same shape.
        names: class id → name.
        instances: ids of the reference's single objects, of the same shape; None where unknown.
    """

    prediction: NDArray[Any]
    reference: NDArray[Any]
    names: dict[int, str]
    instances: NDArray[Any] | None = None

    def __getitem__(self, index: int | slice) -> Layer:
        """The layer of one slice or of several."""
        instances = None if self.instances is None else self.instances[index]
        return Layer(self.prediction[index], self.reference[index], self.names, instances)


def layers_of(
    prediction: NDArray[Any],
    reference: NDArray[Any],
    target: TargetSpec,
    instances: NDArray[Any] | None = None,
) -> list[Layer]:
    """One layer for exclusive and binary classes, one per class where they overlap.

    Voxels that the reference marks as ignored are background in both. Raises InputError where
    shapes differ, an id is unknown or values are not whole numbers.
    """
    axes = 4 if target.kind == "overlapping" else 3
    if prediction.shape != reference.shape or prediction.ndim != axes:
        grid = "(slices, classes, height, width)" if axes == 4 else "(slices, height, width)"
        raise InputError(
            "scoring a case",
            expected=f"a prediction of the reference's shape, {grid}",
            found=f"prediction {prediction.shape}, reference {reference.shape}",
            remedy="check that both belong to the same case and have the case's own size",
        )
    allowed = set(range(len(target.names))) if target.kind == "exclusive" else {0, 1}
    _check_ids("prediction", prediction, allowed)
    ignored = {target.ignored} if target.ignored is not None else set()
    _check_ids("reference", reference, allowed | ignored)
    if target.ignored is not None:
        kept = reference != target.ignored
        prediction, reference = np.where(kept, prediction, 0), np.where(kept, reference, 0)
    if target.kind != "overlapping":
        return [Layer(prediction, reference, target.foreground, instances)]
    if prediction.shape[1] != len(target.names):
        raise InputError(
            "scoring a case",
            expected=f"{len(target.names)} classes ({', '.join(target.names)})",
            found=f"{prediction.shape[1]} on the class axis",
        )
    return [
        Layer(prediction[:, k], reference[:, k], {1: name}) for k, name in target.foreground.items()
    ]


def foreground_name(protocol: str, target: TargetSpec) -> str:
    """The name of the only class, for a protocol that scores one class against the background.
    Raises UsageError for targets with more classes.
    """
    names = list(target.foreground.values())
    if target.kind == "overlapping" or len(names) != 1:
        raise UsageError(
            f"scoring under the protocol {protocol}",
            expected="one class and the background",
            found=", ".join(names),
            remedy="use the protocol clean",
        )
    return names[0]


def _check_ids(what: str, labels: NDArray[Any], allowed: set[int]) -> None:
    if labels.dtype.kind not in "bui":
        raise InputError(
            f"scoring a case: the {what} is not a label map",
            expected="whole numbers",
            found=f"values of type {labels.dtype}",
        )
    unknown = sorted(set(unique_ids(labels)) - allowed)
    if unknown:
        shown = ", ".join(map(str, unknown[:10])) + (", ..." if len(unknown) > 10 else "")
        raise InputError(
            f"scoring a case: unknown class ids in the {what}",
            expected=", ".join(map(str, sorted(allowed))),
            found=shown,
            remedy="check the class list, or that the labels were not resized with smoothing",
        )


def unique_ids(labels: NDArray[Any]) -> list[int]:
    """The ids in a label map, ascending."""
    if labels.dtype == np.uint8:
        counts = np.zeros(256, np.bool_)
        counts[labels.ravel()] = True
        return [int(i) for i in np.flatnonzero(counts)]
    return [int(i) for i in np.unique(labels)]
