"""Routes by which the page corrects a mask, measures and downloads it, adds it to a data set, and
segments an image again with another model.
"""

from __future__ import annotations

import asyncio
import tempfile
import threading
from concurrent.futures import Executor
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import FastAPI, Query, Request, Response
from numpy.typing import NDArray
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData

from segweave.data.case import Case
from segweave.data.specs import TargetSpec
from segweave.formats import label_name, write_label
from segweave.formats.dicom_source import Origin
from segweave.prediction import measure
from segweave.prediction.measurements import as_csv
from segweave.serve.answers import JobAnswer, body, errors, job_answer
from segweave.serve.corrections import (
    corrected_labels,
    corrected_slices,
    drop_corrections,
    write_correction,
)
from segweave.serve.forms import options_of
from segweave.serve.limits import RefusedError
from segweave.serve.results import MEDIA_TYPES
from segweave.serve.service import Service
from segweave.serve.slices import label_slice, slices_of
from segweave.serve.uploads import opened
from segweave.serve.views import slices_there

_BYTES = body("application/octet-stream")
_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


class CorrectedAnswer(BaseModel):
    """The slices (from 1) that differ from those of the network."""

    corrected: list[int]


class CollectedAnswer(BaseModel):
    """A case of the data set: its name, whether it replaced an earlier mask of the same image, how
    many cases there are, and the command that makes a store of them.
    """

    case: str
    replaced: bool
    cases: int
    command: str


def add_editing(app: FastAPI, service: Service, checking: Executor) -> None:
    """Add the routes. `checking` is what reads uploads, one at a time."""
    # One image is read again at a time, so that memory does not grow with the number of clients.
    reading = threading.Lock()

    def corrected(id: str) -> tuple[Case, NDArray[np.uint8]]:
        job = service.finished(id)
        with slices_there("reading a corrected mask"):
            return service.case_of(job), corrected_labels(service.results(id).parent)

    @app.put(
        "/jobs/{id}/labels/{number}",
        responses=errors(404, 408, 409, 413, 422),
        openapi_extra=_BODY,
    )
    async def correct(id: str, number: int, request: Request) -> CorrectedAnswer:
        """Correct slice `number` (from 1): bytes as `GET` returns them."""

        def most() -> int:
            service.finished(id)
            with slices_there("correcting a slice"):
                return int(label_slice(service.results(id), number - 1).size)

        content = await _body(request, service, await run_in_threadpool(most))

        def write() -> list[int]:
            home = service.results(id).parent
            with slices_there("correcting a slice"):
                write_correction(home, number - 1, content)
            service.remove_rest(id)
            return [one + 1 for one in corrected_slices(home)]

        return CorrectedAnswer(corrected=await run_in_threadpool(write))

    @app.delete("/jobs/{id}/corrections", status_code=204, responses=errors(404, 409))
    def start_again(id: str) -> None:
        """Go back to the labels of the network in all slices."""
        service.finished(id)
        drop_corrections(service.results(id).parent)

    @app.get(
        "/jobs/{id}/corrected", response_class=Response, responses=errors(404, 409, 422) | _BYTES
    )
    def download(id: str) -> Response:
        """The corrected label map in the format and geometry of the image, as `labels` is."""
        job = service.finished(id)
        model = service.models.get(job.model)
        with reading, tempfile.TemporaryDirectory() as folder:
            case, labels = corrected(id)
            overlapping = labels.ndim == 4
            named = label_name(
                service.image_of(job),
                overlapping=overlapping,
                slices=case.slices,
                format=job.options["format"],
            )
            file = Path(folder) / f"corrected{named[named.index('.') :]}"
            write_label(
                labels,
                case,
                file,
                format=job.options["format"],
                target=_target(service, id),
                origin=Origin({} if model is None else model.card),
            )
            content = file.read_bytes()
        kind = MEDIA_TYPES.get(file.suffix, "application/octet-stream")
        disposition = f'attachment; filename="{file.name}"'
        return Response(content, media_type=kind, headers={"Content-Disposition": disposition})

    @app.get(
        "/jobs/{id}/corrected/measurements",
        response_class=Response,
        responses=errors(404, 409, 422) | body("text/csv"),
    )
    def measurements(id: str) -> Response:
        """The table of measurements of the corrected mask."""
        with reading:
            case, labels = corrected(id)
            table = as_csv(measure(case, labels, _target(service, id)))
        return Response(table, media_type=MEDIA_TYPES[".csv"])

    @app.post("/jobs/{id}/collect", responses=errors(404, 409, 422))
    def collect(id: str, group: Annotated[str, Query(max_length=64)] = "") -> CollectedAnswer:
        """Add the image and its corrected mask to the data set of the operator."""
        job = service.finished(id)
        if service.collection is None:
            raise RefusedError(
                409,
                "adding to the data set",
                expected="a service that was given a folder",
                found="none",
                remedy="start it with `segweave serve ... --collect FOLDER`",
            )
        with reading, slices_there("adding to the data set"):
            case, labels = corrected(id)
            added = service.collection.add(
                service.image_of(job), case, labels, _target(service, id), group
            )
        return CollectedAnswer(**vars(added))

    @app.post("/jobs/{id}/again", status_code=202, responses=errors(404, 422, 429, 503, 507))
    def again(
        id: str,
        model: Annotated[str, Query(max_length=500)],
        response: Response,
        denoise: Annotated[str | None, Query(max_length=500)] = None,
    ) -> JobAnswer:
        """Segment the image of a job with another model, as a new job; `denoise` names the model
        that removes the noise first, "" none; where it is not given, what the job has.
        """
        job = service.get(id)
        # The rules of the form hold here too.
        fields = [(name, _field(value)) for name, value in job.options.items()]
        fields += [] if denoise is None else [("denoise", denoise)]
        options = options_of(FormData([("model", model), *fields]), service.models)
        with service.place():
            try:
                parts = opened(service.image_of(job))
                new = checking.submit(service.accept, parts, options).result()
            except FileNotFoundError:
                raise RefusedError(404, "segmenting again", found="the job was deleted") from None
        response.headers["Location"] = f"/jobs/{new.id}"
        return job_answer(service, new)


def _field(value: Any) -> str:
    """An option of a job as the field of a form."""
    return str(value).lower() if isinstance(value, bool) else value or ""


def _target(service: Service, id: str) -> TargetSpec:
    return TargetSpec.model_validate(slices_of(service.results(id))["target"])


async def _body(request: Request, service: Service, most: int) -> bytes:
    """The body of a request. Raises RefusedError: 413 for more than `most` bytes, 408 where it
    takes too long.
    """
    doing, content = "correcting a slice", bytearray()
    try:
        async with asyncio.timeout(service.limits.upload_seconds):
            async for block in request.stream():
                content += block
                if len(content) > most:
                    raise RefusedError(413, doing, expected=f"{most} bytes", found="more")
    except TimeoutError:
        raise RefusedError(408, doing, expected="a body that arrives in time") from None
    return bytes(content)
