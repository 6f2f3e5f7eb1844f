"""Predicts files and folders: label maps, overlays and a summary, nothing ever half written. What
was interrupted goes on where it was.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segweave.data.boxes import Boxes, CaseBoxes, boxes_of
from segweave.data.case import Case
from segweave.data.specs import TargetSpec
from segweave.errors import InputError, SegweaveError, one_line
from segweave.formats import (
    Geometry,
    case_name,
    label_name,
    read_case,
    write_label,
)
from segweave.formats.dicom_source import Origin, SegmentationType
from segweave.formats.nifti import write_nifti
from segweave.formats.pictures import turned_note
from segweave.plugin_errors import plugin_error
from segweave.prediction.box_file import GivenBoxes, boxes_for, check_used
from segweave.prediction.overlay import amounts, draw_overlay
from segweave.prediction.planning import (
    DOING,
    PROBABILITIES,
    UNCERTAINTY,
    Job,
    PredictedFile,
    ProgressFile,
    as_entry,
    check_folder,
    check_free,
    check_targets,
    from_entry,
    plan_files,
)
from segweave.prediction.predictor import Ensemble, Predictor
from segweave.prediction.results import Prediction
from segweave.prediction.summary import SUMMARY, model_of, read_summary, write_summary
from segweave.runtime.progress import Progress
from segweave.storage import (
    atomic_write,
    locked,
    remove_leftovers,
    sha256_of_text,
)

if TYPE_CHECKING:
    from segweave.prediction.uncertainty import Uncertainty

LOCK = ".predicting.lock"


class Predicts(Protocol):
    """What `predict_files` asks: a Session, or a server that has one."""

    @property
    def target(self) -> TargetSpec:
        """What the classes are."""

    @property
    def card(self) -> Mapping[str, Any]:
        """What summaries report about the model."""

    def check_boxes(self, given: object | None) -> None:
        """Raise UsageError where boxes are needed and none are given, or the other way round."""

    def predict(
        self,
        case: Case,
        *,
        boxes: CaseBoxes | None = None,
        probabilities: bool = False,
        uncertainty: Uncertainty | None = None,
        progress: Progress | None = None,
    ) -> Prediction:
        """Segment a case, as `Session.predict` does."""


@dataclass(frozen=True)
class PredictionFailure:
    """A file that could not be predicted, and why."""

    file: Path
    error: SegweaveError


@dataclass(frozen=True)
class PredictionReport:
    """What `predict_files` wrote into `folder`.

    Attributes:
        folder: the folder.
        summary: the path of predictions.json.
        files: the files that were predicted.
        failures: the others.
        resumed: how many of `files` an interrupted call had done before.
    """

    folder: Path
    summary: Path
    files: tuple[PredictedFile, ...]
    failures: tuple[PredictionFailure, ...]
    resumed: int = 0


def predict_files(
    predictor: Predictor | Ensemble | Predicts,
    inputs: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    boxes: GivenBoxes | None = None,
    overlays: bool = True,
    probabilities: bool = False,
    uncertainty: Uncertainty | None = None,
    format: str | None = None,
    segments: SegmentationType = "binary",
    report_dicom: bool = False,
    force: bool = False,
    geometry: Geometry = "check",
    progress: Progress | None = None,
) -> PredictionReport:
    """Predict image files and folders of them (with their subfolders) into the folder `out`.

    Args:
        predictor: what predicts; a Session, or a server (`segweave.serve.RemoteSession`), is used
            as it is.
        inputs: image files and folders.
        out: the folder for the results. Each label map keeps the name and the subfolder of its
            image.
        boxes: for a network that is shown what to segment: as in `segweave.predict`, for all
            images, or by the name of each image (`segweave.prediction.read_boxes` reads a CSV
            file).
        overlays: also draw out/overlays/NAME.png.
        probabilities: also write out/probabilities/NAME.nii.gz of a NIfTI image (float32, in its
            geometry, the classes as fourth axis), NAME.npz of another (float32, slices × classes ×
            height × width). The only case in which those of a whole volume are in memory.
        uncertainty: also write out/uncertainty/NAME.nii.gz of a NIfTI image (float32 from 0 to 1,
            in its geometry), NAME.png of a picture (grey, 255 is 1), NAME.npz of another.
        format: the format of the label maps, one of `segweave.formats.label_formats()`; if None,
            the one that suits each image: NIfTI keeps format and header, pictures become .png,
            arrays .npz.
        segments: how a DICOM-SEG object holds exclusive classes, see
            `segweave.formats.dicom_source.Origin`.
        report_dicom: also write the measurements of DICOM-SEG objects as structured reports,
            NAME.sr.dcm.
        force: replace results that exist.
        geometry: what is right where a NIfTI header contradicts itself.
        progress: called with the number of files done (a file in progress counts as a fraction),
            the number of all files, and the name of the file in progress.

    out/predictions.json lists files, sizes, seconds and the amount of each class. A file that fails
    is listed in the report, whatever the reason, and the others continue. After an interruption (a
    killed process too) the same call goes on with the files that are not done.

    Raises, before anything is written: InputError for inputs that do not exist; UsageError where a
    result exists already (unless `force`), two images would get one name, a result would replace an
    input, boxes are missing or not wanted, or another process is predicting into `out`.
    """
    folder = Path(out)
    check_folder(folder)
    given = [inputs] if isinstance(inputs, (str, Path)) else list(inputs)
    jobs = plan_files(
        given,
        folder,
        overlays,
        probabilities,
        predictor.target.kind,
        format,
        uncertainty=uncertainty is not None,
        report=report_dicom,
    )
    check_targets(jobs)
    session: Predicts = (
        predictor.session() if isinstance(predictor, Predictor | Ensemble) else predictor
    )
    session.check_boxes(boxes)
    origin = Origin(session.card, segments)
    # Imported here and below: few predictions write objects.
    if segments != "binary":
        from segweave.formats.dicom_seg import check_segments

        check_segments(session.target, origin)
    if report_dicom:
        from segweave.prediction.dicom_report import check_report

        check_report(format)
    if boxes is not None:
        check_used(boxes, {name for job in jobs for name in _names(job.file)})
    settings: dict[str, Any] = {
        "inputs": [str(Path(path).absolute()) for path in given],
        "model": model_of(session.card),
        "overlays": overlays,
        "probabilities": probabilities,
        "format": format,
        "geometry": geometry,
    }
    if segments != "binary":
        settings["segments"] = segments
    if report_dicom:
        settings["report_dicom"] = True
    if uncertainty is not None:
        settings["uncertainty"] = uncertainty
    if boxes is not None:
        settings["boxes"] = sha256_of_text(repr(boxes))
    files: list[PredictedFile] = []
    failures: list[PredictionFailure] = []

    def report(done: float, name: str) -> None:
        if progress is not None:
            progress(done, len(jobs), name)

    with locked(folder / LOCK, DOING, remedy="wait for it to end, or choose another folder"):
        remove_leftovers(folder)
        interrupted = ProgressFile(folder, settings, restart=force)
        if not (force or interrupted.resumes):
            check_free(jobs, folder)
        earlier = read_summary(folder / SUMMARY, force or interrupted.resumes)
        interrupted.start()
        resumed = 0
        try:
            for number, job in enumerate(jobs):
                report(number, job.file.name)
                done = interrupted.entry(job.file, job.labels)
                if done is not None:
                    files.append(from_entry(done, folder))
                    resumed += 1
                    continue
                try:
                    files.append(
                        _predict_one(
                            session, job, boxes, uncertainty, geometry, origin, number, report
                        )
                    )
                except Exception as error:
                    # One unusual file never ends the prediction of the others.
                    failures.append(PredictionFailure(job.file, _as_ours(error, job.file)))
                else:
                    interrupted.add(job.file, as_entry(files[-1], folder))
        finally:
            # Also after Ctrl-C: what was written is listed.
            if files or failures:
                write_summary(
                    folder,
                    model_of(session.card),
                    session.target,
                    files,
                    [(failure.file, failure.error) for failure in failures],
                    earlier,
                )
        interrupted.remove()
    report(len(jobs), "")
    return PredictionReport(folder, folder / SUMMARY, tuple(files), tuple(failures), resumed)


def _as_ours(error: Exception, file: Path) -> SegweaveError:
    if isinstance(error, SegweaveError):
        return error
    if isinstance(error, MemoryError):
        return SegweaveError("predicting: not enough memory", file=file)
    from_plugin = plugin_error(error)
    if from_plugin is not None:
        return from_plugin
    lines = str(error).strip().splitlines()
    reason = f"{type(error).__name__}: {lines[0][:300] if lines else 'no message'}"
    ours = SegweaveError(f"predicting: unexpected {reason}", file=file)
    ours.__cause__ = error
    return ours


def _predict_one(
    session: Predicts,
    job: Job,
    given: GivenBoxes | None,
    uncertainty: Uncertainty | None,
    geometry: Geometry,
    origin: Origin,
    number: int,
    report: Callable[[float, str], None],
) -> PredictedFile:
    start = time.perf_counter()
    case = read_case(job.file, geometry=geometry, with_label=False)
    if job.format is not None:
        # Some formats hold one slice; the number is known only now.
        kind = session.target.kind
        label_name(
            job.file,
            overlapping=kind == "overlapping",
            slices=case.slices,
            format=job.format,
            real=kind == "image",
        )
    boxes = None if given is None else boxes_for(given, _names(job.file))
    if given is not None and boxes is None:
        raise InputError(
            "predicting from boxes",
            file=job.file,
            expected=f"a box for {job.file.name}",
            found="none among those that were given",
        )
    shown = None if boxes is None else boxes_of(boxes, case)
    prediction = session.predict(
        case,
        boxes=shown,
        probabilities=job.probabilities is not None,
        uncertainty=uncertainty,
        progress=lambda done, total, _: report(number + done / (total + 1), job.file.name),
    )
    if job.probabilities is not None and prediction.probabilities is not None:
        _write_maps(prediction.probabilities, case, job.probabilities, PROBABILITIES)
    if job.uncertainty is not None and prediction.uncertainty is not None:
        _write_maps(prediction.uncertainty, case, job.uncertainty, UNCERTAINTY)
    failed = ""
    if job.overlay is not None:
        try:
            sheet = draw_overlay(case, prediction.labels, session.target)
            with atomic_write(job.overlay) as temporary:
                sheet.save(temporary, format="PNG")
        except Exception as error:
            # The label map is what was asked for; a picture that fails must not take it away.
            failed = f"no overlay was drawn: {one_line(_as_ours(error, job.file))}"
    # Last, so that a label map means that the file is done; a report refers to it.
    write_label(
        prediction.labels,
        case,
        job.labels,
        format=job.format,
        target=session.target,
        origin=origin,
    )
    if job.report is not None:
        from segweave.prediction.dicom_report import write_dicom_report
        from segweave.prediction.measurements import measure

        measured = measure(case, prediction.labels, session.target)
        write_dicom_report(measured, case, job.labels, job.report, session.target, origin)
    # Only pictures can be shown turned.
    turned = turned_note(job.file) if case.source_grid is None else ""
    return PredictedFile(
        file=job.file,
        case=case.id,
        labels=job.labels,
        overlay=None if failed else job.overlay,
        size=(case.slices, *case.size),
        spacing=case.spacing,
        seconds=time.perf_counter() - start,
        classes=amounts(case, prediction.labels, session.target),
        note="; ".join(filter(None, (failed, turned))),
        boxes=() if shown is None else _as_rows(shown),
    )


def _names(file: Path) -> tuple[str, str]:
    """What an image may be called in a file of boxes."""
    return file.name, case_name(file)


def _as_rows(boxes: Boxes) -> tuple[tuple[float, ...], ...]:
    """(slice, x0, y0, x1, y1) of each slice that has a box."""
    shown = np.flatnonzero(~np.isnan(boxes[:, 0]))
    return tuple((int(index), *map(float, boxes[index])) for index in shown)


def _write_maps(maps: NDArray[np.float32], case: Case, file: Path, name: str) -> None:
    """(slices, [classes,] height, width) in the format of the file's ending; in npz as `name`."""
    if file.name.endswith(".nii.gz"):
        write_nifti(maps, case, file)
        return
    if file.suffix == ".png" and case.slices > 1:
        raise InputError(
            f"writing {name} as a picture",
            file=file,
            expected="one slice",
            found=f"{case.slices}",
            remedy="convert the image to NIfTI",
        )
    with atomic_write(file) as temporary, temporary.open("wb") as stream:
        if file.suffix == ".png":
            grey = np.rint(255 * maps[0]).astype(np.uint8)
            Image.fromarray(grey).save(stream, format="PNG")
        else:
            np.savez_compressed(stream, **{name: maps})  # type: ignore[arg-type]
