"""Reads a recipe from YAML: merges what `extends` names, then `--set`, in this order."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from segweave import registry
from segweave.errors import InputError, UsageError, nearest
from segweave.recipes.explain import dotted_key, explain
from segweave.recipes.recipe import Recipe

SHIPPED = Path(__file__).parent
_PARTS = ("data", "network", "training")
_READING = "reading a recipe"
_LARGEST = 1_000_000  # bytes; a recipe is a page of text
_MOST_VALUES = 10_000
# What the library raises for texts that are no YAML, and its constructors for values that are none.
_NO_YAML = (yaml.YAMLError, RecursionError, ValueError, TypeError, LookupError, AttributeError)
# Of these two keys of a section, giving one takes the other away.
_EITHER = {"training": ("epochs", "steps"), "input": ("size", "spacing")}
# A label does not outlive a change of what it names.
_NAMED_BY_THE_LABEL = ("network", "context", "weaving")


def list_recipes() -> list[str]:
    """Names of the shipped recipes that can be trained."""
    return sorted(name for name in _shipped() if "/" not in name)


def list_recipe_parts() -> list[str]:
    """Names of the shipped parts that recipes extend: `data/acdc`, `network/unet-16`, ..."""
    return sorted(name for name in _shipped() if "/" in name)


def recipe_file(name: str) -> Path:
    """The file of a shipped recipe or part. Raises UsageError, naming the nearest."""
    shipped = _shipped()
    if name not in shipped:
        is_part = name.partition("/")[0] in _PARTS
        if name in registry.networks.cards():
            raise UsageError(
                "choosing a recipe",
                expected="a YAML file or the name of a shipped recipe",
                found=f"{name!r}, which is a network",
                remedy=f"give a recipe and --network {name}; recipes: {', '.join(list_recipes())}",
            )
        raise UsageError(
            "choosing a recipe",
            expected="a YAML file or the name of a shipped recipe",
            found=repr(name),
            remedy=nearest(name, list_recipe_parts() if is_part else list_recipes()),
        )
    return shipped[name]


def _shipped() -> dict[str, Path]:
    """Name → file: recipes by their stem, parts with their folder."""
    recipes = [*SHIPPED.glob("*.yaml"), *(SHIPPED / "baselines").glob("*.yaml")]
    parts = [path for folder in _PARTS for path in (SHIPPED / folder).glob("*.yaml")]
    return {path.stem: path for path in recipes} | {
        f"{path.parent.name}/{path.stem}": path for path in parts
    }


def load_recipe(path_or_name: str | Path, sets: Sequence[str] = ()) -> Recipe:
    """The resolved recipe of a YAML file or of a shipped name.

    `extends:` in a file is a name or a list of names: shipped recipes, shipped parts
    (`data/acdc`), or paths beside the file. They are merged in order, key by key, then the file's
    own values, then `sets`. Where a `name` changes, the `options` that belonged to the old name are
    dropped; where one of epochs and steps, or of size and spacing, is given, the other is taken
    away. A layer that changes network, context or weaving without giving `arm` drops the label of
    the layers below it, and the label is derived (see `Recipe.arm`).

    Args:
        path_or_name: a YAML file, or a name that `list_recipes` lists.
        sets: texts "training.epochs=10" that override any field.

    Raises InputError (file, key, what was expected) or UsageError.
    """
    path = _find(path_or_name, beside=None)
    return parse_recipe(_read(path, seen=()), file=path, sets=sets)


def as_set(key: str, value: Any) -> str:
    """A key and a value as `--set` reads them: KEY=VALUE with the value as YAML in one line."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True)
    value_text = text.removesuffix("...\n").strip()
    return f"{key}={value_text}"


def parse_recipe(
    values: Mapping[str, Any], *, file: Path | None = None, sets: Sequence[str] = ()
) -> Recipe:
    """A recipe from plain values, then `sets` as in `load_recipe`. Raises InputError that names the
    key, and `file` where it is given.
    """
    values = _add_layer(values, _from_sets(sets)) if sets else values
    given = {text.partition("=")[0].strip() for text in sets}
    number = values.get("format", 1)
    if number != 1:
        raise InputError(
            _READING,
            file=file,
            expected="format: 1",
            found=f"format: {number}",
            remedy="this recipe was written for another version of segweave",
        )
    try:
        return Recipe.model_validate(dict(values))
    except ValidationError as error:
        # A wrong key explains most of what else is wrong, so it comes first.
        problems = sorted(
            error.errors(include_url=False),
            key=lambda problem: problem["type"] != "extra_forbidden",
        )
        first = problems[0]
        key = dotted_key(first)
        expected, found, remedy = explain(first)
        if key in given:
            found += f" (from --set {key})"
        if len(problems) > 1:
            others = sorted({dotted_key(problem) for problem in problems[1:]})
            remedy = "; ".join(filter(None, [remedy, "also look at " + ", ".join(others[:5])]))
        raise InputError(
            _READING, file=file, expected=expected, found=found, remedy=remedy
        ) from None


def merge(
    base: Mapping[str, Any], over: Mapping[str, Any], section: str | None = None
) -> dict[str, Any]:
    """`base` overridden by `over`, mapping by mapping; lists and single values are replaced.
    `section` is the dotted key of both.
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
            inner = f"{section}.{key}" if section else key
            result[key] = merge(old if isinstance(old, Mapping) else {}, value, inner)
        else:
            result[key] = value
    return result


def _add_layer(base: Mapping[str, Any], layer: Mapping[str, Any]) -> dict[str, Any]:
    """`merge`, after which a label that the layer has made wrong is gone."""
    result = merge(base, layer)
    changed = any(result.get(key) != base.get(key) for key in _NAMED_BY_THE_LABEL)
    if changed and "arm" not in layer:
        result.pop("arm", None)
    return result


def _find(path_or_name: str | Path, *, beside: Path | None) -> Path:
    text = str(path_or_name)
    path = Path(text) if beside is None else beside / text
    if path.is_file():
        return path
    steps = Path(text).parts
    looks_like_a_file = path.suffix in (".yaml", ".yml") or len(steps) > 1
    if looks_like_a_file and not (len(steps) == 2 and steps[0] in _PARTS and not path.suffix):
        raise InputError(_READING, file=path, expected="a YAML file", found="no such file")
    return recipe_file(text)


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice, which YAML itself would silently overrule."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is given twice", key_node.start_mark
                )
            if isinstance(key, Hashable):
                seen.add(key)
        return super().construct_mapping(node, deep=deep)


def read_yaml(path: Path, doing: str) -> Any:
    """What a YAML file of a person holds, as plain values.

    Raises InputError where it can't be read, is larger than 1 MB, is not YAML, holds something that
    no plain value is, or more than 10,000 values (aliases to aliases count each time).
    """
    try:
        if not path.is_file():
            found = "no such file" if not path.exists() else "no ordinary file"
            raise InputError(doing, file=path, expected="a YAML file", found=found)
        if path.stat().st_size > _LARGEST:
            raise InputError(
                doing, file=path, expected="a page of text", found=f"{path.stat().st_size} bytes"
            )
        return _plain(path.read_text(encoding="utf-8"))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise InputError(
            doing, file=path, expected="valid YAML", found=f"{where}{error.problem}"
        ) from None
    except InputError:
        raise
    except (OSError, *_NO_YAML) as error:
        raise InputError(
            doing, file=path, expected="a YAML file", found=f"{type(error).__name__}: {error}"
        ) from None


def _plain(text: str) -> Any:
    """The values of a YAML text; raises ValueError where there are too many."""
    # _Loader is a SafeLoader: no YAML tag can run code.
    value = yaml.load(text, Loader=_Loader)
    left = [value]
    for _ in range(_MOST_VALUES):
        if not left:
            return value
        one = left.pop()
        if isinstance(one, dict):
            left += [*one.keys(), *one.values()]
        elif isinstance(one, list):
            left += one
        elif not isinstance(one, str | int | float | None):
            raise ValueError(f"a value of type {type(one).__name__}; a text goes in quotes")
    raise ValueError(f"more than {_MOST_VALUES:,} values")


def _read(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    path = path.resolve()
    if path in seen:
        chain = " → ".join(p.name for p in (*seen, path))
        raise InputError(_READING, file=path, expected="extends without a circle", found=chain)
    values = read_yaml(path, _READING)
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise InputError(_READING, file=path, expected="keys and values", found=_name_type(values))
    parents = values.pop("extends", None)
    if isinstance(parents, str):
        parents = [parents]
    if not isinstance(parents, list | None) or not all(isinstance(p, str) for p in parents or ()):
        raise InputError(
            _READING,
            file=path,
            expected="extends: the name or path of a recipe, or a list of them",
            found=repr(parents),
        )
    merged: dict[str, Any] = {}
    for parent in parents or ():
        merged = _add_layer(merged, _read(_find(parent, beside=path.parent), (*seen, path)))
    return _add_layer(merged, values)


def _from_sets(sets: Sequence[str]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for text in sets:
        key, equals, value_text = text.partition("=")
        steps = key.strip().split(".")
        if not equals or not all(steps):
            raise UsageError(
                "reading --set", expected="KEY=VALUE, as in training.epochs=10", found=repr(text)
            )
        try:
            value = _plain(value_text)
        except _NO_YAML:
            raise UsageError(
                "reading --set", expected="a YAML value after =", found=repr(text)
            ) from None
        section = result
        for step in steps[:-1]:
            inner = section.setdefault(step, {})
            if not isinstance(inner, dict):
                inner = section[step] = {}
            section = inner
        section[steps[-1]] = value
    return result


def _name_type(value: Any) -> str:
    if value is None:
        return "an empty file"
    return {"list": "a list", "str": "text", "dict": "keys that are not text"}.get(
        type(value).__name__, type(value).__name__
    )
