"""Which files a prediction reads and writes, checked before any network is loaded; and what it has
done so far: one entry per file, for the summary, and for going on after an interruption.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segweave.errors import UsageError
from segweave.formats import case_name, find_images, label_name, suffix_of
from segweave.formats.table import PICTURES
from segweave.runs.run_folder import CARD, model_folder
from segweave.storage import read_json, write_text

OVERLAYS = "overlays"
PROBABILITIES = "probabilities"
UNCERTAINTY = "uncertainty"
PROGRESS = ".predicting.jsonl"
DOING = "predicting files"


@dataclass(frozen=True)
class Job:
    """One image and what is written for it."""

    file: Path
    labels: Path
    overlay: Path | None
    probabilities: Path | None
    format: str | None
    uncertainty: Path | None = None
    report: Path | None = None

    @property
    def targets(self) -> tuple[Path, ...]:
        """The files that are written."""
        targets = (self.labels, self.overlay, self.probabilities, self.uncertainty, self.report)
        return tuple(target for target in targets if target is not None)


def check_prediction(
    models: Sequence[Path],
    inputs: Sequence[Path],
    folder: Path,
    *,
    checkpoint: str | None = None,
    overlays: bool = True,
    probabilities: bool = False,
    uncertainty: bool = False,
    format: str | None = None,
    report: bool = False,
    force: bool = False,
    denoise: Path | None = None,
) -> None:
    """Raise what `load` and `predict_files` would raise for models, inputs and results that are not
    there or in the way, without loading a network. The arguments are theirs.
    """
    kind = "exclusive"
    for path in models:
        kind = _kind_of(path, checkpoint) or kind
    if denoise is not None:
        check_denoiser(denoise)
    check_folder(folder)
    jobs = plan_files(
        inputs,
        folder,
        overlays,
        probabilities,
        kind,
        format,
        uncertainty=uncertainty,
        report=report,
    )
    check_targets(jobs)
    if not force and not (folder / PROGRESS).exists():
        check_free(jobs, folder)


def _kind_of(model: Path, checkpoint: str | None) -> str | None:
    """The kind of target that a model's card states; None where there is no card yet."""
    card = model_folder(model, checkpoint) / CARD
    if not card.is_file():
        return None
    target = read_json(card, DOING, expected="a model card").get("target", {})
    return str(target.get("kind")) if isinstance(target, dict) else None


def check_denoiser(model: Path, checkpoint: str | None = None) -> None:
    """Raise UsageError where a model's card states that it predicts no image."""
    kind = _kind_of(model, checkpoint)
    if kind not in ("image", None):
        raise UsageError(
            "denoising",
            file=model,
            expected="a model that predicts an image, trained on a store of segweave prepare "
            "low-dose",
            found=f"one that segments (target of kind {kind})",
        )


def check_folder(folder: Path) -> None:
    """Raise UsageError where the output folder is a file."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(
            "predicting", file=folder, expected="a folder for the label maps", found="a file"
        )


def plan_files(
    given: Sequence[str | Path],
    folder: Path,
    overlays: bool,
    probabilities: bool,
    kind: str,
    format: str | None,
    uncertainty: bool = False,
    report: bool = False,
) -> list[Job]:
    """Inputs and outputs of every file, in order, for a target of this kind. The subfolders of a
    folder are kept.
    """
    overlapping, real = kind == "overlapping", kind == "image"
    if real and (probabilities or uncertainty):
        raise UsageError(
            DOING,
            expected="no probabilities and no uncertainty of a network that predicts an image",
            found="probabilities" if probabilities else "uncertainty",
        )
    jobs: list[Job] = []
    for path in map(Path, given):
        for file in find_images(path):
            # A folder may itself be the image, a DICOM series.
            inside = path.is_dir() and file != path
            subfolder = file.parent.relative_to(path) if inside else Path()
            name = case_name(file)
            # Viewers open the probabilities of a NIfTI image in its geometry.
            in_space = ".nii" in label_name(file, overlapping=overlapping).lower()
            maps = f"{name}.nii.gz" if in_space else f"{name}.npz"
            grey = f"{name}.png" if suffix_of(file) in PICTURES else maps
            jobs.append(
                Job(
                    file,
                    folder
                    / subfolder
                    / label_name(file, overlapping=overlapping, format=format, real=real),
                    folder / OVERLAYS / subfolder / f"{name}.png" if overlays else None,
                    folder / PROBABILITIES / subfolder / maps if probabilities else None,
                    format,
                    folder / UNCERTAINTY / subfolder / grey if uncertainty else None,
                    folder / subfolder / f"{name}.sr.dcm" if report else None,
                )
            )
    return jobs


def check_targets(jobs: Sequence[Job]) -> None:
    """Raise UsageError where a result would replace an input or another result."""
    read = {job.file.resolve() for job in jobs}
    written: dict[Path, Path] = {}
    for job in jobs:
        for target in job.targets:
            resolved = target.resolve()
            if resolved in read:
                raise UsageError(
                    DOING,
                    file=job.file,
                    expected="an output folder other than that of the images",
                    found=f"{target}, which is an input",
                    remedy="choose another output folder",
                )
            if resolved in written:
                raise UsageError(
                    DOING,
                    file=job.file,
                    expected="one result per image",
                    found=f"{target}, which is also the result of {written[resolved]}",
                    remedy="predict them into separate folders",
                )
            written[resolved] = job.file


def check_free(jobs: Sequence[Job], folder: Path) -> None:
    """Raise UsageError where a result exists already."""
    existing = [target for job in jobs for target in job.targets if target.exists()]
    if existing:
        more = f" and {len(existing) - 1} more" if len(existing) > 1 else ""
        raise UsageError(
            DOING,
            file=folder,
            expected="a folder without results of these images",
            found=f"{existing[0]}{more}",
            remedy="choose another folder, or replace them with force (--force)",
        )


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
        note: what is unusual beside the label map: an overlay that could not be drawn, an EXIF
            orientation that is not applied.
        boxes: slice, x0, y0, x1 and y1 of each box that it was segmented from.
    """

    file: Path
    case: str
    labels: Path
    overlay: Path | None
    size: tuple[int, int, int]
    spacing: tuple[float, float, float] | None
    seconds: float
    classes: dict[str, tuple[int, float | None]]
    note: str = ""
    boxes: tuple[tuple[float, ...], ...] = ()


class ProgressFile:
    """A hidden file in the output folder: one line with the settings, then one per finished image.

    A line that a killed process wrote in half is left out. Only who holds the folder's lock may use
    it.

    Args:
        folder: the output folder.
        settings: what the label maps depend on, as JSON takes it.
        restart: whether to start anew whatever is there.

    Attributes:
        resumes: whether the folder holds an interrupted prediction with the same settings.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], *, restart: bool = False) -> None:
        self.path = folder / PROGRESS
        self._folder = folder
        self._entries: dict[str, dict[str, Any]] = {}
        lines = [] if restart else self._lines()
        self.resumes = bool(lines) and lines[0] == json.loads(json.dumps(settings))
        if self.resumes:
            self._entries = {line["file"]: line for line in lines[1:] if "file" in line}
        self._settings = settings

    def start(self) -> None:
        """Write the file, or write it anew without the half line of a killed process."""
        whole = [self._settings, *self._entries.values()]
        write_text(self.path, "".join(json.dumps(line) + "\n" for line in whole))

    def entry(self, image: Path, labels: Path) -> dict[str, Any] | None:
        """What was noted of an image, where it is the same file still and its label map is there;
        else None.
        """
        noted = self._entries.get(str(image))
        if noted is None or noted["image"] != _state(image) or not labels.is_file():
            return None
        return noted

    def add(self, image: Path, entry: dict[str, Any]) -> None:
        """Note that the label map of an image is there."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**entry, "image": _state(image)}) + "\n")

    def remove(self) -> None:
        """Remove the file, when every image was tried."""
        self.path.unlink(missing_ok=True)

    def _lines(self) -> list[dict[str, Any]]:
        lines = []
        with suppress(OSError):
            for line in self.path.read_bytes().splitlines():
                with suppress(ValueError):
                    content = json.loads(line)
                    if isinstance(content, dict):
                        lines.append(content)
        return lines


def _state(image: Path) -> list[int]:
    """Size and time of a file; of a folder (a DICOM series), those of its files together."""
    files = sorted(image.iterdir()) if image.is_dir() else [image]
    states = [file.stat() for file in files]
    return [sum(s.st_size for s in states), max((s.st_mtime_ns for s in states), default=0)]


def as_entry(file: PredictedFile, folder: Path) -> dict[str, Any]:
    """What predictions.json in `folder` states of a file."""
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
        **({"note": file.note} if file.note else {}),
        **({"boxes": [list(box) for box in file.boxes]} if file.boxes else {}),
    }


def from_entry(entry: dict[str, Any], folder: Path) -> PredictedFile:
    """The file that an entry of predictions.json in `folder` lists."""
    spacing = entry["spacing_mm"]
    return PredictedFile(
        file=Path(entry["file"]),
        case=entry["case"],
        labels=folder / entry["labels"],
        overlay=None if entry["overlay"] is None else folder / entry["overlay"],
        size=tuple(entry["size"]),
        spacing=None if spacing is None else tuple(spacing),
        seconds=entry["seconds"],
        classes={
            name: (amount["pixels"], amount.get("ml")) for name, amount in entry["classes"].items()
        },
        note=entry.get("note", ""),
        boxes=tuple(tuple(box) for box in entry.get("boxes", ())),
    )
