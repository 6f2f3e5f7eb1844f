"""The grid file: what it may say, and reading it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from segweave.errors import InputError, from_validation

FORMAT: Literal[1] = 1
_READING = "reading a grid"
_LARGEST = 1_000_000  # bytes; a grid is a page of text


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _as_sets(value: Any) -> Any:
    """{key: value} → ["key=value"]; a list stays one."""
    if not isinstance(value, Mapping):
        return value
    return [f"{key}={as_yaml(inner)}" for key, inner in value.items()]


def as_yaml(value: Any) -> str:
    """A value as YAML in one line, as --set reads it."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True)
    return text.removesuffix("...\n").strip()


class GridRecipe(_Section):
    """One arm: a shipped recipe's name or a YAML file, `set` on top of it (a mapping of dotted keys
    to values, or a list of KEY=VALUE), and the arm's name where it is not the recipe's own.
    """

    recipe: str
    arm: str | None = None
    sets: tuple[str, ...] = Field(default=(), alias="set")

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return {"recipe": value} if isinstance(value, str) else value

    _read_sets = field_validator("sets", mode="before")(_as_sets)


class Grid(_Section):
    """What a grid file says; paths in it are relative to the file.

    `set` is laid on every recipe, before the arm's own. `part` of the cases is scored under each of
    `protocols`. `jobs` runs are made at a time, each with `threads` threads.
    """

    format: Literal[1] = FORMAT
    store: Path
    out: Path
    recipes: tuple[GridRecipe, ...] = Field(min_length=1)
    sets: tuple[str, ...] = Field(default=(), alias="set")
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    folds: tuple[int, ...] = Field(default=(0,), min_length=1)
    protocols: tuple[str, ...] = ("clean",)
    part: Literal["test", "validation", "training"] = "test"
    jobs: int = Field(default=1, ge=1)
    threads: int = Field(default=1, ge=1)
    device: str = "auto"

    _read_sets = field_validator("sets", mode="before")(_as_sets)

    @model_validator(mode="after")
    def _once(self) -> Grid:
        for name in ("seeds", "folds", "protocols"):
            values = getattr(self, name)
            if len(set(values)) != len(values):
                raise ValueError(f"each of {name} once")
        return self


def load_grid(path: str | Path) -> Grid:
    """Read a grid file. Raises InputError that names the key."""
    file = Path(path)
    try:
        if file.stat().st_size > _LARGEST:
            raise InputError(_READING, file=file, expected="a page of text", found="a large file")
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}: " if mark else ""
        raise InputError(
            _READING, file=file, expected="valid YAML", found=f"{where}{error.problem}"
        ) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise InputError(
            _READING, file=file, expected="a YAML file", found=f"{type(error).__name__}: {error}"
        ) from None
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
        update={"store": here / grid.store, "out": here / grid.out, "recipes": recipes}
    )
