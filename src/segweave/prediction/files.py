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
from segweave.prediction.ensemble import Ensemble
from segweave.prediction.overlay import amounts, draw_overlay
from segweave.prediction.predict import CaseMaps, predict_with, ready
from segweave.prediction.predictor import Predictor
from segweave.storage import atomic_write, read_json, write_json

SUMMARY = "predictions.json"
OVERLAYS = "overlays"
PROBABILITIES = "probabilities"
FORMAT = 1

Progress = Callable[[float, int, Path | None], None]
"""Called with the number of files done (a file in the making counts as a fraction), the number of
all, and the file in the making (None at the end)."""


@dataclass(frozen=True)
class PredictedFile:
    """One file that was predicted: `size` is (slices, height, width), `classes` gives for each
    class its pixels (voxels) and, for volumes of known spacing, its ml.
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
    """What became of the files; `summary` is the path of predictions.json."""

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

    @property
    def targets(self) -> tuple[Path, ...]:
        return tuple(t for t in (self.labels, self.overlay, self.probabilities) if t is not None)


def predict_files(
    predictor: Predictor | Ensemble,
    inputs: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    overlays: bool = True,
    probabilities: bool = False,
    force: bool = False,
    geometry: Literal["check", "pixdim", "affine"] = "check",
    progress: Progress | None = None,
) -> PredictionReport:
    """Predict image files and folders of them (with their subfolders) into the folder `out`.

    Each label map keeps its image's name and place in the folder: NIfTI its format and header,
    pictures become .png, arrays .npz. `overlays` draws out/overlays/NAME.png, `probabilities`
    writes out/probabilities/NAME.npz (float32, slices × classes × height × width; the only case in
    which those of a whole volume are held). out/predictions.json lists files, sizes, seconds and
    the amount of each class. `geometry` decides for NIfTI headers that contradict themselves.

    A file that fails is told in the report, the others go on. Raises, before anything is written:
    InputError for inputs that aren't there; UsageError where a result exists already (unless
    `force`), two images would get one name, or a result would replace an input.
    """
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise UsageError(
            "predicting", file=folder, expected="a folder for the label maps", found="a file"
        )
    given = [inputs] if isinstance(inputs, (str, Path)) else list(inputs)
    jobs = _plan(given, folder, overlays, probabilities, predictor.target.kind == "overlapping")
    _check_targets(jobs, folder, force)
    earlier = _read_summary(folder / SUMMARY, force)
    files: list[PredictedFile] = []
    failures: list[PredictionFailure] = []
    with ready(predictor) as maps:
        try:
            for number, job in enumerate(jobs):
                _tell(progress, number, len(jobs), job.file)
                try:
                    files.append(
                        _predict_one(maps, predictor, job, geometry, number, len(jobs), progress)
                    )
                except SegweaveError as error:
                    failures.append(PredictionFailure(job.file, error))
        finally:
            # Also after Ctrl-C: what was written is listed.
            if files or failures:
                _write_summary(folder, predictor, files, failures, earlier)
    _tell(progress, len(jobs), len(jobs), None)
    return PredictionReport(folder, folder / SUMMARY, tuple(files), tuple(failures))


def _plan(
    given: Sequence[str | Path],
    folder: Path,
    overlays: bool,
    probabilities: bool,
    overlapping: bool,
) -> list[_Job]:
    """What is read and written, in order. A folder's subfolders are kept."""
    jobs: list[_Job] = []
    for path in map(Path, given):
        for file in find_images(path):
            place = file.parent.relative_to(path) if path.is_dir() else Path()
            name = case_name(file)
            jobs.append(
                _Job(
                    file,
                    folder / place / label_name(file, overlapping=overlapping),
                    folder / OVERLAYS / place / f"{name}.png" if overlays else None,
                    folder / PROBABILITIES / place / f"{name}.npz" if probabilities else None,
                )
            )
    return jobs


def _check_targets(jobs: Sequence[_Job], folder: Path, force: bool) -> None:
    doing = "predicting files"
    read = {job.file.resolve() for job in jobs}
    written: dict[Path, Path] = {}
    existing: list[Path] = []
    for job in jobs:
        for target in job.targets:
            resolved = target.resolve()
            if resolved in read:
                raise UsageError(
                    doing,
                    file=job.file,
                    expected="results beside their images, not in their place",
                    found=f"{target}, which is an input",
                    remedy="choose another output folder",
                )
            if resolved in written:
                raise UsageError(
                    doing,
                    file=job.file,
                    expected="a result of its own for each image",
                    found=f"{target} for {written[resolved]} too",
                    remedy="predict them into separate folders",
                )
            written[resolved] = job.file
            if target.exists():
                existing.append(target)
    if existing and not force:
        more = f" and {len(existing) - 1} more" if len(existing) > 1 else ""
        raise UsageError(
            doing,
            file=folder,
            expected="a folder without results of these images",
            found=f"{existing[0]}{more}",
            remedy="choose another folder, or replace them with force (--force)",
        )


def _predict_one(
    maps: CaseMaps,
    predictor: Predictor | Ensemble,
    job: _Job,
    geometry: Literal["check", "pixdim", "affine"],
    number: int,
    count: int,
    progress: Progress | None,
) -> PredictedFile:
    start = time.perf_counter()
    case = read_case(job.file, geometry=geometry, with_label=False)
    prediction = predict_with(
        maps,
        predictor.target,
        case,
        probabilities=job.probabilities is not None,
        slice_done=lambda done, all_: _tell(progress, number + done / (all_ + 1), count, job.file),
    )
    if job.probabilities is not None and prediction.probabilities is not None:
        with atomic_write(job.probabilities) as temporary, temporary.open("wb") as stream:
            np.savez_compressed(stream, probabilities=prediction.probabilities)
    if job.overlay is not None:
        sheet = draw_overlay(case, prediction.labels, predictor.target)
        with atomic_write(job.overlay) as temporary:
            sheet.save(temporary, format="PNG")
    # Last, so that a label map stands for a file that is done.
    write_label(prediction.labels, case, job.labels, target=predictor.target)
    return PredictedFile(
        file=job.file,
        case=case.id,
        labels=job.labels,
        overlay=job.overlay,
        size=(case.slices, *case.size),
        spacing=case.spacing,
        seconds=time.perf_counter() - start,
        classes=amounts(case, prediction.labels, predictor.target),
    )


def _tell(progress: Progress | None, done: float, count: int, file: Path | None) -> None:
    if progress is not None:
        progress(done, count, file)


def _read_summary(file: Path, force: bool) -> list[dict[str, Any]]:
    """The cases that an earlier call into the same folder listed."""
    if not file.exists():
        return []
    doing, expected = "predicting files", "a summary of predictions that can be added to"
    remedy = "choose another folder, or replace it with force (--force)"
    try:
        content = read_json(file, doing, formats=(FORMAT,), expected=expected, remedy=remedy)
        cases = content.get("cases")
        if not isinstance(cases, list) or not all("labels" in case for case in cases):
            raise InputError(
                doing, file=file, expected=expected, found="no list of cases", remedy=remedy
            )
    except InputError:
        if force:
            return []
        raise
    return cases


def _write_summary(
    folder: Path,
    predictor: Predictor | Ensemble,
    files: Sequence[PredictedFile],
    failures: Sequence[PredictionFailure],
    earlier: Sequence[dict[str, Any]],
) -> None:
    cases = [_as_json(file, folder) for file in files]
    mine = {case["labels"] for case in cases}
    content = {
        "format": FORMAT,
        "segweave": __version__,
        "model": {
            key: predictor.card[key]
            for key in ("title", "arm", "weights_sha256", "members", "flips", "tiles")
            if key in predictor.card
        },
        "target": predictor.target.model_dump(mode="json"),
        "cases": [case for case in earlier if case["labels"] not in mine] + cases,
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
