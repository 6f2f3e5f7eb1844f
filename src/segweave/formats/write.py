"""Writes label maps in the geometry of the file that their case came from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segweave.data.case import Case
from segweave.data.specs import TargetSpec
from segweave.errors import InputError
from segweave.formats.nifti import HEADER_ATTRIBUTE
from segweave.formats.table import cannot_hold, format_of, label_format

_DOING = "writing a label map"


def write_label(
    labels: NDArray[Any],
    case: Case,
    path: str | Path,
    *,
    format: str | None = None,
    target: TargetSpec | None = None,
) -> None:
    """Write a label map to a file, which appears whole or not at all.

    NIfTI (.nii.gz, .nii) keeps the header of the case's own file, .mha and .nrrd its geometry, .npz
    and .h5 hold the array `label` and its spacing, .png is a grey image of class ids (0 and 255 of
    a binary target).

    Args:
        labels: (slices, height, width) or (slices, classes, height, width) on the case's axes.
        case: the case, whose geometry the label map gets.
        path: the file to write.
        format: the name of its format (`label_formats()`); by the ending of `path` unless given.
        target: the classes, for formats that say more of them than their ids.

    Raises InputError for labels of another size than the case and for a case without the geometry
    that the format needs, UsageError for a format that can't hold them.
    """
    file = Path(path)
    grid = (case.slices, *case.size)
    if labels.ndim not in (3, 4) or (labels.shape[0], *labels.shape[-2:]) != grid:
        raise InputError(
            _DOING,
            file=file,
            expected="labels of the case's size, {} × {} × {}".format(*grid),
            found=" × ".join(map(str, labels.shape)),
            kind="size",
        )
    chosen = format_of(file) if format is None else label_format(format)
    overlapping = labels.ndim == 4
    fits = chosen is not None and chosen.holds(slices=case.slices, overlapping=overlapping)
    if chosen is None or chosen.write is None or not fits:
        raise cannot_hold(_DOING, file, case.slices, overlapping)
    chosen.write(np.ascontiguousarray(labels, dtype=np.uint8), case, file, target)


def suitable_format(case: Case, *, overlapping: bool = False) -> str:
    """The name of the format that keeps the most of a case's label map: nifti where the case has
    the geometry for it, png for a single image of exclusive classes, else npz.
    """
    if HEADER_ATTRIBUTE in case.attributes and case.source_grid is not None:
        return "nifti"
    return "png" if case.stack == "single" and not overlapping else "npz"
