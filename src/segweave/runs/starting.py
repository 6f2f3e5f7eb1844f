"""Whether a training may begin, or go on, in a folder."""

from __future__ import annotations

from pathlib import Path

from segweave.data.store import CaseStore
from segweave.errors import InputError, UsageError
from segweave.recipes import Recipe, differences
from segweave.runs.run_folder import (
    CHECKPOINTS,
    ENVIRONMENT,
    METRICS,
    MODEL,
    PLAN,
    RECIPE,
    TENSORBOARD,
    Run,
)


def check_folder(folder: Path, recipe: Recipe, store: CaseStore, *, resume: bool = True) -> None:
    """Raise UsageError or InputError where the folder holds anything else than this training, or
    holds it and `resume` is False; changes nothing.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UsageError(
            "starting a training", file=folder, expected="a folder for the run", found="a file"
        )
    doing = "starting a training"
    known = {RECIPE, PLAN, ENVIRONMENT, METRICS, CHECKPOINTS, MODEL, TENSORBOARD}
    held = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    if RECIPE not in held:
        if held - known:
            raise UsageError(
                doing,
                file=folder,
                expected="a new or empty folder, or a run of the same recipe",
                found=", ".join(sorted(held - known)[:5]),
                remedy="choose another folder",
            )
        return
    if not resume:
        raise UsageError(
            doing,
            file=folder,
            expected="a new or empty folder",
            found="a run",
            remedy="choose another folder, or resume",
        )
    run = Run(folder)
    # The store may have moved; its checksum says whether it is the same data.
    changed = {k: v for k, v in differences(run.recipe, recipe).items() if k != "data.store"}
    if changed:
        shown = [f"{key}: {old!r} there, {new!r} now" for key, (old, new) in changed.items()]
        raise UsageError(
            doing,
            file=folder,
            expected="a run of the same recipe",
            found="; ".join(shown[:6]) + ("; ..." if len(shown) > 6 else ""),
            remedy="choose another folder for this recipe",
        )
    checksum = run.environment["data"]["checksum"]
    if checksum != store.checksum:
        raise InputError(
            doing,
            file=folder,
            expected=f"the data that the run began with (checksum {checksum[:12]})",
            found=f"the store {store.name} with checksum {store.checksum[:12]}",
            remedy="choose another folder, or the store as it was",
        )
