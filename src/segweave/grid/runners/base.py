"""A job as plain data, and what runs jobs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from segweave.errors import SegweaveError

_SHOWN = 1500  # characters of a failed job's output


@dataclass(frozen=True)
class Job:
    """Calls of the command `segweave`, one after the other.

    Attributes:
        name: name of the run.
        calls: the words of each call, without `segweave` itself.
        log: the file for what the calls print.
    """

    name: str
    calls: tuple[tuple[str, ...], ...]
    log: Path


class Runner(Protocol):
    """Runs jobs somewhere: in processes of this machine, or on a cluster."""

    def run(
        self,
        jobs: Sequence[Job],
        *,
        ended: Callable[[Job, int], None],
        began: Callable[[Job], None] = lambda job: None,
        tick: Callable[[], None] = lambda: None,
    ) -> None:
        """Run all jobs. A call that fails ends its job, not the others.

        Whatever ends this early (an exception of a callback, Ctrl-C), the jobs are asked to stop
        so that trainings leave a whole checkpoint.

        Args:
            jobs: the jobs, in the order in which they should begin.
            ended: called with each job and the exit code of its last call.
            began: called when a job begins.
            tick: called several times a second while jobs are running.
        """


def failure(doing: str, job: Job, code: int) -> SegweaveError:
    """The error for a job that failed, with the end of its output."""
    text = job.log.read_text(encoding="utf-8", errors="replace").strip()
    return SegweaveError(
        doing,
        file=job.log,
        found=text[-_SHOWN:] or f"exit code {code}",
        remedy="the same command again continues",
    )
