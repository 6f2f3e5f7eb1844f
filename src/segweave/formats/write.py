"""Writes label maps in the geometry of the file that their case came from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segweave.data.case import Case
from segweave.errors import InputError, UsageError
from segweave.formats.arrays import write_npz
from segweave.formats.files import META, NIFTI, suffix_of
from segweave.formats.meta import write_meta
from segweave.formats.nifti import write_nifti
from segweave.formats.pictures import write_picture


def write_label(
    labels: NDArray[Any], case: Case, path: str | Path, *, binary: bool = False
) -> None:
    """Write `labels`, (slices, height, width) or (slices, classes, height, width) on the case's
    axes, to `path`: .nii and .nii.gz bear the header of the case's own file, .png is a grey image
    of class ids (0 and 255 if `binary`), .mha and .nrrd bear its
    geometry, .npz holds the array `label` and its spacing.

    The file appears whole or not at all. Raises InputError for labels of another size than the
    case, UsageError for an ending that can't hold them.
    """
    doing = "writing a label map"
    file = Path(path)
    grid = (case.slices, *case.size)
    if labels.ndim not in (3, 4) or (labels.shape[0], *labels.shape[-2:]) != grid:
        raise InputError(
            doing,
            file=file,
            expected="labels of the case's size, {} × {} × {}".format(*grid),
            found=" × ".join(map(str, labels.shape)),
            kind="size",
        )
    labels = np.ascontiguousarray(labels, dtype=np.uint8)
    suffix = suffix_of(file)
    if suffix in NIFTI:
        write_nifti(labels, case, file)
    elif suffix in META and labels.ndim == 3:
        write_meta(labels, case, file)
    elif suffix == ".npz":
        write_npz(labels, case.spacing, file)
    elif suffix == ".png" and labels.ndim == 3 and len(labels) == 1:
        write_picture(labels[0], file, binary=binary)
    else:
        raise UsageError(
            doing,
            file=file,
            expected="a path that ends in .nii, .nii.gz or .npz, or in .png for one slice of "
            "exclusive classes",
            found=f"{file.name} for labels of shape {labels.shape}",
        )
