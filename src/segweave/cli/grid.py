"""`segweave grid`: recipes × context modules × seeds × folds as one job that can be stopped."""

from __future__ import annotations

from pathlib import Path
from textwrap import indent
from typing import Annotated

import typer

EXAMPLES = (
    ("segweave grid grid.yaml --dry-run", "which runs are done, which are left, and how long"),
    ("segweave grid grid.yaml", "train and score; after Ctrl-C the same command continues"),
)


def grid(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="GRID.yaml",
            help="The file with store, out, recipes, contexts, seeds, folds, metrics and so on.",
            show_default=False,
        ),
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the runs and start none.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No lines about progress.")] = False,
) -> None:
    """Train recipes × context modules × seeds × folds, score each run, and list what `segweave
    compare` reads.

    Runs that are done are skipped, one that was interrupted continues bit for bit, one that fails
    does not stop the others. Each run is the command `segweave train` in a separate process, then
    `segweave evaluate`, once for each protocol.
    """
    from segweave.cli.bars import run_bars
    from segweave.cli.show import results, table
    from segweave.errors import SegweaveError
    from segweave.grid import in_words, load_grid, plan_grid, run_grid

    plan = plan_grid(load_grid(file))
    if dry_run:
        estimates = [plan.seconds_left([run]) for run in plan.runs]
        rows = [
            (run.name, run.state, in_words(left) if left and not run.done else "")
            for run, left in zip(plan.runs, estimates, strict=True)
        ]
        left = plan.seconds_left()
        note = f"{len(plan.left)} of {len(plan.runs)} left"
        note += f", about {in_words(left)}" if left else ""
        table(f"Runs in {plan.grid.out}", ("run", "state", "time left"), rows, note)
        return
    with run_bars(show=not quiet) as report:
        done = run_grid(plan, report=report)
    for protocol, folders in done.evaluations.items():
        for folder in folders:
            results(**{protocol: folder})
        if (compare := plan.compare_command(protocol)) is not None:
            results(compare=compare)
        if folders and len(plan.grid.folds) > 1:
            results(summarise=plan.summarise_command(folders[0].name))
    if done.failures:
        words = "".join(
            f"\n    {name} ({error.file})\n" + indent(str(error.found).strip(), " " * 6)
            for name, error in done.failures.items()
        )
        raise SegweaveError(
            f"running a grid: {len(done.failures)} of {len(plan.runs)} runs failed",
            found=words,
            remedy="the same command tries them again",
        )
