"""Volumes and helpers that the tests of data sets and of checks share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from segweave.checking import CheckReport


def load(path: Path) -> np.ndarray:
    """A phantom's file on the axes of its case."""
    return np.asarray(nibabel.load(path).dataobj).transpose(2, 1, 0)[:, ::-1]


def write(path: Path, values: np.ndarray, affine: Any = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.diag([-1.0, -1.0, 4.0, 1.0]) if affine is None else affine
    nibabel.save(nibabel.Nifti1Image(values, affine), path)


def pairs_of(folder: Path) -> list[tuple[Path, Path]]:
    images = sorted((folder / "img").iterdir())
    return [(p, folder / "label" / p.name.replace("img", "label")) for p in images]


def is_named(report: CheckReport, kind: str, file: Path) -> bool:
    """Whether a problem of this kind names the file, or its case in the text of what is missing."""
    for problem in report.problems:
        # A label without its image is both.
        if problem.kind not in ((kind, "missing") if kind == "unused" else (kind,)):
            continue
        stem = file.name.partition(".")[0]
        named_in_text = problem.file is None or kind == "missing"
        if problem.file == file or (named_in_text and stem in problem.found):
            return True
    return False


def all_named(report: CheckReport, faults: dict[str, tuple[str, Path]]) -> None:
    lost = {name: v for name, v in faults.items() if not is_named(report, *v)}
    assert not lost, (lost, report.problems)
    assert not report.ok
    for problem in report.problems:
        assert problem.what_to_do
        assert "Traceback" not in problem.found
        assert "segweave-check-" not in f"{problem.found}{problem.expected}{problem.file}"
    json.dumps(report.to_json())
