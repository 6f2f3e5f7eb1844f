"""What a client is shown of an error: what the library says, without paths and without texts that
may come from a file's header.
"""

from __future__ import annotations

import errno
import logging
import traceback
import warnings
from dataclasses import dataclass
from pathlib import Path

from segweave.errors import SegweaveError
from segweave.formats.guard import TooLargeError
from segweave.serve.limits import RefusedError

_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Message:
    """A status code, and a text without paths and names of patients."""

    status: int
    text: str


def public_message(error: BaseException, *folders: Path) -> Message:
    """What a client may read of `error`; `folders` are taken out of the text.

    The file of the error is left out: its name is the server's. What a foreign library says of a
    file is left out as well, its type alone is named, because it may quote the header.
    """
    if isinstance(error, RefusedError):
        return Message(error.status, str(error))
    if isinstance(error, MemoryError):
        return Message(413, "predicting\n  found: not enough memory for this image")
    cause = error if isinstance(error, OSError) else error.__cause__
    if isinstance(cause, OSError) and cause.errno in _FULL:
        return Message(507, "storing the job\n  found: no space left on the server")
    if not isinstance(error, SegweaveError):
        return Message(500, "unexpected error\n  what to do: ask the operator to look at the log")
    doing, found = error.doing, error.found
    if cause is not None and not isinstance(cause, SegweaveError):
        name = type(cause).__name__
        lines = str(cause).strip().splitlines() or [""]
        quoted = lines[0].strip()[:40]
        if quoted and found and quoted in found:
            found = name
        if quoted and quoted in doing:
            doing = f"{doing.partition(':')[0]}: {name}"
    plain = SegweaveError(doing, expected=error.expected, found=found, remedy=error.remedy)
    text = str(plain)
    for folder in folders:
        for path in (str(folder.absolute()), str(folder)):
            text = text.replace(path, "the upload")
    if isinstance(error, TooLargeError):
        return Message(413, text)
    return Message(422 if error.exit_code == 2 else 500, text)


def silence_readers() -> None:
    """Keep pydicom from logging and warning: it quotes values of headers, names too. The readers
    check what they need, and report it in words of the library.
    """
    logging.getLogger("pydicom").disabled = True
    warnings.filterwarnings("ignore", module="pydicom")


def where(error: BaseException) -> str:
    """The type of an unexpected error and the lines of code that it passed, without its text."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = " < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in reversed(frames[-6:]))
    return f"{type(error).__name__} at {lines}"
