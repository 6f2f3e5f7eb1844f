"""The HTTP application: its routes, and what errors are answered with."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Annotated, BinaryIO

from fastapi import FastAPI, Header, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from segweave import __version__
from segweave.errors import SegweaveError
from segweave.prediction.measurements import REMARK
from segweave.serve.answers import Health, JobAnswer, ModelsAnswer, errors, job_answer
from segweave.serve.editing import add_editing
from segweave.serve.forms import body_schema, files_of, options_of, received
from segweave.serve.gate import Application, Gate, error_body
from segweave.serve.limits import RefusedError
from segweave.serve.messages import public_message
from segweave.serve.pages import add_pages
from segweave.serve.results import MEDIA_TYPES
from segweave.serve.service import Service
from segweave.serve.slices import slice_png
from segweave.serve.views import add_views
from segweave.storage import sha256_of_text

_POLL, _KEEP_ALIVE = 0.2, 15.0
_TEXTS = {404: "no such address", 405: "another method is needed here"}


def create_app(service: Service, *, token: str | None = None) -> Application:
    """The application of a service.

    Args:
        service: what runs the jobs; the caller starts and stops it (`with service:`).
        token: what clients have to send; None where only this machine reaches the application.
    """
    # One upload is read at a time, so that memory does not grow with the number of clients.
    checking = ThreadPoolExecutor(1, "checking")

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        with checking:
            yield

    app = FastAPI(
        title="segweave",
        version=__version__,
        description=f"Segments medical images. {REMARK[0].upper()}{REMARK[1:]}.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    _add_errors(app, service)
    add_pages(app, service)
    _add_state(app, service)
    _add_jobs(app, service, checking)
    _add_results(app, service)
    add_views(app, service)
    add_editing(app, service, checking)
    return Gate(app, service.limits, token)


def _add_errors(app: FastAPI, service: Service) -> None:
    def answer(status: int, text: str, headers: dict[str, str] | None = None) -> JSONResponse:
        return JSONResponse(error_body(status, text), status, headers)

    @app.exception_handler(SegweaveError)
    async def library(_: Request, error: SegweaveError) -> JSONResponse:
        message = public_message(error, service.folder)
        after = error.retry_after if isinstance(error, RefusedError) else None
        headers = None if after is None else {"Retry-After": str(after)}
        return answer(message.status, message.text, headers)

    @app.exception_handler(HTTPException)
    async def protocol(_: Request, error: HTTPException) -> JSONResponse:
        text = _TEXTS.get(error.status_code, "the request can't be answered")
        return answer(error.status_code, text, dict(error.headers or {}))

    @app.exception_handler(ClientDisconnect)
    async def gone(_: Request, __: ClientDisconnect) -> JSONResponse:
        # Nobody reads it, and nothing is wrong with the service.
        return answer(400, "the client went away")

    @app.exception_handler(RequestValidationError)
    async def wrong(_: Request, error: RequestValidationError) -> JSONResponse:
        # Where and what was expected, without what was sent.
        lines = [f"  {one['loc'][-1]}: {one['msg']}" for one in error.errors()]
        return answer(422, "\n".join(["reading the request", *lines]))

    @app.exception_handler(Exception)
    async def unexpected(_: Request, error: Exception) -> JSONResponse:
        message = public_message(error)
        return answer(message.status, message.text)


def _add_state(app: FastAPI, service: Service) -> None:
    @app.get("/health")
    def health() -> Health:
        """Whether jobs are run, and how many wait."""
        status = "ok" if service.is_alive else "stopping"
        return Health.model_validate({"status": status, "waiting": service.table.waiting()})

    @app.get("/models")
    def models() -> ModelsAnswer:
        """The models with what their cards say, and the limits of the service."""
        cards = [model.card for model in service.models.values()]
        return ModelsAnswer.model_validate({"models": cards, "limits": vars(service.limits)})


def _add_jobs(app: FastAPI, service: Service, checking: ThreadPoolExecutor) -> None:
    @app.post(
        "/jobs",
        status_code=202,
        responses=errors(400, 403, 408, 413, 415, 422, 429, 503, 507),
        openapi_extra={"requestBody": body_schema(service.models)},
    )
    async def create(request: Request, response: Response) -> JobAnswer:
        """Send an image. It is read as a check; then it waits until it is segmented."""
        with service.place():
            async with received(request, service.limits) as form:
                options, files = options_of(form, service.models), files_of(form)
                # Shielded: a client that goes away must not leave a thread with closed files.
                work = asyncio.get_running_loop().run_in_executor(
                    checking, service.accept, files, options
                )
                job = await asyncio.shield(work)
        response.headers["Location"] = f"/jobs/{job.id}"
        return job_answer(service, job)

    @app.get("/jobs/{id}", responses=errors(404))
    def read(id: str) -> JobAnswer:
        """The state of a job, its progress, and where its results are."""
        return job_answer(service, service.get(id))

    @app.delete("/jobs/{id}", status_code=204, responses=errors(404))
    def delete(id: str) -> None:
        """Delete a job with its image and results; one that runs is stopped."""
        service.delete(id)

    @app.get(
        "/jobs/{id}/events",
        response_class=StreamingResponse,
        responses=errors(404, 422) | {200: {"content": {"text/event-stream": {}}}},
    )
    async def events(
        id: str, last_event_id: Annotated[str | None, Header(max_length=100)] = None
    ) -> StreamingResponse:
        """The job as server-sent events: `progress` when something changes, then `end`. Who was
        cut off sends the id of the last event and gets what changed since.
        """
        await run_in_threadpool(service.get, id)
        stream = _events(service, id, last_event_id or "")
        return StreamingResponse(stream, media_type="text/event-stream")


async def _events(service: Service, id: str, before: str) -> AsyncIterator[str]:
    sent = time.monotonic()
    while not service.stopping.is_set():
        try:
            job = await run_in_threadpool(lambda: job_answer(service, service.get(id)))
        except (SegweaveError, OSError):
            yield f"event: end\ndata: {json.dumps({'id': id, 'state': 'deleted'})}\n\n"
            return
        text = job.model_dump_json()
        if job.state in ("done", "failed"):
            yield f"event: end\ndata: {text}\n\n"
            return
        state = sha256_of_text(text)[:16]
        if state != before:
            yield f"event: progress\ndata: {text}\nid: {state}\n\n"
            before, sent = state, time.monotonic()
        elif time.monotonic() - sent > _KEEP_ALIVE:
            yield ": waiting\n\n"
            sent = time.monotonic()
        await asyncio.sleep(_POLL)


def _add_results(app: FastAPI, service: Service) -> None:
    @app.get(
        "/jobs/{id}/results/{name}",
        response_class=StreamingResponse,
        responses=errors(404, 409) | {200: {"content": {"application/octet-stream": {}}}},
    )
    def result(id: str, name: str) -> StreamingResponse:
        """A result by its name: labels, array, overlay, measurements, probabilities, dicom-seg."""
        results = service.finished(id).results or {}
        if name not in results:
            raise RefusedError(404, "reading a result", expected=", ".join(results))
        file = service.results(id) / results[name]
        try:
            # Opened here: the job may be deleted while it is sent.
            stream = file.open("rb")
        except FileNotFoundError:
            raise _gone() from None
        headers = {
            "Content-Length": str(file.stat().st_size),
            "Content-Disposition": f'attachment; filename="{file.name}"',
        }
        kind = MEDIA_TYPES.get(file.suffix, "application/octet-stream")
        return StreamingResponse(_blocks(stream), media_type=kind, headers=headers)

    @app.get(
        "/jobs/{id}/slices/{number}",
        response_class=Response,
        responses=errors(404, 409, 422) | {200: {"content": {"image/png": {}}}},
    )
    def picture(
        id: str,
        number: int,
        labels: bool = True,
        opacity: Annotated[float, Query(ge=0, le=1)] = 0.28,
    ) -> Response:
        """Slice `number` (from 1) as a PNG, with its classes over it unless `labels` is false."""
        service.finished(id)
        try:
            content = slice_png(service.results(id), number - 1, labels=labels, opacity=opacity)
        except IndexError:
            raise RefusedError(404, "drawing a slice", found="no slice of that number") from None
        except (FileNotFoundError, SegweaveError):
            raise _gone() from None
        return Response(content, media_type="image/png")


def _gone() -> RefusedError:
    return RefusedError(404, "reading a result", found="the job was deleted")


def _blocks(stream: BinaryIO) -> Iterator[bytes]:
    with stream:
        while block := stream.read(1 << 18):
            yield block
