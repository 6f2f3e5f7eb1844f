"""Where the model of a folder is, and what stands for its card while a training has not ended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from segweave.data.joined_store import open_stores
from segweave.errors import InputError, SegweaveError, UsageError, nearest
from segweave.runs.run_folder import CARD, MODEL, RECIPE, Run

_DOING = "loading a model"


def model_folder(path: Path, checkpoint: str | None = None) -> Path:
    """The folder with the model card: `path` itself, or `path`/model. For a checkpoint of a run
    that has not ended it is the run's folder, which has no card yet.

    Raises InputError where there is neither, UsageError for a checkpoint that is not there.
    """
    if not path.is_dir():
        raise InputError(
            _DOING,
            file=path,
            expected="a run folder or a model folder",
            found="a file" if path.exists() else "nothing there",
            remedy=f"give the folder that holds {MODEL}/{CARD}; weights that others released "
            "become one by segweave convert-weights"
            if path.exists()
            else "give the folder that segweave train --out wrote",
        )
    if checkpoint is not None:
        _check_checkpoint(path, checkpoint)
    for folder in (path / MODEL, path):
        if (folder / CARD).is_file():
            return folder
    if not (path / RECIPE).is_file():
        entries = sorted(entry.name for entry in path.iterdir())[:6]
        raise InputError(
            _DOING,
            file=path,
            expected=f"a folder with {MODEL}/{CARD} or {CARD}",
            found=", ".join(entries) or "an empty folder",
        )
    if checkpoint is not None:
        return path
    held = " and ".join(Run(path).checkpoints)
    raise InputError(
        _DOING,
        file=path,
        expected=f"a folder with {MODEL}/{CARD} or {CARD}",
        found="a run that has not ended" + (f", with the checkpoint {held}" if held else ""),
        remedy="train again with the same recipe and folder: the training continues"
        + ("; or take a checkpoint as it is now (--checkpoint last)" if held else ""),
    )


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
    store = run.recipe.data.store
    found = "no store in its recipe"
    if store is not None:
        try:
            opened = open_stores([store] if isinstance(store, str) else store)
            if opened.checksum == data["checksum"]:
                return opened.target.model_dump(mode="json")
            found = "other data in its store"
        except SegweaveError as error:
            found = error.found or error.doing
    raise InputError(
        _DOING,
        file=run.folder,
        expected="the store that the training began with, for the names of its classes",
        found=found,
        remedy="put the store back, or let the training end",
    )


def _check_checkpoint(path: Path, checkpoint: str) -> None:
    inside = path.name == MODEL and (path.parent / RECIPE).is_file()
    folder = path.parent if inside else path
    remedy = "leave the checkpoint out: a model folder has one set of weights"
    if (folder / RECIPE).is_file():
        known = Run(folder).checkpoints
        if checkpoint in known:
            return
        remedy = nearest(checkpoint, known) if known else "there is none yet; train first"
    elif not (folder / CARD).is_file():
        return  # not a model
    raise UsageError(f"reading a checkpoint of {path}", found=repr(checkpoint), remedy=remedy)
