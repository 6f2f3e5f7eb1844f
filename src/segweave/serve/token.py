"""Reads the token that clients send."""

from __future__ import annotations

from pathlib import Path

from segweave.errors import InputError

_SHORTEST = 16
_LONGEST = 4096


def read_token(file: str | Path) -> str:
    """The token in a file: one line of at least 16 printable characters. Raises InputError."""
    path, doing = Path(file), "reading a token"
    try:
        with path.open("rb") as stream:
            content = stream.read(_LONGEST + 1)
    except OSError as error:
        raise InputError(
            doing, file=path, expected="a file with the token", found=str(error.strerror)
        ) from error
    text = content.decode("ascii", "replace").strip()
    if not _SHORTEST <= len(text) <= _LONGEST or not text.isascii() or not text.isprintable():
        raise InputError(
            doing,
            file=path,
            expected=f"one line of at least {_SHORTEST} letters, digits and signs",
            found=f"{len(text)} characters" if len(text) < _SHORTEST else "something else",
            remedy="make one: python -c 'import secrets; print(secrets.token_urlsafe(32))'",
        )
    return text
