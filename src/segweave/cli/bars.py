"""Shows the events of a grid or the demo: lines that stay, and one bar per training under them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)

if TYPE_CHECKING:
    from rich.progress import TaskID

    from segweave.grid import Report, RunEvent


_STEP = 0.25  # share of a training after which a file gets another line


class _Bars:
    def __init__(self, console: Console, progress: Progress) -> None:
        self._console = console
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}
        self._printed: dict[str, float] = {}

    def __call__(self, event: RunEvent) -> None:
        if event.text:
            self._console.print(event.text, markup=False, soft_wrap=True)
        if event.kind == "began":
            self._tasks[event.run] = self._progress.add_task(
                event.run, total=1.0, loss="", start=False
            )
        elif event.kind == "ended":
            self._progress.remove_task(self._tasks.pop(event.run))
        elif event.kind == "progress" and event.loss is not None:
            task = self._tasks[event.run]
            # The clock starts with the first step.
            self._progress.start_task(task)
            self._progress.update(task, completed=event.share, loss=f"loss {event.loss:.3f}")
            self._line(event, event.loss)

    def _line(self, event: RunEvent, loss: float) -> None:
        """What a file or a pipe shows of a training, where no bar can be drawn."""
        if self._progress.disable and event.share >= self._printed.get(event.run, 0.0) + _STEP:
            self._printed[event.run] = event.share
            self._console.print(f"  {event.run}: {event.share:.0%}, loss {loss:.3f}", markup=False)


@contextmanager
def run_bars(*, show: bool) -> Iterator[Report]:
    """A function that shows events on stderr, with bars where that is a terminal."""
    console = Console(stderr=True, highlight=False, quiet=not show)
    columns = (
        TextColumn("  {task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[loss]}"),
    )
    with Progress(
        *columns, console=console, disable=not (show and console.is_terminal)
    ) as progress:
        yield _Bars(console, progress)
