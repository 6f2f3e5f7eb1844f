"""What the page draws a result from: `GET` of slices, classes and measurements."""

from __future__ import annotations

import csv
import gzip
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from fastapi import FastAPI, Response
from numpy.typing import NDArray
from pydantic import BaseModel

from segweave.data.specs import TargetSpec, class_colours
from segweave.errors import InputError, SegweaveError
from segweave.prediction.measurements import REMARK
from segweave.serve.answers import body, errors
from segweave.serve.corrections import corrected_labels, corrected_slice, corrected_slices
from segweave.serve.jobs import Job
from segweave.serve.limits import RefusedError
from segweave.serve.service import Service
from segweave.serve.slices import (
    label_slice,
    map_slice,
    maps_of,
    picture_png,
    pictures_of,
    slices_of,
    volume_nifti,
)

_BYTES = body("application/octet-stream")
_PNG = body("image/png")
_VIEWED = 1 << 27  # voxels


class ViewedClass(BaseModel):
    """A class: its id in the label map (its number where classes overlap), name and colour."""

    id: int
    name: str
    colour: str


class ViewAnswer(BaseModel):
    """What a result is drawn from.

    `labels/N` is a byte for each pixel, its class id; where classes overlap, a plane of 0 and 1 for
    each class. `edges` are the letters (R, L, A, P, S, I) of the left, right, upper and lower edge
    of the pictures, null where the image does not say how it lies in the patient. `maps` are heat
    maps, a byte for each pixel, 255 for 1.
    """

    id: str
    model: str
    denoise: str
    slices: int
    size: tuple[int, int]
    steps: tuple[float, float] | None
    edges: tuple[str, str, str, str] | None
    is_volume: bool
    overlapping: bool
    classes: list[ViewedClass]
    pictures: list[str]
    maps: list[str]
    corrected: list[int]
    measurements: list[dict[str, str]]
    remark: str = REMARK


class Agreement(BaseModel):
    """How far two results agree in a class; Dice is null where neither has it."""

    name: str
    dice: float | None
    first: int
    second: int
    both: int


@contextmanager
def slices_there(doing: str) -> Iterator[None]:
    """Turn what is missing of a result into RefusedError (404)."""
    try:
        yield
    except IndexError:
        raise RefusedError(404, doing, found="no slice or map of that number or name") from None
    except (FileNotFoundError, SegweaveError) as error:
        cause = error.__cause__ if isinstance(error, SegweaveError) else error
        missing = isinstance(error, InputError) and error.kind == "missing"
        if not missing and not isinstance(cause, FileNotFoundError):
            raise
        raise RefusedError(404, doing, found="the job was deleted") from None


def add_views(app: FastAPI, service: Service) -> None:
    """Add the routes by which slices are shown."""
    # One volume is packed at a time, so that memory does not grow with the number of clients.
    packing = threading.Lock()

    def folder(id: str) -> Path:
        return service.results(service.finished(id).id)

    @app.get("/jobs/{id}/view", responses=errors(404, 409))
    def view(id: str) -> ViewAnswer:
        """Slices, classes, heat maps and measurements of a result."""
        job = service.finished(id)
        with slices_there("reading the slices of a job"):
            return _view(service.results(id), job)

    @app.get(
        "/jobs/{id}/pictures/{name}/{number}",
        response_class=Response,
        responses=errors(404, 409, 422) | _PNG,
    )
    def picture(id: str, name: str, number: int) -> Response:
        """Slice `number` (from 1) of a picture as a PNG, without labels, pixel by pixel."""
        with slices_there("drawing a slice"):
            return Response(picture_png(folder(id), name, number - 1), media_type="image/png")

    @app.get(
        "/jobs/{id}/labels/{number}",
        response_class=Response,
        responses=errors(404, 409, 422) | _BYTES,
    )
    def labels(id: str, number: int, corrected: bool = True) -> Response:
        """Slice `number` (from 1) of the labels, with corrections unless `corrected` is false."""
        with slices_there("reading the labels of a slice"):
            home = folder(id)
            slice_ = label_slice(home, number - 1)
            return _packed(corrected_slice(home.parent, number - 1) if corrected else slice_)

    @app.get(
        "/jobs/{id}/maps/{name}/{number}",
        response_class=Response,
        responses=errors(404, 409, 422) | _BYTES,
    )
    def heat_map(id: str, name: str, number: int) -> Response:
        """Slice `number` (from 1) of a heat map, a byte for each pixel, 255 for 1."""
        with slices_there("reading a heat map"):
            return _packed(map_slice(folder(id), name, number - 1))

    @app.get(
        "/jobs/{id}/volumes/{name}.nii.gz",
        response_class=Response,
        responses=errors(404, 409, 413, 422) | _BYTES,
    )
    def volume(id: str, name: str) -> Response:
        """The displayed `image` or the `labels` (corrected) as a NIfTI for a 3D viewer."""
        if name not in ("image", "labels"):
            raise RefusedError(404, "reading a volume", expected="image or labels")
        with slices_there("reading a volume"), packing:
            home = folder(id)
            about = slices_of(home)
            if about["slices"] * math.prod(about["size"]) > _VIEWED:
                raise RefusedError(
                    413,
                    "reading a volume",
                    expected=f"at most {_VIEWED:,} voxels for the 3D viewer",
                    found="more",
                    remedy="download the label map and open it in another viewer",
                )
            mask = corrected_labels(home.parent) if name == "labels" else None
            return Response(volume_nifti(home, mask), media_type="application/gzip")

    @app.get("/jobs/{id}/agreement/{other}", responses=errors(404, 409))
    def agreement(id: str, other: str) -> list[Agreement]:
        """Dice of each class between two results of the same image, over all slices."""
        with slices_there("comparing two results"):
            return _agreement(folder(id), folder(other))


def _view(folder: Path, job: Job) -> ViewAnswer:
    about = slices_of(folder)
    target = TargetSpec.model_validate(about["target"])
    colours = class_colours(target)
    with (folder / "measurements.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    return ViewAnswer(
        id=job.id,
        model=job.model,
        denoise=job.options.get("denoise", ""),
        slices=about["slices"],
        size=(about["size"][0], about["size"][1]),
        steps=about["steps"],
        edges=about.get("edges"),
        is_volume=about.get("stack") == "space" and about["slices"] > 1,
        overlapping=target.kind == "overlapping",
        classes=[
            ViewedClass(id=k, name=name, colour=colours[k]) for k, name in target.foreground.items()
        ],
        pictures=pictures_of(folder),
        maps=maps_of(folder),
        corrected=[number + 1 for number in corrected_slices(folder.parent)],
        measurements=rows,
    )


def _packed(values: NDArray[np.uint8]) -> Response:
    """Bytes that a browser unpacks: label maps become a hundredth."""
    content = gzip.compress(values.tobytes(), 1, mtime=0)
    return Response(
        content, media_type="application/octet-stream", headers={"Content-Encoding": "gzip"}
    )


def _agreement(first: Path, second: Path) -> list[Agreement]:
    sizes = [(about["slices"], *about["size"]) for about in map(slices_of, (first, second))]
    classes = _classes(first), _classes(second)
    shared = [name for name in classes[0] if name in classes[1]]
    if sizes[0] != sizes[1] or not shared:
        raise RefusedError(
            409,
            "comparing two results",
            expected="results of the same image with classes in common",
            found="images of other sizes" if sizes[0] != sizes[1] else "no class of both",
        )
    counts = np.zeros((len(shared), 3), np.int64)
    for number in range(sizes[0][0]):
        one, two = label_slice(first, number), label_slice(second, number)
        for row, name in enumerate(shared):
            a, b = _mask(one, classes[0][name]), _mask(two, classes[1][name])
            counts[row] += a.sum(), b.sum(), (a & b).sum()
    return [
        Agreement(name=name, dice=2 * c / (a + b) if a + b else None, first=a, second=b, both=c)
        for name, (a, b, c) in zip(shared, counts.tolist(), strict=True)
    ]


def _classes(folder: Path) -> dict[str, int]:
    target = TargetSpec.model_validate(slices_of(folder)["target"])
    return {name: id for id, name in target.foreground.items()}


def _mask(labels: NDArray[np.uint8], id: int) -> NDArray[np.bool_]:
    """Where a slice has a class; overlapping classes have a plane each."""
    return labels[id] > 0 if labels.ndim == 3 else labels == id
