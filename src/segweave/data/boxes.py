"""Boxes around what is to be segmented: given by the user, or taken from the reference; and their
way to the network's grid.

A box is x0, y0, x1, y1: the first and the last column and row of the object in the pixels of the
case's slices, counted from 0 at the upper left.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from segweave.data.case import Case
from segweave.data.inputs import placement
from segweave.data.specs import InputSpec
from segweave.errors import InputError, UsageError

Box: TypeAlias = Sequence[float]
"""x0, y0, x1, y1."""

CaseBoxes: TypeAlias = Box | Mapping[int, Box] | NDArray[np.floating]
"""What a user may give for one case: one box for all slices, a box for each of some slices (by
slice number), or an array (slices, 4), with NaN for slices without a box."""

Boxes: TypeAlias = NDArray[np.float64]
"""(slices, 4); NaN in slices without a box."""

FROM_REFERENCE = "taken from the reference"


def check_box(box: Box, doing: str) -> tuple[float, float, float, float]:
    """The four numbers of a box; raises UsageError where they are no box."""
    numbers = [float(value) for value in box]
    if len(numbers) == 4 and all(math.isfinite(value) for value in numbers):
        x0, y0, x1, y1 = numbers
        if 0 <= x0 <= x1 and 0 <= y0 <= y1:
            return x0, y0, x1, y1
    raise UsageError(
        doing,
        expected="a box X0 Y0 X1 Y1: left, upper, right and lower pixel, counted from 0, with "
        "X0 ≤ X1 and Y0 ≤ Y1",
        found=" ".join(f"{value:g}" for value in numbers) or "nothing",
    )


def boxes_of(given: CaseBoxes, case: Case) -> Boxes:
    """The boxes of all slices of a case.

    Args:
        given: see `CaseBoxes`.
        case: the case.

    Raises UsageError for other numbers, a box that leaves the image, or a slice that is not there.
    """
    doing = f"reading the boxes of the case {case.id!r}"
    boxes = np.full((case.slices, 4), np.nan)
    if isinstance(given, Mapping):
        for index, box in given.items():
            if not 0 <= index < case.slices:
                raise UsageError(
                    doing, expected=f"a slice from 0 to {case.slices - 1}", found=f"slice {index}"
                )
            boxes[index] = check_box(box, doing)
    elif np.ndim(np.asarray(given)) == 2:
        array = np.asarray(given, np.float64)
        if array.shape != boxes.shape:
            raise UsageError(
                doing, expected=f"an array of {case.slices} × 4", found=f"shape {array.shape}"
            )
        for row in np.flatnonzero(~np.isnan(array).all(axis=1)):
            boxes[row] = check_box(array[row], doing)
    else:
        boxes[:] = check_box(given, doing)  # type: ignore[arg-type]
    height, width = case.size
    outside = np.flatnonzero((boxes[:, 2] > width) | (boxes[:, 3] > height))
    if outside.size:
        x0, y0, x1, y1 = (f"{value:g}" for value in boxes[outside[0]])
        raise UsageError(
            doing,
            expected=f"boxes inside the image, {width} columns (x) by {height} rows (y)",
            found=f"{x0} {y0} {x1} {y1}",
            remedy="x counts columns and y rows, in the pixels of the image itself",
        )
    return boxes


def reference_boxes(case: Case, ignored: int | None = None) -> Boxes:
    """The boxes around all foreground of each slice of the reference, without margin; NaN in slices
    that have none. `ignored` is the label id that does not count.

    Raises InputError where the case has no label.
    """
    if case.label is None:
        raise InputError(
            f"taking boxes from the reference of the case {case.id!r}",
            expected="a label",
            found="none",
        )
    return np.stack([mask_box(foreground(label, ignored)) for label in case.label])


def foreground(label: NDArray[np.uint8], ignored: int | None) -> NDArray[np.bool_]:
    """A label (height, width), or (classes, height, width) where classes overlap → the mask of all
    its foreground.
    """
    mask = (label != 0) & (label != ignored) if ignored is not None else label != 0
    return mask.any(axis=0) if mask.ndim == 3 else mask


def mask_box(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The box around a mask (height, width); NaN where it is empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return np.full(4, np.nan)
    return np.array([columns[0], rows[0], columns[-1], rows[-1]], np.float64)


def network_boxes(boxes: Boxes, case: Case, spec: InputSpec) -> NDArray[np.float32]:
    """Boxes in the case's pixels → in those of the network's grid, (slices, 4).

    Coordinates are scaled as the image is, as MedSAM does it, and moved where the image is padded.
    A slice without a box, which a window may hold as a neighbour, gets that of the nearest slice
    that has one. Raises what `placement` raises.
    """
    place = placement(case.size, case.spacing, spec)
    rows, columns = (new / old for new, old in zip(place.resized, case.size, strict=True))
    scaled = boxes * [columns, rows, columns, rows]
    scaled += np.array([place.left, place.top, place.left, place.top])
    shown = np.flatnonzero(~np.isnan(boxes[:, 0]))
    if shown.size:
        nearest = [shown[np.abs(shown - index).argmin()] for index in range(len(boxes))]
        scaled = scaled[nearest]
    return scaled.astype(np.float32)
