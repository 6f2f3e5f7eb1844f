"""Reads a recipe from YAML: follows `extends`, applies `--set`, and says in plain words what is
wrong with it.
"""

from __future__ import annotations

import types
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from segweave.errors import InputError, UsageError, nearest
from segweave.recipes.recipe import Recipe

SHIPPED = Path(__file__).parent
_LARGEST = 1_000_000  # bytes; a recipe is a page of text
# Of these two keys of a section, giving one takes the other away.
_EITHER = {"training": ("epochs", "steps"), "input": ("size", "spacing")}
_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "string": "text",
    "bool": "true or false",
    "tuple": "a list",
    "list": "a list",
    "dict": "a mapping of keys to values",
    "model": "a mapping of keys to values",
}


def list_recipes() -> list[str]:
    """Names of the recipes that come with segweave."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def load_recipe(path_or_name: str | Path, sets: Sequence[str] = ()) -> Recipe:
    """The resolved recipe of a YAML file or of a shipped name.

    `extends:` in a file names a shipped recipe or a path beside it, whose values it overrides key
    by key. `sets` are texts "training.epochs=10" that override any field. Where a `name` changes,
    the `options` that belonged to the old name are dropped; where one of epochs and steps, or of
    size and spacing, is given, the other is taken away. Raises InputError (file, key, what was
    expected) or UsageError.
    """
    path = _find(path_or_name, beside=None)
    values = merge(merge({}, _read(path, seen=())), _from_sets(sets))
    values.setdefault("arm", path.stem)
    return parse_recipe(values, file=path, given=[text.partition("=")[0].strip() for text in sets])


def parse_recipe(
    values: Mapping[str, Any], *, file: Path | None = None, given: Iterable[str] = ()
) -> Recipe:
    """A recipe from plain values; `given` are dotted keys that came from `--set`. Raises
    InputError.
    """
    doing = "reading a recipe"
    found = values.get("format", 1)
    if found != 1:
        raise InputError(
            doing,
            file=file,
            expected="format: 1",
            found=f"format: {found}",
            remedy="this recipe was written for another version of segweave",
        )
    try:
        return Recipe.model_validate(dict(values))
    except ValidationError as error:
        # A wrong key explains most of what else is wrong, so it comes first.
        problems = sorted(
            error.errors(include_url=False), key=lambda found: found["type"] != "extra_forbidden"
        )
        first = problems[0]
        key = _dotted(first)
        expected, what, remedy = _explain(first)
        if key in set(given):
            what += f" (from --set {key})"
        if len(problems) > 1:
            others = sorted({_dotted(problem) for problem in problems[1:]})
            remedy = "; ".join(filter(None, [remedy, "also look at " + ", ".join(others[:5])]))
        raise InputError(doing, file=file, expected=expected, found=what, remedy=remedy) from None


def merge(
    base: Mapping[str, Any], over: Mapping[str, Any], section: str | None = None
) -> dict[str, Any]:
    """`over` laid on `base`, mapping by mapping; lists and single values are replaced. `section` is
    the key that both stand under.
    """
    result = dict(base)
    if "name" in over and over["name"] != base.get("name"):
        result.pop("options", None)  # they belong to the name that is replaced
    first, second = _EITHER.get(section or "", ("", ""))
    for one, other in ((first, second), (second, first)):
        if over.get(one) is not None and other not in over:
            result[other] = None
    for key, value in over.items():
        old = result.get(key)
        if isinstance(value, Mapping):
            inside = f"{section}.{key}" if section else key
            result[key] = merge(old if isinstance(old, Mapping) else {}, value, inside)
        else:
            result[key] = value
    return result


def _find(path_or_name: str | Path, *, beside: Path | None) -> Path:
    text = str(path_or_name)
    path = Path(text) if beside is None else beside / text
    if path.is_file():
        return path
    if path.suffix in (".yaml", ".yml") or len(Path(text).parts) > 1:
        raise InputError(
            "reading a recipe", file=path, expected="a YAML file", found="no such file"
        )
    if text not in list_recipes():
        raise UsageError(
            "choosing a recipe",
            expected="a YAML file or the name of a shipped recipe",
            found=repr(text),
            remedy=nearest(text, list_recipes()),
        )
    return SHIPPED / f"{text}.yaml"


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice, which YAML itself would silently overrule."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for index, key in enumerate(keys):
            if key in keys[:index]:
                mark = node.value[index][0].start_mark
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is given twice", mark
                )
        return super().construct_mapping(node, deep=deep)


def _read(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    doing = "reading a recipe"
    path = path.resolve()
    if path in seen:
        chain = " → ".join(p.name for p in (*seen, path))
        raise InputError(doing, file=path, expected="extends without a circle", found=chain)
    try:
        if path.stat().st_size > _LARGEST:
            raise InputError(
                doing, file=path, expected="a page of text", found=f"{path.stat().st_size} bytes"
            )
        # _Loader is a SafeLoader: no YAML tag can run code.
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise InputError(
            doing, file=path, expected="valid YAML", found=f"{where}{error.problem}"
        ) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise InputError(
            doing, file=path, expected="a YAML file", found=f"{type(error).__name__}: {error}"
        ) from None
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise InputError(doing, file=path, expected="keys and values", found=_name_type(values))
    parent = values.pop("extends", None)
    if parent is None:
        return values
    if not isinstance(parent, str):
        raise InputError(
            doing,
            file=path,
            expected="extends: a shipped recipe's name or a path",
            found=_name_type(parent),
        )
    return merge(_read(_find(parent, beside=path.parent), (*seen, path)), values)


def _from_sets(sets: Sequence[str]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for text in sets:
        key, equals, value_text = text.partition("=")
        parts = key.strip().split(".")
        if not equals or not all(parts):
            raise UsageError(
                "reading --set", expected="KEY=VALUE, as in training.epochs=10", found=repr(text)
            )
        try:
            value = yaml.safe_load(value_text)
        except yaml.YAMLError:
            raise UsageError(
                "reading --set", expected="a YAML value after =", found=repr(text)
            ) from None
        place = result
        for part in parts[:-1]:
            inner = place.setdefault(part, {})
            if not isinstance(inner, dict):
                inner = place[part] = {}
            place = inner
        place[parts[-1]] = value
    return result


def _dotted(error: ErrorDetails) -> str:
    return ".".join(str(part) for part in error["loc"])


def _explain(error: ErrorDetails) -> tuple[str | None, str, str | None]:
    """(expected, found, what to do) for one of pydantic's errors, in the user's words."""
    location = [str(part) for part in error["loc"]]
    key = ".".join(location) or "the recipe"
    kind = error["type"]
    context = error.get("ctx", {})
    value = f"{key}: {_show(error['input'])}"
    if kind == "extra_forbidden":
        known = _keys_at(location[:-1])
        return None, f"unknown key {key!r}", _suggest(location[-1], location[:-1], known)
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
    if kind in ("too_short", "too_long"):
        count = context.get("min_length", context.get("max_length"))
        return f"a list of {count}", value, None
    word = _WORDS.get(kind.split("_")[0], error["msg"])
    return word, value, None


def _keys_at(location: Sequence[str]) -> dict[str, Any]:
    """Known keys of the section at `location` with their types, or nothing where it is free."""
    current: Any = Recipe
    for part in location:
        fields = _fields(current)
        if part in fields:
            current = fields[part]
        elif part.isdigit():
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


def _suggest(name: str, section: Sequence[str], known: Mapping[str, Any]) -> str:
    elsewhere = [dotted for dotted, last in _all_keys(Recipe).items() if last == name]
    if elsewhere:
        return "did you mean " + " or ".join(elsewhere) + "?"
    prefix = ".".join(section)
    remedy = nearest(name, known) + (f" (in {prefix})" if prefix else "")
    if "options" in known:
        remedy += f"; options of its own go under {prefix}.options"
    return remedy


def _show(value: Any) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _name_type(value: Any) -> str:
    if value is None:
        return "an empty file"
    return {"list": "a list", "str": "text", "dict": "keys that are not text"}.get(
        type(value).__name__, type(value).__name__
    )
