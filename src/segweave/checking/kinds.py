"""Turns an error of a reader or of a data set into a problem of the report."""

from __future__ import annotations

from pathlib import Path

from segweave.checking.report import Problem
from segweave.errors import ErrorKind, SegweaveError

_BETTER_REMEDY = ("size", "geometry", "header")
"""Kinds for which `check` knows a better remedy than the reader: its own `--fix` and `--option`."""


def problem_of(
    error: SegweaveError, *, default: ErrorKind, case: str, file: Path | None
) -> Problem:
    """An error as a problem of a case and a file.

    Args:
        error: what was raised.
        default: the kind for an error that carries none (from a user's own data set).
        case: the id of the case, "" where it is not known.
        file: the file that the problem is about.
    """
    kind = error.kind or default
    return Problem(
        kind=kind,
        severity="error",
        found=error.found or error.doing,
        expected=error.expected or "",
        case=case,
        file=file,
        remedy="" if kind in _BETTER_REMEDY else error.remedy or "",
    )
