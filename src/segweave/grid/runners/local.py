"""Runs jobs in processes of this machine, several at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from segweave.grid.processes import Process, signals_as_interrupts, start, stop
from segweave.grid.runners.base import Job

_PAUSE = 0.2  # seconds between two looks at the processes


@dataclass
class _Running:
    job: Job
    left: list[tuple[str, ...]]
    process: Process


@dataclass(frozen=True)
class LocalProcesses:
    """`at_once` jobs at a time, each process with `threads` threads."""

    at_once: int = 1
    threads: int = 1

    def run(
        self,
        jobs: Sequence[Job],
        *,
        ended: Callable[[Job, int], None],
        began: Callable[[Job], None] = lambda job: None,
        tick: Callable[[], None] = lambda: None,
    ) -> None:
        """Run all jobs (see `Runner.run`)."""
        waiting = list(jobs)
        running: list[_Running] = []
        with signals_as_interrupts():
            try:
                while waiting or running:
                    while waiting and len(running) < self.at_once:
                        job = waiting.pop(0)
                        running.append(self._begin(job))
                        began(job)
                    for one in list(running):
                        code = one.process.poll()
                        if code is None:
                            continue
                        if code == 0 and one.left:
                            one.process = start(one.left.pop(0), one.job.log, self.threads)
                            continue
                        running.remove(one)
                        ended(one.job, code)
                    tick()
                    time.sleep(_PAUSE)
            finally:
                stop([one.process for one in running])

    def _begin(self, job: Job) -> _Running:
        job.log.parent.mkdir(parents=True, exist_ok=True)
        job.log.write_bytes(b"")
        first, *left = job.calls
        return _Running(job, left, start(first, job.log, self.threads))
