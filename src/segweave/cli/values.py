"""Options of a data set's function as options of the command: types, and texts to values."""

from __future__ import annotations

import collections.abc
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

_NONE = ("", "none", "null")


def simple(annotation: Any) -> tuple[Any, str | None]:
    """The type that the command line parses for a type, and its metavar."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return str, "|".join(str(value) for value in inner)
    if origin is collections.abc.Sequence:
        return str, "A,B,..."
    if inner:
        chosen = next((a for a in inner if a is not type(None)), str)
        return simple(Path if Path in inner else chosen)
    names: dict[Any, str | None] = {int: "N", float: "X", Path: "FILE", str: "TEXT", bool: None}
    return (annotation, names[annotation]) if annotation in names else (str, "TEXT")


def from_text(value: Any, annotation: Any) -> Any:
    """A value of the command line, lists joined with commas → the function's argument."""
    from segweave.errors import UsageError

    options = [annotation, *get_args(annotation)]
    sequence = next((a for a in options if get_origin(a) is collections.abc.Sequence), None)
    if sequence is None or not isinstance(value, str):
        return value
    kind: Callable[[str], Any] = get_args(sequence)[0]
    try:
        return [kind(item.strip()) for item in value.split(",")]
    except ValueError:
        raise UsageError(
            "reading an option", expected="numbers joined with commas", found=repr(value)
        ) from None


def option_from_text(name: str, text: str, annotation: Any) -> Any:
    """The text of an option NAME=TEXT → the function's argument."""
    from segweave.errors import UsageError

    if type(None) in get_args(annotation) and text.strip().lower() in _NONE:
        return None
    kind, shown = simple(annotation)
    if kind is bool and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if kind not in (str, bool):
        try:
            return kind(text)
        except ValueError:
            raise UsageError(
                "reading an option", expected=f"{name}={shown}", found=f"{name}={text}"
            ) from None
    return from_text(text.strip("[]"), annotation) if shown == "A,B,..." else text
