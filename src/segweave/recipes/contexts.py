"""What `--network`, `--context`, `--at`, `--slices` and a grid's `contexts:` change in a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from segweave.errors import UsageError
from segweave.recipes.loading import as_set, load_recipe
from segweave.recipes.recipe import Recipe
from segweave.recipes.sections import Section

NO_CONTEXT = "none"
DEFAULT_SLICES = 3


class ContextSetting(Section):
    """A context module for a recipe. What is None stays as the recipe has it.

    Attributes:
        context: the module's name; `none` for the network alone.
        at: the position.
        slices: length of the window. Without it 3, where the recipe has a window of one slice and
            no tiles are given.
        tiles: tiles of a single image's map.
        join: `add` or `replace` (see `weaving.join`).
        form: `paper` or `released`; `paper` where the module changes.
        options: options of the module's constructor.
    """

    context: str | None = None
    at: str | None = None
    slices: int | None = Field(default=None, ge=1)
    tiles: int | None = Field(default=None, ge=1)
    join: Literal["replace", "add"] | None = None
    form: Literal["paper", "released"] | None = None
    options: dict[str, Any] | None = None

    def changes(self, recipe: Recipe) -> list[str]:
        """What to change in `recipe`, as texts for `--set`. Raises UsageError for a position,
        tiles, a form or options without a module.
        """
        name = self.context or (recipe.context.name if recipe.context else NO_CONTEXT)
        if name == NO_CONTEXT:
            return self._without_module(recipe)
        module: dict[str, Any] = {"name": name}
        changed = recipe.context is None or recipe.context.name != name
        if self.form is not None or changed:
            module["form"] = self.form or "paper"
        if self.options is not None:
            module["options"] = self.options
        slices = self.slices
        tiles = self.tiles or recipe.weaving.tiles
        if slices is None and recipe.slices == 1 and tiles == 1:
            slices = DEFAULT_SLICES
        weaving = {"at": self.at, "tiles": self.tiles, "join": self.join}
        return [
            as_set("context", module),
            *(as_set(f"weaving.{key}", v) for key, v in weaving.items() if v is not None),
            *([as_set("input.slices", slices)] if slices is not None else []),
        ]

    def _without_module(self, recipe: Recipe) -> list[str]:
        given = [
            name
            for name in ("at", "tiles", "join", "form", "options")
            if getattr(self, name) is not None
        ]
        if given:
            raise UsageError(
                "choosing a context module",
                expected="a context module, as there is " + ", ".join(given),
                found="a network without one",
                remedy="give its name (--context sa-lstm)",
            )
        slices = self.slices
        if slices is None and recipe.context is not None:
            slices = 1
        sets = ["context=null"] if recipe.context is not None else []
        return sets + ([as_set("input.slices", slices)] if slices is not None else [])


def network_changes(recipe: Recipe, name: str) -> list[str]:
    """What to change in `recipe` for another network, as texts for `--set`: form, options and
    start weights belong to the old one.
    """
    if name == recipe.network.name:
        return []
    return [as_set("network", {"name": name, "form": "released", "pretrained": None})]


def chosen_sets(
    recipe: str | Path,
    sets: Sequence[str] = (),
    *,
    network: str | None = None,
    context: str | None = None,
    at: str | None = None,
    slices: int | None = None,
    start_from: str | Path | None = None,
) -> list[str]:
    """The texts for `--set` that several choices on top of a recipe amount to.

    Args:
        recipe: a YAML file or the name of a shipped recipe.
        sets: further texts, which have the last word.
        network: another network, with its default options.
        context: a context module, or "none".
        at: its position.
        slices: length of the window.
        start_from: a finished run, a model folder or a file of weights.

    Raises what `load_recipe` raises, and UsageError for a position without a module.
    """
    changes = []
    if network is not None:
        changes += network_changes(load_recipe(recipe, sets), network)
    setting = ContextSetting(context=context, at=at, slices=slices)
    if setting != ContextSetting():
        # Fields of the module that is only now chosen can't be set before it is.
        later = ("context.",) if context is not None else ()
        earlier = [text for text in sets if not text.strip().startswith(later)] if later else sets
        changes += setting.changes(load_recipe(recipe, [*changes, *earlier]))
    if start_from is not None:
        changes.append(as_set("network.pretrained", str(Path(start_from).absolute())))
    return [*changes, *sets]
