"""Reads a recipe from YAML: merges what `extends` names, then `--set`, in this order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from segweave import registry
from segweave.errors import InputError, UsageError, nearest
from segweave.recipes.recipe import NO_YAML, READING, Recipe, plain_values, read_keys

SHIPPED = Path(__file__).parent
_PARTS = ("data", "network", "training")
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
                remedy=_recipes_with(name),
            )
        raise UsageError(
            "choosing a recipe",
            expected="a YAML file or the name of a shipped recipe",
            found=repr(name),
            remedy=nearest(name, list_recipe_parts() if is_part else list_recipes()),
        )
    return shipped[name]


def _recipes_with(network: str) -> str:
    """Which shipped recipes train the network, by their names, and how any other does."""
    networks = registry.networks.cards()

    def named(recipe: str) -> str:
        inside = [one for one in networks if f"-{one}-" in f"-{recipe}-"]
        return max(inside, key=len, default="")

    own = ", ".join(recipe for recipe in list_recipes() if named(recipe) == network)
    return (f"take one of {own}; or " if own else "take ") + (
        f"photos (colour pictures) or volumes and --network {network}"
    )


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
    return Recipe.from_dict(values, file=file, set_keys=given)


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
        raise InputError(READING, file=path, expected="a YAML file", found="no such file")
    return recipe_file(text)


def _read(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    path = path.resolve()
    if path in seen:
        chain = " → ".join(p.name for p in (*seen, path))
        raise InputError(READING, file=path, expected="extends without a circle", found=chain)
    values = read_keys(path)
    parents = values.pop("extends", None)
    if isinstance(parents, str):
        parents = [parents]
    if not isinstance(parents, list | None) or not all(isinstance(p, str) for p in parents or ()):
        raise InputError(
            READING,
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
            value = plain_values(value_text)
        except NO_YAML:
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
