"""The exceptions of the project: each says what was being done, with which file, what was expected
and found, and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

_AVAILABLE = "available:"
_ON_ONE_LINE = 8


ErrorKind = Literal[
    "damaged",
    "missing",
    "same-id",
    "same-content",
    "size",
    "geometry",
    "header",
    "labels",
    "values",
    "layout",
    "unsupported",
    "turned",
    "unusual",
    "empty-label",
    "full-label",
    "range",
    "split",
    "unused",
    "note",
]
"""What is wrong with a file or a data set; `segweave.checking` has a remedy for each."""


class SegweaveError(Exception):
    """Base of all errors that segweave raises on purpose.

    The command prints the message without a traceback and leaves with `exit_code`
    (2: wrong use or wrong input, 1: a failure while working).
    """

    exit_code = 1

    def __init__(
        self,
        doing: str,
        *,
        file: str | Path | None = None,
        expected: str | None = None,
        found: str | None = None,
        remedy: str | None = None,
        kind: ErrorKind | None = None,
    ) -> None:
        """Make the error from its parts.

        Args:
            doing: what was being done, as a phrase ("reading a store").
            file: the file or folder concerned.
            expected: what was expected there.
            found: what was found instead.
            remedy: what to do about it.
            kind: the kind of fault, for errors that `check` sorts; never shown.
        """
        self.kind = kind
        self.doing = doing
        self.file = Path(file) if file is not None else None
        self.expected = expected
        self.found = found
        self.remedy = remedy
        parts = [doing]
        for label, value in (
            ("file", self.file),
            ("expected", expected),
            ("found", found),
            ("what to do", remedy),
        ):
            if value is not None and str(value).startswith(_AVAILABLE):
                parts.append(f"  {value}")
            elif value is not None:
                parts.append(f"  {label}: {value}")
        super().__init__("\n".join(parts))


class InputError(SegweaveError):
    """A file, image, label, checkpoint or recipe is not what it should be."""

    exit_code = 2


class UsageError(SegweaveError, ValueError):
    """A name, an option or a combination of options is wrong."""

    exit_code = 2


class MissingExtraError(SegweaveError, ImportError):
    """A library that belongs to an optional extra is not installed."""

    exit_code = 2

    def __init__(self, doing: str, *, library: str, extra: str) -> None:
        super().__init__(
            doing,
            expected=f"the library {library}",
            found="it is not installed",
            remedy=f'pip install "segweave[{extra}]"',
        )


def nearest(name: str, known: Iterable[str]) -> str:
    """The remedy for a wrong name: the known entries that are closest to `name`, or all of them
    where none is close.
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if close:
        return "did you mean " + " or ".join(close) + "?"
    if len(names) > _ON_ONE_LINE:
        return "\n    ".join([_AVAILABLE, *names])
    return f"{_AVAILABLE} " + ", ".join(names)
