"""Says in the user's words what is wrong with a recipe: pydantic's errors, with the nearest key."""

from __future__ import annotations

import types
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from segweave.errors import InputError, nearest

_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "string": "text",
    "bool": "true or false",
    "tuple": "a list",
    "list": "a list",
    "dict": "a mapping of keys to values",
    "model": "a mapping of keys to values",
}


# What pairs of numbers mean, by the last part of their key.
_PAIRS = {
    "size": "[height, width] in pixels",
    "spacing": "[row, column] in mm",
    "clip": "[lowest, highest] value",
    "clip_percentiles": "[lowest, highest] percentile",
    "betas": "[first, second]",
}
# Names of other programs → ours.
_SYNONYMS = {
    "lr": "rate",
    "learning_rate": "rate",
    "max_epochs": "epochs",
    "num_epochs": "epochs",
    "batch": "batch_size",
    "wd": "weight_decay",
    "image_size": "size",
    "model": "network",
    "criterion": "loss",
}


def explained(
    error: ValidationError,
    model: type[BaseModel],
    doing: str,
    *,
    file: Path | None,
    set_keys: Collection[str],
) -> InputError:
    """The InputError for what pydantic found wrong in a recipe.

    Args:
        error: what pydantic raised.
        model: the recipe's model, which names the right keys.
        doing: what was being done, as a phrase.
        file: the file that was read.
        set_keys: the keys that came from `--set`.
    """
    # A wrong key explains most of what else is wrong, so it comes first.
    problems = sorted(
        error.errors(include_url=False), key=lambda problem: problem["type"] != "extra_forbidden"
    )
    first = problems[0]
    key = _dotted_key(first)
    expected, found, remedy = explain(first, model)
    if key in set_keys:
        found += f" (from --set {key})"
    if len(problems) > 1:
        others = sorted({_dotted_key(problem) for problem in problems[1:]})
        remedy = "; ".join(filter(None, [remedy, "also look at " + ", ".join(others[:5])]))
    return InputError(doing, file=file, expected=expected, found=found, remedy=remedy)


def _dotted_key(error: ErrorDetails) -> str:
    """The key that an error is about, as in "training.epochs"."""
    return ".".join(str(part) for part in error["loc"])


def explain(error: ErrorDetails, model: type[BaseModel]) -> tuple[str | None, str, str | None]:
    """(expected, found, what to do) for one of pydantic's errors."""
    location = [str(part) for part in error["loc"]]
    key = ".".join(location) or "the recipe"
    kind = error["type"]
    context = error.get("ctx", {})
    value = f"{key}: {_show(error['input'])}"
    if kind == "extra_forbidden":
        known = _keys_at(model, location[:-1])
        return None, f"unknown key {key!r}", _suggest(model, location[-1], location[:-1], known)
    if kind == "missing":
        return f"the key {key!r}", "it is missing", None
    if kind == "value_error":
        prefix = f"{key}: " if location else ""
        return str(context.get("error", error["msg"])), f"{prefix}as given", None
    if kind in ("literal_error", "enum"):
        return f"{context.get('expected')}", value, None
    for name, symbol in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<")):
        if name in context:
            return f"{key} {symbol} {context[name]}", value, None
    pair = _PAIRS.get(location[-1] if location else "")
    if pair is not None and kind.split("_")[0] in ("tuple", "list", "too", "missing"):
        return f"{key}: {pair}", value, _as_pair(key, error["input"])
    if kind in ("too_short", "too_long"):
        count = context.get("min_length", context.get("max_length"))
        return f"a list of {count}", value, None
    expected_type = _TYPES.get(kind.split("_")[0], error["msg"])
    return expected_type, value, None


def _as_pair(key: str, value: Any) -> str | None:
    """What to write where one number was given for two."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{key}=[{value},{value}]"
    return None


def _keys_at(model: type[BaseModel], location: Sequence[str]) -> dict[str, Any]:
    """Known keys of the section at `location` with their types, or nothing where it is free."""
    current: Any = model
    for step in location:
        fields = _fields(current)
        if step in fields:
            current = fields[step]
        elif step.isdigit():
            current = _element_of(current)
        else:
            return {}
    return _fields(current)


def _fields(annotation: Any) -> dict[str, Any]:
    model = _model_in(annotation)
    if model is None:
        return {}
    return {name: field.annotation for name, field in model.model_fields.items()}


def _element_of(annotation: Any) -> Any:
    """The type of a list's elements, where the annotation allows a list."""
    if get_origin(annotation) in (Union, types.UnionType):
        lists = [inner for inner in get_args(annotation) if get_origin(inner) in (tuple, list)]
        return lists[0] if lists else annotation
    return annotation


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (Union, types.UnionType, tuple, list):
        for inner in get_args(annotation):
            model = _model_in(inner)
            if model is not None:
                return model
    return None


def _all_keys(annotation: Any, path: str = "") -> dict[str, str]:
    """Every dotted key of a recipe → its last part."""
    result: dict[str, str] = {}
    for name, inner in _fields(annotation).items():
        dotted = f"{path}.{name}" if path else name
        result[dotted] = name
        result.update(_all_keys(inner, dotted))
    return result


def _suggest(
    model: type[BaseModel], name: str, section: Sequence[str], known: Mapping[str, Any]
) -> str:
    name = _SYNONYMS.get(name, name) if name not in known else name
    elsewhere = [dotted for dotted, last in _all_keys(model).items() if last == name]
    if elsewhere:
        return "did you mean " + " or ".join(elsewhere) + "?"
    prefix = ".".join(section)
    remedy = nearest(name, known) + (f" (in {prefix})" if prefix else "")
    if "options" in known:
        remedy += f"; options of the constructor go under {prefix}.options"
    return remedy


def _show(value: Any) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
