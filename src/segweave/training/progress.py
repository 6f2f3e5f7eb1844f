"""The bar that a training shows: steps, loss, validation Dice, time left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class TrainingBar:
    """A rich progress bar on stderr; does nothing where `show` is False."""

    def __init__(self, title: str, steps: int, start: int, *, show: bool) -> None:
        self._steps = steps
        self._dice = ""
        self._progress: Progress | None = None
        if show:
            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("loss {task.fields[loss]}"),
                TextColumn("{task.fields[dice]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                refresh_per_second=4,
            )
            self._task = self._progress.add_task(
                title, total=steps, completed=start, loss="–", dice=""
            )

    def __enter__(self) -> TrainingBar:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def step(self, done: int, loss: float) -> None:
        """One more step is done."""
        if self._progress is not None:
            self._progress.update(self._task, completed=done, loss=f"{loss:.4f}")

    def scores(self, scores: dict[str, float]) -> None:
        """New validation scores."""
        if self._progress is not None and "dice" in scores:
            self._progress.update(self._task, dice=f"validation Dice {scores['dice']:.4f}")


@contextmanager
def counted(title: str, *, show: bool) -> Iterator[Callable[[int, int], None] | None]:
    """A bar on stderr for (done, total), gone when it is full; None where `show` is False."""
    if not show:
        yield None
        return
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
