"""Tells an error of a reader or of a data set as a problem of a kind."""

from __future__ import annotations

from pathlib import Path

from segweave.checking.report import Problem
from segweave.errors import SegweaveError

_KINDS = (
    ("finite pixel", "values"),
    ("opaque pixels", "values"),
    ("class ids", "labels"),
    ("0 and 1", "labels"),
    ("0 and 255", "labels"),
    ("a label map of integers", "labels"),
    ("a label image with class ids", "labels"),
    ("ids [", "labels"),
    ("one voxel size", "header"),
    ("a label on the same voxels", "geometry"),
    ("a channel on the same voxels", "geometry"),
    ("a label of the image's size", "size"),
    ("the image's size", "size"),
    ("the size of", "size"),
    ("an image of", "size"),
    ("a complete, undamaged", "damaged"),
    ("a file with content", "damaged"),
    ("an array named label", "missing"),
    ("a label for the image", "missing"),
    ("image and label together", "missing"),
    ("every file that is listed", "missing"),
)
_BY_KIND = ("size", "geometry", "header", "missing")


def kind_of(error: SegweaveError) -> str:
    """The kind that an error's expectation or remedy tells, "" for any other."""
    expected = error.expected or ""
    kind = next((k for start, k in _KINDS if expected.startswith(start)), "")
    damaged = any(word in (error.remedy or "") for word in ("truncated", "download"))
    return "damaged" if damaged and kind in ("", "missing") else kind


def problem_of(error: SegweaveError, *, kind: str, case: str, file: Path | None) -> Problem:
    """An error as a problem of a case and a file, with its own remedy unless `check` knows a better
    one for the kind.
    """
    return Problem(
        kind=kind,
        severity="error",
        found=error.found or error.doing,
        expected=error.expected or "",
        case=case,
        file=file,
        remedy="" if kind in _BY_KIND else error.remedy or "",
    )
