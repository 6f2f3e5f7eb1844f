"""Runs what is left of a grid, through the command itself, and says one line a run."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from segweave.errors import InputError, SegweaveError
from segweave.grid.jobs import Bars, Job, bars, failure, run_jobs
from segweave.grid.plan import GridPlan, GridRun, write_times
from segweave.grid.reading import Grid
from segweave.storage import read_json


@dataclass(frozen=True)
class GridDone:
    """What became of a grid: the evaluation folders that are there, by protocol, and why runs
    failed, by name.
    """

    evaluations: dict[str, list[Path]]
    failures: dict[str, SegweaveError]


def run_grid(plan: GridPlan, *, progress: bool = True) -> GridDone:
    """Train and score what is left of a grid, through the command itself, one process a run.

    A run that fails does not stop the others; its own words are in `out/logs`. Test cases are
    scored once under each protocol. Ctrl-C stops at a checkpoint, and the same call goes on.
    """
    left = plan.left
    by_name = {run.name: run for run in left}
    failures: dict[str, SegweaveError] = {}
    started: dict[str, float] = {}
    seconds = dict(plan.seconds)
    plan = GridPlan(plan.grid, plan.runs, seconds)
    recipes = {run.name: run.recipe for run in left}

    def clocked(name: str) -> None:
        seconds[name] = seconds.get(name, 0.0) + time.monotonic() - started.pop(name)

    with bars(recipes, {run.name: run.folder for run in left}, show=progress) as shown:
        _say_what_is_left(shown, plan)

        def began(job: Job) -> None:
            started[job.name] = time.monotonic()
            shown.add(job.name)

        def ended(job: Job, code: int) -> None:
            clocked(job.name)
            write_times(plan.grid.out, seconds)
            shown.remove(job.name)
            if code != 0:
                failures[job.name] = failure(f"running {job.name} of a grid", job, code)
            shown.say(_line(plan, by_name[job.name], failures))

        try:
            run_jobs(
                [_job(plan.grid, run) for run in left],
                at_once=plan.grid.jobs,
                threads=plan.grid.threads,
                began=began,
                ended=ended,
                tick=shown.draw,
            )
        finally:
            for name in list(started):
                clocked(name)
            if left:
                write_times(plan.grid.out, seconds)
    found = {
        protocol: [run.evaluations[protocol] for run in plan.runs if protocol not in run.to_score]
        for protocol in plan.grid.protocols
    }
    return GridDone(found, failures)


def _job(grid: Grid, run: GridRun) -> Job:
    calls = [] if run.trained else [run.train]
    for protocol in run.to_score:
        words = ["evaluate", str(run.folder), "--store", str(grid.store), "--protocol", protocol]
        calls.append((*words, "--part", grid.part, "--device", grid.device, "--quiet"))
    log = grid.out / "logs" / f"{run.name.replace('/', ' ')}.txt"
    return Job(run.name, tuple(calls), log)


def _say_what_is_left(shown: Bars, plan: GridPlan) -> None:
    left = len(plan.left)
    done = len(plan.runs) - left
    if left:
        shown.say(f"{done} of {len(plan.runs)} runs are done{_time_left(plan.seconds_left())}")


def _line(plan: GridPlan, run: GridRun, failures: Mapping[str, SegweaveError]) -> str:
    """One line that says what became of a run and how much is left."""
    left = [one for one in plan.left if one.name not in failures]
    after = f"{len(left)} left{_time_left(plan.seconds_left(left))}"
    if run.name in failures:
        return f"{run.name}: failed, see {failures[run.name].file}; {after}"
    dice = [
        f"{protocol} Dice {value:.4f}"
        for protocol, folder in run.evaluations.items()
        if (value := _dice(folder)) is not None
    ]
    took = f"done in {in_words(plan.seconds[run.name])}"
    return "; ".join([f"{run.name}: {took}", *dice, after])


def _dice(folder: Path) -> float | None:
    """The macro Dice of an evaluation, None where its protocol has none."""
    try:
        summary = read_json(folder / "summary.json", "reading a summary")
        return float(summary["arms"][0]["macro"]["overlaps"]["dice"]["mean"])
    except (InputError, KeyError, IndexError, TypeError):
        return None


def _time_left(seconds: float | None) -> str:
    return f", about {in_words(seconds)}" if seconds else ""


def in_words(seconds: float) -> str:
    """A time as a person says it: 40 s, 12 min, 3 h 20 min, 2 d 4 h."""
    if seconds < 90:
        return f"{max(round(seconds), 1)} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"
