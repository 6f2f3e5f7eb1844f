"""What stands for the model card of a run whose training has not ended."""

from __future__ import annotations

from typing import Any

from segweave.errors import InputError, SegweaveError
from segweave.runs.run_folder import LOADING, Run


def card_of_unfinished(run: Run) -> dict[str, Any]:
    """What a model card would state of the input and the classes of a run that has not ended.
    Raises InputError where its classes can't be found.
    """
    recipe = run.recipe
    return {
        "format": 1,
        "title": f"{recipe.arm}, training not ended",
        "arm": recipe.arm,
        "input": recipe.input.model_dump(mode="json"),
        "target": _target(run),
        "recipe": recipe.to_dict(),
    }


def _target(run: Run) -> dict[str, Any]:
    data = run.environment["data"]
    if "target" in data:
        return dict(data["target"])
    # Runs of earlier versions noted no classes; their store has them.
    try:
        store = run.open_store()
        if store is not None and store.checksum == data["checksum"]:
            return store.target.model_dump(mode="json")
        found = "no store in its recipe" if store is None else "other data in its store"
    except SegweaveError as error:
        found = error.found or error.doing
    raise InputError(
        LOADING,
        file=run.folder,
        expected="the store that the training began with, for the names of its classes",
        found=found,
        remedy="put the store back, or let the training end",
    )
