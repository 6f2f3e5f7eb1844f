"""Which files a prediction reads and writes; checked before any network is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from segweave.errors import UsageError
from segweave.formats import case_name, find_images, label_name
from segweave.prediction.progress_file import NAME as PROGRESS
from segweave.runs.model_folder import model_folder
from segweave.runs.run_folder import CARD
from segweave.storage import read_json

OVERLAYS = "overlays"
PROBABILITIES = "probabilities"
DOING = "predicting files"


@dataclass(frozen=True)
class Job:
    """One image and what is written for it."""

    file: Path
    labels: Path
    overlay: Path | None
    probabilities: Path | None
    format: str | None

    @property
    def targets(self) -> tuple[Path, ...]:
        """The files that are written."""
        return tuple(t for t in (self.labels, self.overlay, self.probabilities) if t is not None)


def check_prediction(
    models: Sequence[Path],
    inputs: Sequence[Path],
    folder: Path,
    *,
    checkpoint: str | None = None,
    overlays: bool = True,
    probabilities: bool = False,
    format: str | None = None,
    force: bool = False,
) -> None:
    """Raise what `load` and `predict_files` would raise for models, inputs and results that are not
    there or in the way, without loading a network. The arguments are theirs.
    """
    kind = "exclusive"
    for path in models:
        card = model_folder(path, checkpoint) / CARD
        if card.is_file():
            target = read_json(card, DOING, expected="a model card").get("target", {})
            kind = str(target.get("kind")) if isinstance(target, dict) else kind
    check_folder(folder)
    jobs = plan_files(inputs, folder, overlays, probabilities, kind, format)
    check_targets(jobs)
    if not force and not (folder / PROGRESS).exists():
        check_free(jobs, folder)


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
) -> list[Job]:
    """Inputs and outputs of every file, in order, for a target of this kind. The subfolders of a
    folder are kept.
    """
    overlapping, real = kind == "overlapping", kind == "image"
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
            jobs.append(
                Job(
                    file,
                    folder
                    / subfolder
                    / label_name(file, overlapping=overlapping, format=format, real=real),
                    folder / OVERLAYS / subfolder / f"{name}.png" if overlays else None,
                    folder / PROBABILITIES / subfolder / maps if probabilities else None,
                    format,
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
