"""Scores label maps in files against true ones, whatever made them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segweave.data.case import Stack
from segweave.data.store import is_store
from segweave.errors import UsageError
from segweave.evaluation import Evaluation, evaluate_folders
from segweave.formats import Geometry
from segweave.runtime.progress import Progress


def score(
    predictions: str | Path,
    references: str | Path,
    out: str | Path,
    *,
    protocol: str = "clean",
    metrics: Sequence[str] = (),
    cases: str | Path | None = None,
    group: str | None = None,
    images: str | Path | None = None,
    stack: Stack | None = None,
    classes: Sequence[str] | None = None,
    geometry: Geometry = "check",
    mask_threshold: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Evaluation:
    """Score a folder of label maps against a folder of true ones, and write an evaluation folder.

    Args:
        predictions: label maps (NIfTI, PNG, npz, h5 ...), or one file.
        references: true label maps of the same names; endings such as _gt and _mask do not count.
        out: the evaluation folder.
        protocol: the rules, by name.
        metrics: names of metrics of label maps to compute beside those of the protocol, a
            plug-in's too.
        cases: a CSV file with the column case and any of group, part, stack, arm, seed, fold, id,
            slice. Without it each file is a group.
        group: a regular expression that finds the patient or video in the name of a case, where the
            CSV file states none.
        images: the folder of the images, for pictures (`segweave.report.write_scores`, `compare`).
        stack: what files of several slices are where the CSV file does not say: "space" (a volume,
            scored in 3D), "time" (frames of a video, scored one by one) or "single".
        classes: names of the classes from id 1 on; `background` may be given before them. Without
            it the classes are those of the protocol, else the ids in the references.
        geometry: what is right where a NIfTI header contradicts itself: "check" refuses the file,
            "pixdim" or "affine" decides.
        mask_threshold: in grey or JPEG masks, of predictions and of references, values above this
            are foreground.
        force: replace an evaluation.
        progress: called after each case with (cases done, all cases, the case's id).

    Raises InputError with a list of all files that are missing, left over or do not fit; nothing is
    written then. Example:

        >>> from segweave import score
        >>> scores = score("labels", "truth", "scores", classes=["RV", "myocardium", "LV"])
        >>> scores.manifest.classes
        ['RV', 'myocardium', 'LV']
    """
    for folder in (predictions, references):
        if is_store(folder):
            raise UsageError(
                "scoring files",
                file=folder,
                expected="a folder of label maps",
                found="a store",
                remedy="segweave evaluate RUN --store STORE scores a run on a store; to score "
                "files give the folder of the true label maps",
            )
    return evaluate_folders(
        predictions,
        references,
        out,
        protocol=protocol,
        metrics=metrics,
        cases_csv=cases,
        group=group,
        images=images,
        classes=classes or (),
        stack=stack,
        geometry=geometry,
        mask_threshold=mask_threshold,
        force=force,
        progress=progress,
    )
