"""The jobs of a service in SQLite: what was accepted is there after `kill -9`, and ends once."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from segweave.storage import open_table

State = Literal["queued", "running", "done", "failed"]
FORMAT = 1
_TABLE = """
create table if not exists jobs (
    number integer primary key autoincrement,
    id text not null unique,
    state text not null,
    model text not null,
    image text not null,
    options text not null,
    created real not null,
    started real,
    ended real,
    attempts integer not null default 0,
    status integer,
    message text,
    results text not null default '{}'
)
"""
_NAMES = (
    "id", "state", "model", "image", "options", "created", "started", "ended", "attempts",
    "status", "message", "results",
)  # fmt: skip
_SELECT = f"select {', '.join(_NAMES)} from jobs "


@dataclass(frozen=True)
class Job:
    """One job.

    Attributes:
        id: 32 hexadecimal digits that nobody can guess.
        state: `queued`, `running`, then once `done` or `failed`.
        model: the name of the model.
        image: the path of the image in the job's folder, a name of the server.
        options: what the client asked for.
        created: seconds since 1970.
        started: when it last began to run, or None.
        ended: when it ended, or None.
        attempts: how often it began to run.
        status: the HTTP status code that describes a failure, or None.
        message: why it failed, or None.
        results: name of a result → its file in the folder of results.
    """

    id: str
    state: State
    model: str
    image: str
    options: dict[str, Any]
    created: float
    started: float | None = None
    ended: float | None = None
    attempts: int = 0
    status: int | None = None
    message: str | None = None
    results: dict[str, str] | None = None

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self.state in ("done", "failed")


class JobTable:
    """The table of jobs. Every method is one transaction, and may be called by any thread."""

    def __init__(self, file: Path) -> None:
        """Open or make the table. Raises InputError where the file is something else."""
        self._connection = open_table(
            file,
            _TABLE,
            FORMAT,
            "opening the jobs of a service",
            pragmas=("secure_delete=on",),
            expected="a table of jobs",
            remedy="choose another folder with --jobs-folder",
        )
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def add(self, job: Job) -> None:
        """Accept a job: from here on it ends once."""
        self._do(
            "insert into jobs (id, state, model, image, options, created) "
            "values (?, ?, ?, ?, ?, ?)",
            (job.id, job.state, job.model, job.image, json.dumps(job.options), job.created),
        )

    def get(self, id: str) -> Job | None:
        """The job of that id, or None."""
        rows = self._rows(_SELECT + "where id = ?", (id,))
        return rows[0] if rows else None

    def every(self) -> list[Job]:
        """All jobs, in the order in which they were accepted."""
        return self._rows(_SELECT + "order by number", ())

    def waiting(self) -> int:
        """How many jobs are queued."""
        with self._lock:
            query = "select count(*) from jobs where state = 'queued'"
            return int(self._connection.execute(query).fetchone()[0])

    def ahead(self, id: str) -> int:
        """How many queued jobs come before this one."""
        with self._lock:
            query = (
                "select count(*) from jobs where state = 'queued' and number < "
                "(select number from jobs where id = ?)"
            )
            return int(self._connection.execute(query, (id,)).fetchone()[0])

    def take(self) -> Job | None:
        """Begin the job that has waited longest; None where none waits."""
        query = (
            "update jobs set state = 'running', started = ?, attempts = attempts + 1 where number ="
            " (select min(number) from jobs where state = 'queued') returning id"
        )
        with self._lock:
            row = self._connection.execute(query, (time.time(),)).fetchone()
        return None if row is None else self.get(row[0])

    def finish(self, id: str, results: dict[str, str]) -> bool:
        """End a running job; False where it does not run (it was deleted, or has ended)."""
        query = "update jobs set state = 'done', ended = ?, results = ? where id = ? and "
        return self._do(
            query + "state = 'running'", (time.time(), json.dumps(results, sort_keys=False), id)
        )

    def fail(self, id: str, status: int, message: str) -> bool:
        """End a running job with the reason; False where it does not run."""
        query = "update jobs set state = 'failed', ended = ?, status = ?, message = ? where id = ? "
        return self._do(query + "and state = 'running'", (time.time(), status, message, id))

    def put_back(self, id: str) -> bool:
        """Queue a running job again because the service stops: that is not an attempt."""
        return self._do(
            "update jobs set state = 'queued', attempts = attempts - 1 where id = ? and "
            "state = 'running'",
            (id,),
        )

    def recover(self, most: int) -> tuple[list[str], list[str]]:
        """Queue again what a killed server was running, in its old place; what was begun more than
        `most` + 1 times fails. Returns the ids of both.
        """
        running = [job for job in self.every() if job.state == "running"]
        again = [job.id for job in running if job.attempts <= most]
        given_up = [job.id for job in running if job.attempts > most]
        for id in again:
            self._do("update jobs set state = 'queued' where id = ?", (id,))
        for id in given_up:
            self.fail(id, 500, f"the server was stopped {most + 1} times while it ran this job")
        return again, given_up

    def remove(self, id: str) -> bool:
        """Forget a job, whatever its state; False where there is none."""
        return self._do("delete from jobs where id = ?", (id,))

    def _do(self, query: str, values: tuple[Any, ...]) -> bool:
        with self._lock:
            return self._connection.execute(query, values).rowcount > 0

    def _rows(self, query: str, values: tuple[Any, ...]) -> list[Job]:
        with self._lock:
            rows = self._connection.execute(query, values).fetchall()
        return [_job(dict(zip(_NAMES, row, strict=True))) for row in rows]


def _job(row: dict[str, Any]) -> Job:
    return Job(**row | {name: json.loads(row[name]) for name in ("options", "results")})
