"""Runs segweave's own command in processes of their own, several at a time, and shows how far the
trainings among them are.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from segweave.errors import SegweaveError
from segweave.registry import REGISTRIES

if TYPE_CHECKING:
    from rich.progress import TaskID

    from segweave.recipes import Recipe

_PATIENCE = 60.0  # seconds that a process has to end the step it is in
_SHOWN = 1500  # characters of a failed process's last words


@dataclass(frozen=True)
class Job:
    """Calls of the command `segweave`, one after the other; what they print goes to `log`."""

    name: str
    calls: tuple[tuple[str, ...], ...]
    log: Path


@dataclass
class _Running:
    job: Job
    left: list[tuple[str, ...]]
    process: subprocess.Popen[bytes]


def run_jobs(
    jobs: Iterable[Job],
    *,
    at_once: int,
    threads: int,
    ended: Callable[[Job, int], None],
    began: Callable[[Job], None] = lambda job: None,
    tick: Callable[[], None] = lambda: None,
) -> None:
    """Run all jobs, `at_once` at a time, each process with `threads` threads.

    `began` and `ended` (with the exit code of the last call that was made, 0 where all went well)
    are told of each job, `tick` is called several times a second. Whatever ends this early (an
    exception of theirs, Ctrl-C, a closed terminal), the processes are asked to stop as Ctrl-C
    would, so that trainings leave a whole checkpoint.
    """
    waiting = list(jobs)
    running: list[_Running] = []
    with _as_interrupts(), _stopping(running):
        while waiting or running:
            while waiting and len(running) < at_once:
                job = waiting.pop(0)
                job.log.parent.mkdir(parents=True, exist_ok=True)
                job.log.write_bytes(b"")
                running.append(_Running(job, list(job.calls[1:]), _start(job, 0, threads)))
                began(job)
            for one in list(running):
                code = one.process.poll()
                if code is None:
                    continue
                if code == 0 and one.left:
                    number = len(one.job.calls) - len(one.left)
                    del one.left[0]
                    one.process = _start(one.job, number, threads)
                    continue
                running.remove(one)
                ended(one.job, code)
            tick()
            time.sleep(0.2)


def last_words(job: Job, code: int) -> str:
    """What a job that failed printed last."""
    text = job.log.read_text(encoding="utf-8", errors="replace").strip()
    return text[-_SHOWN:] or f"exit code {code}"


def failure(doing: str, job: Job, code: int) -> SegweaveError:
    """The error that says, in its own words, why a job failed."""
    return SegweaveError(
        doing,
        file=job.log,
        found=last_words(job, code),
        remedy="the same command again continues",
    )


def _start(job: Job, number: int, threads: int) -> subprocess.Popen[bytes]:
    count = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    with job.log.open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "segweave", *_plugins(), *job.calls[number]],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **count},
            # Ctrl-C in the terminal would reach it too, and a second one makes a training give up
            # the step that it wanted to save.
            start_new_session=True,
        )


def _plugins() -> list[str]:
    """The files that this process was given with --plugin, for the processes that it starts."""
    files = dict.fromkeys(file for kind in REGISTRIES for file in kind.plugin_hashes)
    return [word for file in files for word in ("--plugin", file)]


@contextmanager
def _stopping(running: list[_Running]) -> Iterator[None]:
    """Afterwards none of them runs: asked to stop, or, after a minute or a second Ctrl-C, ended."""
    try:
        yield
    finally:
        _stop([one.process for one in running])


def _stop(processes: list[subprocess.Popen[bytes]]) -> None:
    try:
        for process in processes:
            if process.poll() is None:
                process.send_signal(signal.SIGINT if os.name == "posix" else signal.SIGTERM)
        until = time.monotonic() + _PATIENCE
        for process in processes:
            process.wait(timeout=max(until - time.monotonic(), 0.1))
    except subprocess.TimeoutExpired:
        pass
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.wait()


@contextmanager
def _as_interrupts() -> Iterator[None]:
    """Let what else ends a program (kill, a closed terminal) end it as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    found = [getattr(signal, name, None) for name in ("SIGTERM", "SIGHUP")]
    # What somebody chose to ignore (nohup) stays ignored.
    wanted = [n for n in found if n is not None and signal.getsignal(n) != signal.SIG_IGN]
    before = [(number, signal.signal(number, handle)) for number in wanted]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)


def finished(run: Path) -> bool:
    """Whether a training ended in this folder."""
    return (run / "model" / "card.json").is_file()


def share_done(run: Path, recipe: Recipe) -> tuple[float, float | None]:
    """How much of a training is done (0 to 1), and its last loss (None before the first step)."""
    from segweave.runs.metrics_file import read_rows

    rows = read_rows(run / "metrics.csv")
    if not rows:
        return float(finished(run)), None
    steps = recipe.training.steps
    if steps is None:
        # Steps of an epoch are known once the second has begun.
        first = sum(row["epoch"] == rows[0]["epoch"] for row in rows)
        steps = first * (recipe.training.epochs or 1) + 1
    share = 1.0 if finished(run) else min(rows[-1]["step"] / steps, 1.0)
    return share, rows[-1]["loss"]


class Bars:
    """One line a training on stderr. `say` writes a line above them that stays."""

    def __init__(self, recipes: Mapping[str, Recipe], runs: Mapping[str, Path], show: bool) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            Progress,
            TaskProgressColumn,
            TextColumn,
            TimeElapsedColumn,
        )

        width = max((len(name) for name in runs), default=0)
        columns = (
            TextColumn(f"  {{task.description:<{width}}}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[loss]}"),
        )
        self._console = Console(stderr=True, highlight=False, quiet=not show)
        self.progress = Progress(
            *columns, console=self._console, disable=not (show and self._console.is_terminal)
        )
        self._recipes, self._runs = recipes, runs
        self._tasks: dict[str, TaskID] = {}
        self._last = 0.0

    def say(self, text: str) -> None:
        """A line that stays."""
        self._console.print(text, markup=False, soft_wrap=True)

    def add(self, name: str) -> None:
        """Show a training; its clock starts with its first step."""
        self._tasks[name] = self.progress.add_task(name, total=1.0, loss="", start=False)

    def remove(self, name: str) -> None:
        """Show it no longer."""
        self.progress.remove_task(self._tasks.pop(name))

    def draw(self, *, now: bool = False) -> None:
        """Read how far the trainings are, once a second at most unless `now`."""
        if self.progress.disable or (time.monotonic() - self._last < 1.0 and not now):
            return
        self._last = time.monotonic()
        for name, task in self._tasks.items():
            share, loss = share_done(self._runs[name], self._recipes[name])
            if loss is None:
                continue
            if not self.progress.tasks[self.progress.task_ids.index(task)].started:
                self.progress.start_task(task)
            self.progress.update(task, completed=share, loss=f"loss {loss:.3f}")


@contextmanager
def bars(recipes: Mapping[str, Recipe], runs: Mapping[str, Path], *, show: bool) -> Iterator[Bars]:
    """`Bars` for trainings by name: their recipes and run folders."""
    shown = Bars(recipes, runs, show)
    with shown.progress:
        yield shown
