"""Checks of a case before it enters a store: finite pixels, labels that belong to the target."""

from __future__ import annotations

import numpy as np

from segweave.data.case import Case, ids_in
from segweave.data.specs import TargetSpec
from segweave.errors import InputError


def check_case(case: Case, target: TargetSpec, *, labelled: bool = True) -> None:
    """Raise InputError where `case` can't be trained on with `target`.

    Pixels must be finite. There must be a label (unless `labelled` is False), and it must hold only
    known class ids or the ignored one of the target.
    """
    doing = f"checking the case {case.id!r}"
    file = case.provenance.file if case.provenance else None
    if case.image.dtype.kind == "f" and not np.isfinite(case.image).all():
        bad = np.flatnonzero(~np.isfinite(case.image).all(axis=(1, 2, 3)))
        raise InputError(
            doing,
            file=file,
            expected="finite pixel values",
            found=f"NaN or infinite ones in slice {int(bad[0])} ({bad.size} slices in all)",
            remedy="repair the file or leave it out",
            kind="values",
        )
    if case.image.dtype.kind not in "fiub":
        raise InputError(
            doing,
            file=file,
            expected="numbers as pixels",
            found=str(case.image.dtype),
            kind="unsupported",
        )
    if case.label is None:
        if labelled:
            raise InputError(
                doing, file=file, expected="a label for the image", found="none", kind="missing"
            )
        return
    if target.kind == "image":
        _check_image(case, target, doing, file)
        return
    overlapping = target.kind == "overlapping"
    if (case.label.ndim == 4) != overlapping or (
        overlapping and case.label.shape[1] != len(target.names)
    ):
        raise InputError(
            doing,
            file=file,
            expected=f"a label map of {len(target.names)} overlapping classes"
            if overlapping
            else "one label map per slice",
            found=str(case.label.shape),
            kind="labels",
        )
    if case.label.dtype != np.uint8:
        raise InputError(
            doing,
            file=file,
            expected="a label map of uint8",
            found=str(case.label.dtype),
            kind="labels",
        )
    known = {0, 1} if target.kind != "exclusive" else set(range(len(target.names)))
    if target.ignored is not None:
        known.add(target.ignored)
    unknown = sorted(set(ids_in(case.label)) - known)
    if unknown:
        raise InputError(
            doing,
            file=file,
            expected=f"class ids {sorted(known)} ({', '.join(target.names)})",
            found=f"ids {unknown}",
            remedy="check that the file is a label map of this data set",
            kind="labels",
        )


def _check_image(case: Case, target: TargetSpec, doing: str, file: str | None) -> None:
    """Raise InputError unless the label is an image with the target's channels."""
    assert case.label is not None
    wanted = (case.slices, len(target.names), *case.size)
    if case.label.shape != wanted or case.image.shape[1] != len(target.names):
        raise InputError(
            doing,
            file=file,
            expected=f"an image and a true image with the channels {', '.join(target.names)}",
            found=f"shapes {case.image.shape} and {case.label.shape}",
            kind="labels",
        )
    if case.label.dtype.kind == "f" and not np.isfinite(case.label).all():
        raise InputError(
            doing,
            file=file,
            expected="finite values in the true image",
            found="NaN or infinite ones",
            kind="values",
        )


def scattered(case: Case) -> list[int]:
    """The numbers of objects that cover several pieces (pixels that touch at a corner are one)."""
    from scipy.ndimage import find_objects, label

    found = []
    for plane in () if case.instances is None else case.instances:
        for number, box in enumerate(find_objects(plane), 1):
            if box is not None and label(plane[box] == number, np.ones((3, 3)))[1] > 1:
                found.append(number)
    return found


def classes_held(case: Case, target: TargetSpec) -> set[int]:
    """The numbers of the classes, as in `target.foreground`, that a case's label holds."""
    if case.label is None:
        return set()
    if target.kind == "image":
        return set(target.foreground)
    if target.kind == "overlapping":
        return {k for k in range(case.label.shape[1]) if case.label[:, k].any()}
    return set(ids_in(case.label))
