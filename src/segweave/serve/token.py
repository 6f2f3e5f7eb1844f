"""Reads the token that clients send."""

from __future__ import annotations

from pathlib import Path

from segweave.errors import InputError

_SHORTEST = 16
_LONGEST = 4096


def read_token(file: str | Path, *, shortest: int = _SHORTEST, what: str = "a token") -> str:
    """The token in a file: one line of at least `shortest` printable characters. Raises InputError,
    which calls it `what`.
    """
    path, doing = Path(file), f"reading {what}"
    try:
        with path.open("rb") as stream:
            content = stream.read(_LONGEST + 1)
    except OSError as error:
        raise InputError(
            doing, file=path, expected=f"a file with {what}", found=str(error.strerror)
        ) from error
    text = content.decode("ascii", "replace").strip()
    if not shortest <= len(text) <= _LONGEST or not text.isascii() or not text.isprintable():
        raise InputError(
            doing,
            file=path,
            expected=f"one line of at least {shortest} letters, digits and signs",
            found=f"{len(text)} characters" if len(text) < shortest else "something else",
            remedy="make one: python -c 'import secrets; print(secrets.token_urlsafe(32))'"
            if shortest > 1
            else None,
        )
    return text
