"""Predicts files and folders: label maps, overlays and a summary, nothing ever half written."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from segweave import __version__
from segweave.errors import InputError, SegweaveError, UsageError
from segweave.formats import (
    case_name,
    find_images,
    label_name,
    read_case,
    write_label,
)
from segweave.prediction.overlay import amounts, draw_overlay
from segweave.prediction.predictor import Ensemble, Predictor
from segweave.prediction.session import Session
from segweave.runtime.progress import Progress
from segweave.storage import atomic_write, read_json, write_json

SUMMARY = "predictions.json"
OVERLAYS = "overlays"
PROBABILITIES = "probabilities"
FORMAT = 1
_DOING = "predicting files"


@dataclass(frozen=True)
class PredictedFile:
    """One file that was predicted.

    Attributes:
        file: the image.
        case: its case's id.
        labels: the label map that was written.
        overlay: the picture of image and labels, None where none was asked for.
        size: (slices, height, width).
        spacing: mm (slice, row, column), None where unknown.
        seconds: how long it took.
        classes: pixels (voxels) of each class and, for volumes of known spacing, its ml.
    """

    file: Path
    case: str
    labels: Path
    overlay: Path | None
    size: tuple[int, int, int]
    spacing: tuple[float, float, float] | None
    seconds: float
    classes: dict[str, tuple[int, float | None]]


@dataclass(frozen=True)
class PredictionFailure:
    """A file that could not be predicted, and why."""

    file: Path
    error: SegweaveError


@dataclass(frozen=True)
class PredictionReport:
    """What `predict_files` wrote into `folder`; `summary` is the path of predictions.json."""

    folder: Path
    summary: Path
    files: tuple[PredictedFile, ...]
    failures: tuple[PredictionFailure, ...]


@dataclass(frozen=True)
class _Job:
    file: Path
    labels: Path
    overlay: Path | None
    probabilities: Path | None
    format: str | None

    @property
    def targets(self) -> tuple[Path, ...]:
        return tuple(t for t in (self.labels, self.overlay, self.probabilities) if t is not None)


def predict_files(
    predictor: Predictor | Ensemble | Session,
    inputs: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    overlays: bool = True,
    probabilities: bool = False,
    format: str | None = None,
    force: bool = False,
    geometry: Literal["check", "pixdim", "affine"] = "check",
    progress: Progress | None = None,
) -> PredictionReport:
    """Predict image files and folders of them (with their subfolders) into the folder `out`.

    Args:
        predictor: what predicts; a Session is used as it is.
        inputs: image files and folders.
        out: the folder for the results. Each label map keeps the name and the subfolder of its
            image.
        overlays: also draw out/overlays/NAME.png.
        probabilities: also write out/probabilities/NAME.npz (float32, slices × classes × height ×
            width; the only case in which the probabilities of a whole volume are in memory).
        format: the format of the label maps, one of `segweave.formats.label_formats()`; if None,
            the one that suits each image: NIfTI keeps format and header, pictures become .png,
            arrays .npz.
        force: replace results that exist.
        geometry: what is right where a NIfTI header contradicts itself.
        progress: called with the number of files done (a file in progress counts as a fraction),
            the number of all files, and the name of the file in progress.

    out/predictions.json lists files, sizes, seconds and the amount of each class. A file that fails
    is listed in the report, and the others continue. Raises, before anything is written: InputError
    for inputs that do not exist; UsageError where a result exists already (unless `force`), two
    images would get one name, or a result would replace an input.
    """
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise UsageError(
            "predicting", file=folder, expected="a folder for the label maps", found="a file"
        )
    given = [inputs] if isinstance(inputs, (str, Path)) else list(inputs)
    overlapping = predictor.target.kind == "overlapping"
    jobs = _plan(given, folder, overlays, probabilities, overlapping, format)
    _check_targets(jobs, folder, force)
    earlier = _read_summary(folder / SUMMARY, force)
    session = predictor if isinstance(predictor, Session) else predictor.session()
    files: list[PredictedFile] = []
    failures: list[PredictionFailure] = []

    def report(done: float, name: str) -> None:
        if progress is not None:
            progress(done, len(jobs), name)

    try:
        for number, job in enumerate(jobs):
            report(number, job.file.name)
            try:
                files.append(_predict_one(session, job, geometry, number, report))
            except SegweaveError as error:
                failures.append(PredictionFailure(job.file, error))
    finally:
        # Also after Ctrl-C: what was written is listed.
        if files or failures:
            _write_summary(folder, session, files, failures, earlier)
    report(len(jobs), "")
    return PredictionReport(folder, folder / SUMMARY, tuple(files), tuple(failures))


def _plan(
    given: Sequence[str | Path],
    folder: Path,
    overlays: bool,
    probabilities: bool,
    overlapping: bool,
    format: str | None,
) -> list[_Job]:
    """Inputs and outputs of every file, in order. The subfolders of a folder are kept."""
    jobs: list[_Job] = []
    for path in map(Path, given):
        for file in find_images(path):
            subfolder = file.parent.relative_to(path) if path.is_dir() else Path()
            name = case_name(file)
            jobs.append(
                _Job(
                    file,
                    folder / subfolder / label_name(file, overlapping=overlapping, format=format),
                    folder / OVERLAYS / subfolder / f"{name}.png" if overlays else None,
                    folder / PROBABILITIES / subfolder / f"{name}.npz" if probabilities else None,
                    format,
                )
            )
    return jobs


def _check_targets(jobs: Sequence[_Job], folder: Path, force: bool) -> None:
    read = {job.file.resolve() for job in jobs}
    written: dict[Path, Path] = {}
    existing: list[Path] = []
    for job in jobs:
        for target in job.targets:
            resolved = target.resolve()
            if resolved in read:
                raise UsageError(
                    _DOING,
                    file=job.file,
                    expected="an output folder other than that of the images",
                    found=f"{target}, which is an input",
                    remedy="choose another output folder",
                )
            if resolved in written:
                raise UsageError(
                    _DOING,
                    file=job.file,
                    expected="one result per image",
                    found=f"{target}, which is also the result of {written[resolved]}",
                    remedy="predict them into separate folders",
                )
            written[resolved] = job.file
            if target.exists():
                existing.append(target)
    if existing and not force:
        more = f" and {len(existing) - 1} more" if len(existing) > 1 else ""
        raise UsageError(
            _DOING,
            file=folder,
            expected="a folder without results of these images",
            found=f"{existing[0]}{more}",
            remedy="choose another folder, or replace them with force (--force)",
        )


def _predict_one(
    session: Session,
    job: _Job,
    geometry: Literal["check", "pixdim", "affine"],
    number: int,
    report: Callable[[float, str], None],
) -> PredictedFile:
    start = time.perf_counter()
    case = read_case(job.file, geometry=geometry, with_label=False)
    if job.format is not None:
        # Some formats hold one slice; the number is known only now.
        overlapping = session.target.kind == "overlapping"
        label_name(job.file, overlapping=overlapping, slices=case.slices, format=job.format)
    prediction = session.predict(
        case,
        probabilities=job.probabilities is not None,
        progress=lambda done, total, _: report(number + done / (total + 1), job.file.name),
    )
    if job.probabilities is not None and prediction.probabilities is not None:
        with atomic_write(job.probabilities) as temporary, temporary.open("wb") as stream:
            np.savez_compressed(stream, probabilities=prediction.probabilities)
    if job.overlay is not None:
        sheet = draw_overlay(case, prediction.labels, session.target)
        with atomic_write(job.overlay) as temporary:
            sheet.save(temporary, format="PNG")
    # Last, so that a label map means that the file is done.
    write_label(prediction.labels, case, job.labels, format=job.format, target=session.target)
    return PredictedFile(
        file=job.file,
        case=case.id,
        labels=job.labels,
        overlay=job.overlay,
        size=(case.slices, *case.size),
        spacing=case.spacing,
        seconds=time.perf_counter() - start,
        classes=amounts(case, prediction.labels, session.target),
    )


def _read_summary(file: Path, force: bool) -> list[dict[str, Any]]:
    """The cases that an earlier call into the same folder listed."""
    if not file.exists():
        return []
    expected = "a summary of predictions that can be added to"
    remedy = "choose another folder, or replace it with force (--force)"
    try:
        content = read_json(file, _DOING, formats=(FORMAT,), expected=expected, remedy=remedy)
        cases = content.get("cases")
        if not isinstance(cases, list) or not all("labels" in case for case in cases):
            raise InputError(
                _DOING, file=file, expected=expected, found="no list of cases", remedy=remedy
            )
    except InputError:
        if force:
            return []
        raise
    return cases


def _write_summary(
    folder: Path,
    session: Session,
    files: Sequence[PredictedFile],
    failures: Sequence[PredictionFailure],
    earlier: Sequence[dict[str, Any]],
) -> None:
    cases = [_as_json(file, folder) for file in files]
    written = {case["labels"] for case in cases}
    content = {
        "format": FORMAT,
        "segweave": __version__,
        "model": {
            key: session.card[key]
            for key in ("title", "arm", "weights_sha256", "members", "flips", "tiles")
            if key in session.card
        },
        "target": session.target.model_dump(mode="json"),
        "cases": [case for case in earlier if case["labels"] not in written] + cases,
        "failures": [
            {"file": str(failure.file), "message": str(failure.error)} for failure in failures
        ],
    }
    write_json(folder / SUMMARY, content)


def _as_json(file: PredictedFile, folder: Path) -> dict[str, Any]:
    return {
        "file": str(file.file),
        "case": file.case,
        "labels": file.labels.relative_to(folder).as_posix(),
        "overlay": None if file.overlay is None else file.overlay.relative_to(folder).as_posix(),
        "size": list(file.size),
        "spacing_mm": None if file.spacing is None else [float(step) for step in file.spacing],
        "seconds": round(file.seconds, 3),
        "classes": {
            name: {"pixels": count} | ({} if volume is None else {"ml": round(volume, 4)})
            for name, (count, volume) in file.classes.items()
        },
    }
