"""What will be trained, on which store and where, checked before torch is imported."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segweave.data.joined_store import open_stores
from segweave.data.store import CaseStore
from segweave.errors import UsageError
from segweave.recipes import Recipe, load_recipe
from segweave.recipes.first_checks import check_losses, check_recipe
from segweave.runs.starting import check_folder


def plan_training(
    recipe: Recipe | str | Path,
    store: CaseStore | str | Path | Sequence[str | Path] | None = None,
    out: str | Path = "run",
    *,
    sets: Sequence[str] = (),
    seed: int | None = None,
    fold: int | None = None,
    precision: str | None = None,
    resume: bool = True,
) -> tuple[Recipe, CaseStore]:
    """The resolved recipe and the opened store of `segweave.train`, whose arguments these are;
    reads no image and changes nothing. Raises what that raises for wrong names, keys, sizes, parts
    and folders.
    """
    overrides = [*sets]
    overrides += [f"seed={seed}"] if seed is not None else []
    overrides += [f"fold={fold}", "data.split=fold-{fold}"] if fold is not None else []
    overrides += [f"training.precision={precision}"] if precision is not None else []
    if isinstance(recipe, str | Path):
        recipe = load_recipe(recipe, overrides)
    elif overrides:
        raise UsageError(
            "overriding fields of a recipe",
            expected="the name or the file of a recipe",
            found="a Recipe object",
            remedy="make the object with the values that are wanted",
        )
    source = store if store is not None else recipe.data.store
    if source is None:
        raise UsageError(
            "training",
            expected="a store",
            found="none",
            remedy="give one that `prepare` wrote (--store)",
        )
    if isinstance(source, str | Path | Sequence):
        paths = [source] if isinstance(source, str | Path) else list(source)
        absolute = tuple(str(Path(path).absolute()) for path in paths)
        data = recipe.data.model_copy(
            update={"store": absolute[0] if len(absolute) == 1 else absolute}
        )
        recipe = recipe.model_copy(update={"data": data})
        source = open_stores(absolute)
    check_recipe(recipe)
    check_losses(recipe.training.loss, source.target)
    recipe.choose_parts(source)
    check_folder(Path(out), recipe, source, resume=resume)
    return recipe, source
