"""The exceptions of the project: each names what was being done, the file, what was expected, what
was found, and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from segweave.words import printable

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError
    from pydantic_core import ErrorDetails

_AVAILABLE = "available:"
_ON_ONE_LINE = 8
_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "finite": "a finite number",
    "bool": "true or false",
    "string": "a text",
    "list": "a list",
    "tuple": "a list",
    "dict": "keys and values",
    "model": "keys and values",
    "path": "a path",
}


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
        super().__init__(printable("\n".join(parts)))


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


def one_line(error: SegweaveError) -> str:
    """What went wrong on one line, for a list of problems."""
    parts = [error.doing]
    if error.expected:
        parts.append(f"expected {error.expected}")
    if error.found:
        parts.append(f"found {error.found}")
    return "; ".join(parts)


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


def from_validation(
    error: ValidationError,
    doing: str,
    *,
    model: type[BaseModel],
    file: str | Path | None = None,
    section: str = "",
) -> InputError:
    """The InputError for what pydantic found wrong in a file that a user may have written.

    It names one key, with what was expected there and what was found. A wrong key explains most of
    what else is wrong, so it comes first, with the nearest right ones.

    Args:
        error: what pydantic raised.
        doing: what was being done, as a phrase.
        model: the model that the content should have fitted; it names the right keys.
        file: the file that was read.
        section: the key of the file under which the content is, where it is not the whole file.
    """
    problems = sorted(
        error.errors(include_url=False), key=lambda problem: problem["type"] != "extra_forbidden"
    )
    prefix = [section] if section else []
    first, *others = problems
    location = [*prefix, *map(str, first["loc"])]
    expected, found = _in_words(first, ".".join(location))
    remedy = None
    if first["type"] == "extra_forbidden":
        remedy = nearest(location[-1], _keys_at(model, first["loc"][:-1]))
    names = sorted({".".join([*prefix, *map(str, other["loc"])]) for other in others} - {""})
    if names:
        remedy = "; ".join(filter(None, [remedy, "also look at " + ", ".join(names[:5])]))
    return InputError(doing, file=file, expected=expected, found=found, remedy=remedy)


def _in_words(problem: ErrorDetails, key: str) -> tuple[str | None, str]:
    """(expected, found) of one of pydantic's errors."""
    kind, context = problem["type"], problem.get("ctx", {})
    value = f"{key}: {_shown(problem['input'])}" if key else _shown(problem["input"])
    if kind == "extra_forbidden":
        return None, f"unknown key {key!r}"
    if kind == "missing":
        return f"the key {key!r}", "it is missing"
    if kind == "value_error":
        return str(context.get("error", problem["msg"])), value
    if kind in ("literal_error", "enum"):
        return str(context.get("expected")), value
    for name, symbol in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<")):
        if name in context:
            return f"{key} {symbol} {context[name]}", value
    if kind in ("too_short", "too_long"):
        length = context.get("min_length", context.get("max_length"))
        return f"a list of {'at least' if kind == 'too_short' else 'at most'} {length}", value
    return _TYPES.get(kind.split("_")[0], problem["msg"]), value


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return "keys and values"
    text = repr(value)
    return text if len(text) <= 80 else text[:79] + "…"


def _keys_at(model: Any, location: Sequence[int | str]) -> list[str]:
    """The keys of the section at `location` of a model, [] where they are free."""
    for step in location:
        if isinstance(step, int):
            continue
        fields = {field.alias or name: field for name, field in model.model_fields.items()}
        model = _model_in(fields[step].annotation) if step in fields else None
        if model is None:
            return []
    return [field.alias or name for name, field in model.model_fields.items()]


def _model_in(annotation: Any) -> Any:
    """The pydantic model in an annotation such as `tuple[Model, ...] | None`, None without one."""
    if hasattr(annotation, "model_fields"):
        return annotation
    return next(filter(None, map(_model_in, get_args(annotation))), None)
