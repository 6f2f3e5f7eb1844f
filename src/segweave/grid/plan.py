"""The runs of a grid: which there are, which are done, and how long the rest should take."""

from __future__ import annotations

import os
import shlex
import urllib.parse
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from segweave.errors import InputError, UsageError
from segweave.grid.progress import finished, share_done
from segweave.grid.reading import FORMAT, Grid, GridContext, GridRecipe
from segweave.recipes import Recipe, arm_digest, as_set, derived_arm, differences, load_recipe
from segweave.runs.run_folder import RECIPE, Run
from segweave.storage import read_json, write_json

if TYPE_CHECKING:
    from segweave.data.store import CaseStore

TIMES = "grid.json"


@dataclass(frozen=True)
class GridRun:
    """One training of a grid.

    Attributes:
        name: arm, fold and seed: `unet+sa-lstm/seed-0`.
        folder: the run folder.
        recipe: its resolved recipe.
        evaluations: protocol → evaluation folder.
        train: the words of the command that trains it.
        score: the words that follow `evaluate RUN --protocol NAME`.
    """

    name: str
    folder: Path
    recipe: Recipe
    evaluations: dict[str, Path]
    train: tuple[str, ...]
    score: tuple[str, ...]

    def evaluate(self, protocol: str) -> tuple[str, ...]:
        """The words of the command that scores it."""
        return ("evaluate", str(self.folder), "--protocol", protocol, *self.score)

    @property
    def trained(self) -> bool:
        """Whether the training has ended."""
        return finished(self.folder)

    @property
    def to_score(self) -> list[str]:
        """The protocols under which it is still to be scored."""
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
        """What is done and what is left, in words."""
        if self.done:
            return "done"
        if self.trained:
            return f"trained; to score: {', '.join(self.to_score)}"
        share = self.share
        return f"begun, {share:.0%}" if share else "to do"


@dataclass(frozen=True)
class GridPlan:
    """All runs of a grid.

    Attributes:
        grid: the grid file.
        runs: the runs, arm by arm.
        seconds: name of a run → how long it took so far.
    """

    grid: Grid
    runs: tuple[GridRun, ...]
    seconds: dict[str, float]

    @property
    def left(self) -> list[GridRun]:
        """The runs that are not done."""
        return [run for run in self.runs if not run.done]

    def seconds_of(self, run: GridRun) -> float | None:
        """How long a whole run should take: the mean over finished runs of its arm, else over all
        finished ones; None before there is any.
        """
        done = [one for one in self.runs if one.name in self.seconds and one.done]
        same_arm = [one for one in done if one.recipe.arm == run.recipe.arm]
        times = [self.seconds[one.name] for one in same_arm or done]
        return sum(times) / len(times) if times else None

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
        out = shlex.quote(os.path.normpath(self.grid.out))
        return f"segweave compare {out}/{every} --reference {shlex.quote(arms[0])}"

    def summarise_command(self, evaluation: str) -> str:
        """The command that puts the scores of all runs together, by the name of the evaluation."""
        words = ["segweave", "summarise", os.path.normpath(self.grid.out)]
        words += [] if evaluation == "clean" else ["--evaluation", evaluation]
        return shlex.join(words)

    def seconds_left(self, runs: Sequence[GridRun] | None = None) -> float | None:
        """How long `runs` (default: all that are not done) should take; None while unknown."""
        left = self.left if runs is None else runs
        each = [(self.seconds_of(run), 1 - run.share) for run in left]
        if any(seconds is None for seconds, _ in each):
            return None
        times = [seconds * share for seconds, share in each if seconds is not None]
        return max(sum(times) / self.grid.jobs, max(times, default=0.0))


def plan_grid(grid: Grid) -> GridPlan:
    """All runs of a grid, checked before anything is started.

    Raises what reading recipes and the store raises; UsageError for two arms of one name, two names
    of one recipe, several folds of a split that does not depend on the fold, unknown protocols and
    metrics, a folder that holds a run of another recipe or other data, and an evaluation without
    one of the metrics.
    """
    from segweave.data.joined_store import open_stores
    from segweave.evaluation import check_metrics, get_protocol

    store = open_stores(grid.stores)
    for protocol in grid.protocols:
        get_protocol(protocol, dataset=store.name)
    check_metrics(grid.metrics, probabilities=True)
    contexts: Sequence[GridContext | None] = grid.contexts or (None,)
    arms = [_arm(grid, choice, context) for choice in grid.recipes for context in contexts]
    _check_arms([arm for arm, _ in arms])
    for recipe, _ in arms:
        _check_network(recipe, store)
    runs = [
        _run_of(grid, recipe, sets, seed, fold, store)
        for recipe, sets in arms
        for fold in grid.folds
        for seed in grid.seeds
    ]
    return GridPlan(grid, tuple(runs), read_times(grid.out))


def _arm(
    grid: Grid, choice: GridRecipe, context: GridContext | None
) -> tuple[Recipe, tuple[str, ...]]:
    """The recipe of an arm, and the texts for `--set` that make it of the grid's recipe."""
    sets = [*grid.margin_sets, *grid.sets, *choice.sets]
    label = choice.arm
    if context is not None:
        sets += context.changes(load_recipe(choice.recipe, sets))
        recipe = load_recipe(choice.recipe, sets)
        if label is not None:
            label = derived_arm(label, recipe.context, recipe.weaving.at)
        label = context.arm or label
    if label is not None:
        sets.append(as_set("arm", label))
    return load_recipe(choice.recipe, sets), (choice.recipe, *sets)


def _check_arms(recipes: Sequence[Recipe]) -> None:
    """Raise UsageError where one label has two recipes, or one recipe two labels."""
    doing = "planning a grid"
    labels = [recipe.arm for recipe in recipes]
    twice = [label for label, count in Counter(labels).items() if count > 1]
    if twice:
        raise UsageError(
            doing,
            expected="a different label for each arm",
            found=f"the arm {twice[0]} twice",
            remedy="give one of them another label with arm:",
        )
    label_of: dict[str, str] = {}
    for recipe in recipes:
        other = label_of.setdefault(arm_digest(recipe), recipe.arm)
        if other != recipe.arm:
            raise UsageError(
                doing,
                expected="a different recipe for each arm",
                found=f"equal recipes for {other} and {recipe.arm}",
                remedy="remove one of them",
            )


def _check_network(recipe: Recipe, store: CaseStore) -> None:
    """Build the network of an arm once, so that wrong names and options are found before all
    runs.
    """
    from segweave.recipes.build import build_network

    build_network(recipe, len(recipe.input.channels), store.target)


def _run_of(
    grid: Grid, arm: Recipe, words: Sequence[str], seed: int, fold: int, store: CaseStore
) -> GridRun:
    """`words` are the recipe's name and the texts for `--set`."""
    recipe = arm.model_copy(update={"seed": seed, "fold": fold})
    doing = f"planning the arm {recipe.arm} of a grid"
    if len(grid.folds) > 1 and "{fold}" not in (recipe.data.split or ""):
        raise UsageError(
            doing,
            expected="a split for each fold, as in data.split: fold-{fold}",
            found=f"data.split: {recipe.data.split}",
            remedy="name it under set:, or leave folds out",
        )
    if not recipe.choose_parts(store).get(grid.part):
        raise UsageError(doing, expected=f"{grid.part} cases to score", found="none in the store")
    # The label may hold any character; a folder's name may not.
    steps = [urllib.parse.quote(recipe.arm, safe=" +@")]
    steps += [f"fold-{fold}"] if len(grid.folds) > 1 else []
    steps += [f"seed-{seed}"]
    folder = grid.out.joinpath(*steps)
    _check_folder(folder, recipe, store)
    suffix = "" if grid.part == "test" else f"-{grid.part}"
    common = ("--device", grid.device, "--quiet")
    stores = [word for path in grid.stores for word in ("--store", str(path))]
    name, *sets = words
    train = ["train", name, "--out", str(folder), *stores, *common]
    for text in (*sets, f"seed={seed}", f"fold={fold}"):
        train += ["--set", text]
    evaluations = {name: folder / "evaluation" / f"{name}{suffix}" for name in grid.protocols}
    _check_evaluations(evaluations, grid.metrics, folder)
    measured = [word for metric in grid.metrics for word in ("--metric", metric)]
    return GridRun(
        "/".join(steps),
        folder,
        recipe,
        evaluations,
        tuple(train),
        # A run of several stores finds them by the paths in its recipe.
        ("--part", grid.part, *(stores if len(grid.stores) == 1 else ()), *measured, *common),
    )


def _check_evaluations(
    evaluations: Mapping[str, Path], metrics: Sequence[str], folder: Path
) -> None:
    """Raise UsageError where a run was scored without one of the metrics."""
    for protocol, path in evaluations.items():
        if not metrics or not (path / "manifest.json").is_file():
            continue
        scored = read_json(path / "manifest.json", "planning a grid").get("definitions", {})
        lost = [metric for metric in metrics if metric not in scored]
        if lost:
            shown = " ".join(f"--metric {metric}" for metric in metrics)
            raise UsageError(
                "planning a grid",
                file=path,
                expected=f"scores of the metrics {', '.join(metrics)}",
                found=f"an evaluation without {', '.join(lost)}",
                remedy=f"segweave evaluate {shlex.quote(str(folder))} --protocol {protocol} {shown}"
                " --force scores it again, and the evaluation states that it was scored twice; or "
                "leave the metric out of the grid",
            )


def _check_folder(folder: Path, recipe: Recipe, store: CaseStore) -> None:
    """Raise UsageError where the folder holds another training than this."""
    if not (folder / RECIPE).is_file():
        return
    run = Run(folder)
    differing = {k: v for k, v in differences(run.recipe, recipe).items() if k != "data.store"}
    shown = [f"{key}: {old!r} there, {new!r} now" for key, (old, new) in differing.items()]
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
    """Seconds by the runs' names; empty where none are recorded."""
    try:
        content = read_json(out / TIMES, "reading the times of a grid", formats=(FORMAT,))
        return {str(name): float(value) for name, value in content["seconds"].items()}
    except (InputError, ValueError, KeyError, TypeError, AttributeError):
        return {}  # estimates begin anew


def write_times(out: Path, seconds: Mapping[str, float]) -> None:
    """Write them beside the runs."""
    content = {"format": FORMAT, "seconds": {name: round(s, 1) for name, s in seconds.items()}}
    write_json(out / TIMES, content)
