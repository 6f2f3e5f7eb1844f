"""Brings label maps into the shape that every metric works on: checked, cut to the foreground,
classes numbered 1, 2, ...
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segweave.errors import InputError, UsageError

Spacing = Sequence[float] | None
"""Millimetres per axis, in the order of the axes; None where they are unknown (pixels)."""


def check_pair(prediction: NDArray[Any], reference: NDArray[Any]) -> None:
    """Raise InputError unless both are integer or boolean label maps of one 2D or 3D shape."""
    if prediction.shape != reference.shape or prediction.ndim not in (2, 3):
        raise InputError(
            "comparing two label maps",
            expected="two arrays of one shape, (height, width) or (slices, height, width)",
            found=f"prediction {prediction.shape}, reference {reference.shape}",
        )
    for name, array in (("prediction", prediction), ("reference", reference)):
        if array.dtype.kind not in "bui":
            raise InputError(
                "comparing two label maps",
                expected=f"integer class ids in the {name}",
                found=f"values of type {array.dtype}",
                remedy="make labels of probabilities first (segweave.data.specs.decide)",
            )


def check_classes(classes: Sequence[int]) -> tuple[int, ...]:
    """The class ids as a tuple; UsageError where one is 0 (background), negative or repeated."""
    ids = tuple(int(c) for c in classes)
    if not ids or min(ids) < 1 or len(set(ids)) != len(ids) or len(ids) > 255:
        raise UsageError(
            "choosing the classes to score",
            expected="1 to 255 different ids of 1 and above",
            found=str(ids),
        )
    return ids


def foreground_box(*arrays: NDArray[Any]) -> tuple[slice, ...] | None:
    """The smallest box that holds every voxel that is not 0 in any of the arrays; None where all
    are 0. Outside it is background, as beyond the array's edge, so that surfaces in the box are
    those of the whole.
    """
    box: list[slice] = []
    one_type = len({array.dtype for array in arrays}) == 1
    # Bits joined over whole axes give the same as `any`, several times as fast.
    joined = functools.reduce(
        np.bitwise_or, arrays if one_type else [array != 0 for array in arrays]
    )
    for axis in range(joined.ndim):
        line = joined
        for other in reversed(range(joined.ndim)):
            if other != axis:
                line = np.bitwise_or.reduce(line, axis=other)
        filled = np.flatnonzero(line)
        if filled.size == 0:
            return None
        extent = slice(int(filled[0]), int(filled[-1]) + 1)
        box.append(extent)
        joined = joined[(slice(None),) * axis + (extent,)]
    return tuple(box)


def numbered(array: NDArray[Any], classes: tuple[int, ...]) -> NDArray[np.uint8]:
    """The label map with the id `classes[k]` as k + 1 and everything else as 0."""
    if array.dtype == np.bool_:
        array = array.view(np.uint8)
    if array.dtype == np.uint8:
        in_order = classes == tuple(range(1, len(classes) + 1))
        if in_order and int(array.max(initial=0)) <= len(classes):
            return array
        table = np.zeros(256, np.uint8)
        for k, c in enumerate(classes):
            if c < 256:
                table[c] = k + 1
        return table[array]
    out = np.zeros(array.shape, np.uint8)
    for k, c in enumerate(classes):
        out[array == c] = k + 1
    return out
