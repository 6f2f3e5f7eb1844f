"""The bodies of the service's answers, from which its OpenAPI is made."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel

from segweave.errors import SegweaveError
from segweave.prediction.measurements import REMARK
from segweave.serve.jobs import Job, State
from segweave.serve.service import Service
from segweave.serve.slices import slices_of


class ErrorAnswer(BaseModel):
    """Why a request was refused: the status code, and a message without paths and names."""

    status: int
    message: str


def errors(*codes: int) -> dict[int | str, dict[str, Any]]:
    """The answers of a route that refuses with these status codes, for OpenAPI."""
    return {code: {"model": ErrorAnswer} for code in codes}


def body(kind: str) -> dict[int | str, dict[str, Any]]:
    """The answer of a route that returns a file of this media type, for OpenAPI."""
    return {200: {"content": {kind: {}}}}


class Health(BaseModel):
    """Whether jobs are run, and how many wait."""

    status: Literal["ok", "stopping"]
    waiting: int


class ModelAnswer(BaseModel, extra="allow"):
    """A model: its name, and what its card says of it."""

    name: str
    target: dict[str, Any]


class ModelsAnswer(BaseModel):
    """The models, and what the service allows."""

    models: list[ModelAnswer]
    limits: dict[str, float]
    remark: str = REMARK


class Progress(BaseModel):
    """Slices done, and all slices; 0 of 0 before the job runs."""

    done: float
    total: float


class Slices(BaseModel):
    """The slices of a finished job: how many, and their rows and columns."""

    count: int
    size: tuple[int, int]


class JobAnswer(BaseModel):
    """A job: its state, its progress, and where its results are once it is done. `doubt`, 0 to 1,
    is the score by which `segweave rank` orders cases, null where no map of uncertainty was wanted.
    """

    id: str
    state: State
    model: str
    denoise: str = ""
    created: datetime
    started: datetime | None
    ended: datetime | None
    ahead: int
    progress: Progress
    error: ErrorAnswer | None
    results: dict[str, str]
    slices: Slices | None
    doubt: float | None = None
    remark: str = REMARK


def job_answer(service: Service, job: Job) -> JobAnswer:
    """What clients are shown of a job."""
    done, total = service.progress(job.id)
    error = None
    if job.state == "failed":
        error = ErrorAnswer(status=job.status or 500, message=job.message or "")
    slices = doubt = None
    if job.state == "done":
        # The job may be deleted meanwhile.
        with suppress(SegweaveError):
            about = slices_of(service.results(job.id))
            slices = Slices(count=about["slices"], size=(about["size"][0], about["size"][1]))
            done = total = float(about["slices"])
            doubt = about.get("doubt")
    return JobAnswer(
        id=job.id,
        state=job.state,
        model=job.model,
        denoise=job.options.get("denoise", ""),
        created=_time(job.created),
        started=None if job.started is None else _time(job.started),
        ended=None if job.ended is None else _time(job.ended),
        ahead=service.table.ahead(job.id) if job.state == "queued" else 0,
        progress=Progress(done=done, total=total),
        error=error,
        results={name: f"/jobs/{job.id}/results/{name}" for name in job.results or {}},
        slices=slices,
        doubt=doubt,
    )


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
