"""Which runs a grid has, what of them is done, and how long the rest should take."""

from __future__ import annotations

import os
import shlex
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from segweave.errors import InputError, UsageError
from segweave.grid.jobs import finished, share_done
from segweave.grid.reading import FORMAT, Grid, GridRecipe, as_yaml
from segweave.storage import read_json, write_json

if TYPE_CHECKING:
    from segweave.data.store import Store
    from segweave.recipes import Recipe

TIMES = "grid.json"


@dataclass(frozen=True)
class GridRun:
    """One training of a grid: its recipe, where it goes, the evaluation folder of each protocol,
    and the command's words that make it.
    """

    name: str
    folder: Path
    recipe: Recipe
    evaluations: dict[str, Path]
    train: tuple[str, ...]

    @property
    def trained(self) -> bool:
        """Whether the training has ended."""
        return finished(self.folder)

    @property
    def to_score(self) -> list[str]:
        """Protocols that it was not scored under yet."""
        return [
            protocol
            for protocol, folder in self.evaluations.items()
            if not (folder / "manifest.json").is_file()
        ]

    @property
    def done(self) -> bool:
        """Whether nothing is left to do."""
        return self.trained and not self.to_score

    @property
    def share(self) -> float:
        """How much of the training is done, 0 to 1."""
        return share_done(self.folder, self.recipe)[0]

    @property
    def state(self) -> str:
        """In words, what is there and what is left."""
        if self.done:
            return "done"
        if self.trained:
            return f"trained; to score: {', '.join(self.to_score)}"
        share = self.share
        return f"begun, {share:.0%}" if share else "to do"


@dataclass(frozen=True)
class GridPlan:
    """All runs of a grid, arm by arm, and the seconds that earlier ones took (by run folder)."""

    grid: Grid
    runs: tuple[GridRun, ...]
    seconds: dict[str, float]

    @property
    def left(self) -> list[GridRun]:
        """The runs that are not done."""
        return [run for run in self.runs if not run.done]

    def seconds_of(self, run: GridRun) -> float | None:
        """What a whole run should take: the mean over finished runs of its arm, else over all
        finished ones; None before there is any.
        """
        known = [one for one in self.runs if one.name in self.seconds and one.done]
        own = [one for one in known if one.recipe.arm == run.recipe.arm]
        taken = [self.seconds[one.name] for one in own or known]
        return sum(taken) / len(taken) if taken else None

    def compare_command(self, protocol: str) -> str | None:
        """The command that compares the arms that were scored; the first of them is the reference.
        None below two.
        """
        scored = [run for run in self.runs if protocol not in run.to_score]
        arms = list(dict.fromkeys(run.recipe.arm for run in scored))
        if len(arms) < 2:
            return None
        folder = scored[0].evaluations[protocol].relative_to(scored[0].folder)
        every = "/".join(["*"] * len(scored[0].name.split("/")) + [folder.as_posix()])
        place = shlex.quote(os.path.normpath(self.grid.out))
        return f"segweave compare {place}/{every} --reference {shlex.quote(arms[0])}"

    def seconds_left(self, runs: Sequence[GridRun] | None = None) -> float | None:
        """How long `runs` (default: all that are not done) should take; None while unknown."""
        left = self.left if runs is None else runs
        each = [(self.seconds_of(run), 1 - run.share) for run in left]
        if any(seconds is None for seconds, _ in each):
            return None
        parts = [seconds * share for seconds, share in each if seconds is not None]
        return max(sum(parts) / self.grid.jobs, max(parts, default=0.0))


def plan_grid(grid: Grid) -> GridPlan:
    """All runs of a grid, checked before anything is started.

    Raises what reading recipes and the store raises; UsageError for two arms of one name, several
    folds of a split that does not depend on the fold, unknown protocols, and a folder that holds a
    run of another recipe or other data.
    """
    from segweave.data.store import Store
    from segweave.evaluation import get_protocol

    store = Store(grid.store)
    for protocol in grid.protocols:
        get_protocol(protocol, dataset=store.name)
    for choice in grid.recipes:
        _check_network(grid, choice, store)
    runs = [
        _run_of(grid, choice, seed, fold, store)
        for choice in grid.recipes
        for fold in grid.folds
        for seed in grid.seeds
    ]
    names = [run.name for run in runs]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UsageError(
            "planning a grid",
            expected="recipes of different arms",
            found=f"the arm {twice[0].partition('/')[0]} twice",
            remedy="give one of them another name with arm:",
        )
    return GridPlan(grid, tuple(runs), read_times(grid.out))


def _check_network(grid: Grid, choice: GridRecipe, store: Store) -> None:
    """Build a recipe's network once, so that wrong names and options are told before all runs."""
    from segweave.recipes import load_recipe
    from segweave.recipes.build import build_network

    recipe = load_recipe(choice.recipe, [*grid.sets, *choice.sets])
    build_network(recipe, len(recipe.input.channels), store.target)


def _run_of(grid: Grid, choice: GridRecipe, seed: int, fold: int, store: Store) -> GridRun:
    from segweave.recipes import load_recipe
    from segweave.training.run_training import choose_parts

    sets = [*grid.sets, *choice.sets, f"seed={seed}", f"fold={fold}"]
    sets += [f"arm={as_yaml(choice.arm)}"] if choice.arm is not None else []
    recipe = load_recipe(choice.recipe, sets)
    doing = f"planning the arm {recipe.arm} of a grid"
    if len(grid.folds) > 1 and "{fold}" not in (recipe.data.split or ""):
        raise UsageError(
            doing,
            expected="a split for each fold, as in data.split: fold-{fold}",
            found=f"data.split: {recipe.data.split}",
            remedy="name it under set:, or leave folds out",
        )
    if not choose_parts(recipe, store).get(grid.part):
        raise UsageError(doing, expected=f"{grid.part} cases to score", found="none in the store")
    # The arm may hold anything; a folder's name may not.
    place = [urllib.parse.quote(recipe.arm, safe=" +")]
    place += [f"fold-{fold}"] if len(grid.folds) > 1 else []
    place += [f"seed-{seed}"]
    folder = grid.out.joinpath(*place)
    _check_folder(folder, recipe, store)
    suffix = "" if grid.part == "test" else f"-{grid.part}"
    words = ["train", choice.recipe, "--store", str(grid.store), "--out", str(folder)]
    words += ["--device", grid.device, "--quiet"]
    words += [part for text in sets for part in ("--set", text)]
    return GridRun(
        "/".join(place),
        folder,
        recipe,
        {name: folder / "evaluation" / f"{name}{suffix}" for name in grid.protocols},
        tuple(words),
    )


def _check_folder(folder: Path, recipe: Recipe, store: Store) -> None:
    """Raise UsageError where the folder holds another training than this."""
    from segweave.recipes import differences
    from segweave.training import Run

    if not (folder / "recipe.yaml").is_file():
        return
    run = Run(folder)
    found = {k: v for k, v in differences(run.recipe, recipe).items() if k != "data.store"}
    shown = [f"{key}: {old!r} there, {new!r} now" for key, (old, new) in found.items()]
    if run.environment["data"]["checksum"] != store.checksum:
        shown.append("other data")
    if shown:
        raise UsageError(
            "planning a grid",
            file=folder,
            expected="nothing, or a run of the same recipe and data",
            found="; ".join(shown[:6]),
            remedy="choose another out:, or remove this run",
        )


# How long runs took, for the estimate


def read_times(out: Path) -> dict[str, float]:
    """Seconds by the runs' names, nothing where none are known."""
    try:
        content = read_json(out / TIMES, "reading the times of a grid", formats=(FORMAT,))
        return {str(name): float(value) for name, value in content["seconds"].items()}
    except (InputError, ValueError, KeyError, TypeError, AttributeError):
        return {}  # estimates begin anew


def write_times(out: Path, seconds: Mapping[str, float]) -> None:
    """Keep them beside the runs."""
    content = {"format": FORMAT, "seconds": {name: round(s, 1) for name, s in seconds.items()}}
    write_json(out / TIMES, content)
