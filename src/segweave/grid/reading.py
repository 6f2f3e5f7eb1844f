"""The grid file and its fields."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from segweave.errors import InputError, from_validation
from segweave.recipes import ContextSetting, as_set, read_yaml

FORMAT: Literal[1] = 1
_READING = "reading a grid"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _as_sets(value: Any) -> Any:
    """{key: value} → ["key=value"]; a list stays a list."""
    if not isinstance(value, Mapping):
        return value
    return [as_set(key, inner) for key, inner in value.items()]


class GridRecipe(_Section):
    """A recipe of a grid.

    Attributes:
        recipe: a shipped recipe's name or a YAML file.
        arm: its label; with `contexts`, the label of the network alone, to which each module is
            added (`LABEL+sa-lstm`).
        sets: fields to override (`set` in the file: a mapping of dotted keys to values, or a list
            of KEY=VALUE).
    """

    recipe: str
    arm: str | None = None
    sets: tuple[str, ...] = Field(default=(), alias="set")

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return {"recipe": value} if isinstance(value, str) else value

    _read_sets = field_validator("sets", mode="before")(_as_sets)


class GridContext(ContextSetting):
    """A context module of a grid: a name alone, or a mapping with the fields of `ContextSetting`.

    Attributes:
        arm: the label of the arm, for a grid with one recipe.
    """

    context: str
    arm: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return {"context": value} if isinstance(value, str) else value


class Grid(_Section):
    """A grid file; paths in it are relative to the file.

    Attributes:
        format: number of the format.
        store: what `prepare` wrote, or a list of stores that are trained on together.
        out: folder of the runs.
        recipes: each of them is trained, with each of `contexts`.
        contexts: context modules; `none` is the network alone. Without any, the recipes are
            trained as they are.
        sets: fields to override in every recipe (`set` in the file), before the recipe's `set`.
        seeds: seeds of each arm.
        folds: folds of each arm.
        protocols: each run is scored under each of them.
        metrics: metrics to compute beside those of the protocols, a plug-in's too.
        part: the cases that are scored.
        jobs: how many runs are trained at a time.
        threads: threads of each.
        device: as for `segweave train`.
        margin: the difference in Dice (0 to 1) that is too small to matter. It is written into each
            run before it is trained; `segweave compare` then tests equivalence within it.
        margin_reason: why it is too small to matter; required with `margin`.
    """

    format: Literal[1] = FORMAT
    store: Path | tuple[Path, ...]
    out: Path
    recipes: tuple[GridRecipe, ...] = Field(min_length=1)
    contexts: tuple[GridContext, ...] = ()
    sets: tuple[str, ...] = Field(default=(), alias="set")
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    folds: tuple[int, ...] = Field(default=(0,), min_length=1)
    protocols: tuple[str, ...] = ("clean",)
    metrics: tuple[str, ...] = ()
    part: Literal["test", "validation", "training"] = "test"
    jobs: int = Field(default=1, ge=1)
    threads: int = Field(default=1, ge=1)
    device: str = "auto"
    margin: float | None = Field(default=None, gt=0, lt=1)
    margin_reason: str = ""

    _read_sets = field_validator("sets", mode="before")(_as_sets)

    @property
    def stores(self) -> tuple[Path, ...]:
        """The stores, also where there is one."""
        return (self.store,) if isinstance(self.store, Path) else self.store

    @property
    def margin_sets(self) -> list[str]:
        """The texts for `--set` that write the margin into a recipe."""
        if self.margin is None:
            return []
        return [as_set("margin", self.margin), as_set("margin_reason", self.margin_reason)]

    @model_validator(mode="after")
    def _margin_has_a_reason(self) -> Grid:
        if (self.margin is None) == bool(self.margin_reason.strip()):
            raise ValueError("margin and margin_reason together, or neither")
        return self

    @model_validator(mode="after")
    def _once(self) -> Grid:
        for name in ("seeds", "folds", "protocols", "metrics"):
            values = getattr(self, name)
            if len(set(values)) != len(values):
                raise ValueError(f"each of {name} once")
        return self


def load_grid(path: str | Path) -> Grid:
    """Read a grid file. Raises InputError that names the key."""
    file = Path(path)
    values = read_yaml(file, _READING)
    if not isinstance(values, dict):
        raise InputError(_READING, file=file, expected="keys and values", found="something else")
    if values.get("format", FORMAT) != FORMAT:
        raise InputError(
            _READING, file=file, expected=f"format: {FORMAT}", found=f"format: {values['format']}"
        )
    try:
        grid = Grid.model_validate(values)
    except ValidationError as error:
        raise from_validation(error, _READING, model=Grid, file=file) from None
    here = file.parent
    recipes = tuple(
        one.model_copy(update={"recipe": str(here / one.recipe)})
        if (here / one.recipe).is_file()
        else one
        for one in grid.recipes
    )
    return grid.model_copy(
        update={
            "store": tuple(here / store for store in grid.stores),
            "out": here / grid.out,
            "recipes": recipes,
        }
    )
