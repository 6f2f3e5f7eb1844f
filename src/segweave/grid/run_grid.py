"""Runs what is left of a grid, through the command itself, and reports one line per run."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from segweave.errors import InputError, SegweaveError
from segweave.grid.plan import GridPlan, GridRun, write_times
from segweave.grid.progress import Report, RunEvent, Watch, silent
from segweave.grid.reading import Grid
from segweave.grid.runners import Job, LocalProcesses, Runner, failure
from segweave.registry import metrics
from segweave.storage import read_json


@dataclass(frozen=True)
class GridDone:
    """The result of a grid.

    Attributes:
        evaluations: protocol → the evaluation folders that exist.
        failures: name of a run → why it failed.
    """

    evaluations: dict[str, list[Path]]
    failures: dict[str, SegweaveError]


def run_grid(plan: GridPlan, *, runner: Runner | None = None, report: Report = silent) -> GridDone:
    """Train and score what is left of a grid, through the command itself, one process per run.

    A run that fails does not stop the others; its output is in `out/logs`. Test cases are scored
    once under each protocol. Ctrl-C stops at a checkpoint, and the same call continues.

    Args:
        plan: from `plan_grid`.
        runner: what runs the jobs; by default processes of this machine, as many at a time as the
            grid's `jobs`.
        report: called with each `RunEvent`.
    """
    left = plan.left
    by_name = {run.name: run for run in left}
    failures: dict[str, SegweaveError] = {}
    started: dict[str, float] = {}
    seconds = dict(plan.seconds)
    plan = GridPlan(plan.grid, plan.runs, seconds)
    watch = Watch(report)

    def clock(name: str) -> None:
        seconds[name] = seconds.get(name, 0.0) + time.monotonic() - started.pop(name)

    def began(job: Job) -> None:
        started[job.name] = time.monotonic()
        watch.add(job.name, by_name[job.name].folder, by_name[job.name].recipe)

    def ended(job: Job, code: int) -> None:
        clock(job.name)
        write_times(plan.grid.out, seconds)
        if code != 0:
            failures[job.name] = failure(f"running {job.name} of a grid", job, code)
        watch.remove(job.name, _line(plan, by_name[job.name], failures))

    if left:
        done = f"{len(plan.runs) - len(left)} of {len(plan.runs)} runs are done"
        report(RunEvent("note", text=done + _time_left(plan.seconds_left())))
    try:
        (runner or LocalProcesses(plan.grid.jobs, plan.grid.threads)).run(
            [_job(plan.grid, run) for run in left], began=began, ended=ended, tick=watch.look
        )
    finally:
        for name in list(started):
            clock(name)
        if left:
            write_times(plan.grid.out, seconds)
    evaluations = {
        protocol: [run.evaluations[protocol] for run in plan.runs if protocol not in run.to_score]
        for protocol in plan.grid.protocols
    }
    return GridDone(evaluations, failures)


def _job(grid: Grid, run: GridRun) -> Job:
    calls = [] if run.trained else [run.train]
    calls += [run.evaluate(protocol) for protocol in run.to_score]
    return Job(run.name, tuple(calls), grid.out / "logs" / f"{run.name.replace('/', ' ')}.txt")


def _line(plan: GridPlan, run: GridRun, failures: Mapping[str, SegweaveError]) -> str:
    """One line about the end of a run, and how much is left."""
    left = [one for one in plan.left if one.name not in failures]
    after = f"{len(left)} left{_time_left(plan.seconds_left(left))}"
    if run.name in failures:
        return f"{run.name}: failed, see {failures[run.name].file}; {after}"
    scores = [
        f"{protocol} {score}"
        for protocol, folder in run.evaluations.items()
        if (score := _score(folder)) is not None
    ]
    took = f"done in {in_words(plan.seconds[run.name])}"
    return "; ".join([f"{run.name}: {took}", *scores, after])


def _score(folder: Path) -> str | None:
    """What an evaluation compares arms by ("Dice 0.8123"), None where it has no value."""
    try:
        arm = read_json(folder / "summary.json", "reading a summary")["arms"][0]
        metric = arm.get("primary", "dice")
        value = float(arm["macro"]["overlaps"][metric]["mean"])
        return f"{metrics.card(metric).heading} {value:.4f}"
    except (InputError, ValueError, KeyError, IndexError, TypeError):
        return None


def _time_left(seconds: float | None) -> str:
    return f", about {in_words(seconds)}" if seconds else ""


def in_words(seconds: float) -> str:
    """A duration for people: 40 s, 12 min, 3 h 20 min, 2 d 4 h."""
    if seconds < 90:
        return f"{max(round(seconds), 1)} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"
