"""Reads the form of `POST /jobs`: files, and the fields that say what is wanted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import IO, Any, cast, get_args

from fastapi import Request
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from segweave.errors import SegweaveError, nearest
from segweave.formats import Geometry, label_formats
from segweave.prediction.uncertainty import Uncertainty
from segweave.serve.limits import Limits, RefusedError
from segweave.serve.models import Model
from segweave.serve.service import Options
from segweave.serve.uploads import too_large, too_many_files

_DOING = "receiving an image"
FIELDS = ("files", "model", "denoise", "geometry", "format", "probabilities", "uncertainty")
_YES, _NO = ("true", "1", "yes", "on"), ("false", "0", "no", "off", "")


def body_schema(models: Mapping[str, Model]) -> dict[str, Any]:
    """The form of `POST /jobs` for OpenAPI."""
    file = {"type": "string", "format": "binary"}
    properties = {
        "files": {
            "type": "array",
            "items": file,
            "minItems": 1,
            "description": "One image (NIfTI, MHA, NRRD, PNG, JPEG, TIFF, BMP, HDF5, npz, npy, "
            "DICOM), a zip of a DICOM series, or its slices as several files. Of a file's name "
            "only the ending counts.",
        },
        "model": {
            "type": "string",
            "enum": [name for name, model in models.items() if model.segments],
            "description": "The name of the model; not needed where there is only one.",
        },
        "denoise": {
            "type": "string",
            "enum": ["", *(name for name, model in models.items() if not model.segments)],
            "default": "",
            "description": "The name of a model that removes the noise of the image first; empty "
            "for none.",
        },
        "geometry": {
            "type": "string",
            "enum": list(get_args(Geometry)),
            "default": "check",
            "description": "What decides where a NIfTI header contradicts itself.",
        },
        "format": {
            "type": "string",
            "enum": list(label_formats()),
            "description": "The format of the label map; by default what suits the image.",
        },
        "probabilities": {
            "type": "boolean",
            "default": False,
            "description": "Whether the probabilities of each class are wanted too.",
        },
        "uncertainty": {
            "type": "string",
            "enum": ["entropy"],
            "description": "The map of uncertainty that is wanted too: the result `uncertainty`, "
            "an npz with the array `uncertainty` from 0 to 1.",
        },
    }
    schema = {"type": "object", "required": ["files"], "properties": properties}
    return {"required": True, "content": {"multipart/form-data": {"schema": schema}}}


@asynccontextmanager
async def received(request: Request, limits: Limits) -> AsyncIterator[FormData]:
    """The form of a request, whose files are in temporary files that have no name.

    Raises RefusedError: 400 for a damaged form, 408 where it takes too long, 413 where it is too
    large, 415 where it is not a form.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        raise RefusedError(
            415,
            _DOING,
            expected="a form (multipart/form-data) with the field `files`",
            found="another content type",
        )
    length = request.headers.get("content-length", "")
    if length.isdecimal() and (len(length) > 18 or int(length) > 2 * limits.bytes + (1 << 22)):
        raise too_large(limits)
    form = request.form(max_files=limits.files, max_fields=len(FIELDS))
    try:
        async with asyncio.timeout(limits.upload_seconds):
            data = await form
    except TimeoutError:
        raise RefusedError(
            408, _DOING, expected=f"an upload of at most {limits.upload_seconds:g} seconds"
        ) from None
    except (SegweaveError, OSError, ClientDisconnect):
        raise
    except HTTPException as error:
        if str(error.detail).startswith("Too many files"):
            raise too_many_files(limits) from None
        raise _damaged() from None
    except Exception:
        # The parser has several errors, and a damaged form may meet any.
        raise _damaged() from None
    try:
        yield data
    finally:
        await data.close()


def _damaged() -> RefusedError:
    return RefusedError(
        400, _DOING, expected="a whole form of the fields " + ", ".join(FIELDS), found="another one"
    )


def files_of(form: FormData) -> list[tuple[str, IO[bytes]]]:
    """The name that the client gave and the content of each file."""
    return [
        (part.filename or "", cast(IO[bytes], part.file))
        for _, part in form.multi_items()
        if isinstance(part, UploadFile)
    ]


def options_of(form: FormData, models: Mapping[str, Model]) -> Options:
    """What the fields of a form ask for. Raises RefusedError (422) for an unknown field or value;
    the message does not repeat it.
    """
    fields = {name: value for name, value in form.multi_items() if isinstance(value, str)}
    for name in fields:
        if name not in FIELDS or name == "files":
            raise _wrong("the fields " + ", ".join(FIELDS), "another field")
    offered = [name for name, one in models.items() if one.segments]
    model = fields.get("model") or (offered[0] if len(offered) == 1 else "")
    if model not in offered:
        raise _wrong(
            "the name of a model", "another one" if model else "none", nearest("", offered)
        )
    denoise = fields.get("denoise", "")
    denoisers = [name for name in models if name not in offered]
    if denoise and denoise not in denoisers:
        raise _wrong(
            "denoise: the name of a model that predicts an image",
            "another value",
            nearest("", denoisers) if denoisers else "the service has none",
        )
    geometry, format = fields.get("geometry", "check"), fields.get("format") or None
    if geometry not in get_args(Geometry):
        raise _wrong("geometry: " + ", ".join(get_args(Geometry)), "another value")
    if format is not None and format not in label_formats():
        raise _wrong("format: " + ", ".join(label_formats()), "another value")
    wanted = fields.get("probabilities", "").strip().lower()
    if wanted not in _YES + _NO:
        raise _wrong("probabilities: true or false", "another value")
    uncertainty = fields.get("uncertainty") or None
    if uncertainty not in (None, "entropy"):
        raise _wrong(
            "uncertainty: entropy, as a service's models are not averaged", "another value"
        )
    kind: Uncertainty | None = None if uncertainty is None else "entropy"
    return Options(model, cast(Geometry, geometry), format, wanted in _YES, kind, denoise)


def _wrong(expected: str, found: str, remedy: str | None = None) -> RefusedError:
    return RefusedError(422, "reading the fields", expected=expected, found=found, remedy=remedy)
