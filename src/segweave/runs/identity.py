"""Which arm a run belongs to: the digest of its recipe, with its data and start weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from segweave.recipes import ArmIdentity, Recipe, arm_identity
from segweave.runs.run_folder import RECIPE, Run


def identity_of(recipe: Recipe, data: str) -> ArmIdentity:
    """The identity of a training that starts now on data with the checksum `data`.

    A network that starts from a run is identified by the arm of that run, so that seeds which
    start from the same seeds of another arm are one arm.
    """
    return arm_identity(recipe, data, _start(recipe.network.pretrained))


def run_identity(run: Run) -> ArmIdentity:
    """The identity that was recorded when the run started; runs of earlier versions recorded none,
    it is then computed from their recipe.
    """
    recorded = run.environment.get("arm")
    if recorded is not None:
        return ArmIdentity(recorded["digest"], recorded["recipe"])
    return identity_of(run.recipe, run.environment["data"]["checksum"])


def prediction_identity(runs: Sequence[Run], **settings: Any) -> ArmIdentity:
    """The identity of what an evaluation of runs scores, for its manifest: `recipe_digest` is the
    digest, `recipe` the recipe.

    Args:
        runs: the run; where the probabilities of several are averaged, all of them.
        settings: how the predictions are made, other than by the finished model: checkpoint,
            flips, tiles, ... as plain values; None stands for the default.
    """
    first, *others = [run_identity(run) for run in runs]
    if others:
        members = [
            (one.digest, run.recipe.seed) for one, run in zip([first, *others], runs, strict=True)
        ]
        settings["members"] = [list(member) for member in sorted(members)]
    return first.predicting(**settings)


def _start(pretrained: str | None) -> str | None:
    """What stands for a run that the network starts from; None where it starts from no run."""
    if pretrained is None or not (Path(pretrained) / RECIPE).is_file():
        return None
    return f"run:{run_identity(Run(pretrained)).digest}"
