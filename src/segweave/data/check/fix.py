"""Mends labels that lie elsewhere than their images; the files as they were are kept, and a log
says what was done.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from segweave.data.case import Case
from segweave.data.check.report import Problem
from segweave.data.formats import read_case, read_label_case, write_label
from segweave.data.formats.files import META, NIFTI, suffix_of
from segweave.data.geometry import farthest_apart
from segweave.errors import InputError, SegweaveError, UsageError, nearest

HOW = ("copy-header", "resample")
KEPT = ".before-fix"
LOG = "check-fixes.jsonl"


def fix(
    source: str | Path, problems: Sequence[Problem], how: Literal["copy-header", "resample"]
) -> list[dict[str, Any]]:
    """Mend every label of `problems` (kinds size and geometry) that lies elsewhere than its image.

    `copy-header`: the voxels fit, the header is wrong; the label gets the image's header (it must
    have the image's shape). `resample`: the header is right; every voxel of the image gets the
    nearest label (0 outside). The label as it was is moved to SOURCE/.before-fix, and a line a file
    is added to SOURCE/check-fixes.jsonl; the same lines are returned. A file that can't be mended
    stays as it is, and its line says why. Raises UsageError for another `how`.
    """
    if how not in HOW:
        raise UsageError("mending labels", found=repr(how), remedy=nearest(str(how), HOW))
    folder = Path(source) if Path(source).is_dir() else Path(source).parent
    lines = []
    pairs = {(p.file, p.image) for p in problems if p.kind in ("size", "geometry")}
    for label, image in sorted((a, b) for a, b in pairs if a is not None and b is not None):
        line: dict[str, Any] = {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "file": str(label),
            "image": str(image),
            "how": how,
        }
        try:
            line |= _mend(folder, label, image, how)
        except SegweaveError as error:
            line |= {"done": False, "why": error.found or error.doing}
        lines.append(line)
        with (folder / LOG).open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")
    return lines


def _mend(folder: Path, label: Path, image: Path, how: str) -> dict[str, Any]:
    doing = "mending a label"
    if suffix_of(label) not in (*NIFTI, *META):
        raise InputError(doing, file=label, found="a file without a geometry of its own")
    target = read_case(image, geometry="affine", channels=True, with_label=False)
    own = read_label_case(label, geometry="affine")
    if target.affine is None or own.affine is None or own.label is None or own.label.ndim != 3:
        raise InputError(doing, file=label, found="an image or a label without a geometry")
    before = _sha256(label)
    values = _copied(own, target, label) if how == "copy-header" else _resampled(own, target)
    kept = folder / KEPT / _relative(label, folder)
    if os.path.lexists(kept):
        raise InputError(doing, file=label, found=f"an earlier copy is kept at {kept}")
    written = label.with_name(f".mended-{label.name}")
    write_label(values, target, written)
    kept.parent.mkdir(parents=True, exist_ok=True)
    os.replace(label, kept)
    os.replace(written, label)
    same = own.image.shape[0] == target.slices and own.size == target.size
    apart = farthest_apart(own.affine, target.affine, (target.slices, *target.size))
    return {
        "done": True,
        "kept": str(kept),
        "sha256_before": before,
        "sha256_after": _sha256(label),
        "mm_apart_before": round(apart, 4) if same else None,
        "labelled_before": int(np.count_nonzero(own.label)),
        "labelled_after": int(np.count_nonzero(values)),
    }


def _relative(file: Path, folder: Path) -> Path:
    try:
        return file.absolute().relative_to(folder.absolute())
    except ValueError:
        return Path(file.name)


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _copied(own: Case, target: Case, label: Path) -> NDArray[np.uint8]:
    """The label's voxels in the order of their file, on the image's axes."""
    assert own.label is not None
    assert own.source_grid is not None
    assert target.source_grid is not None
    if own.source_grid.shape != target.source_grid.shape:
        raise InputError(
            "mending a label",
            file=label,
            expected="the image's shape " + " × ".join(map(str, target.source_grid.shape)),
            found="another shape, " + " × ".join(map(str, own.source_grid.shape)),
        )
    return np.ascontiguousarray(target.source_grid.to_case(own.source_grid.to_file(own.label)))


def _resampled(own: Case, target: Case) -> NDArray[np.uint8]:
    """For every voxel of the image the label's nearest voxel in the patient, slice by slice."""
    assert own.label is not None
    assert own.affine is not None
    assert target.affine is not None
    to_own = np.linalg.inv(own.affine) @ target.affine
    rows, columns = np.meshgrid(*(np.arange(n) for n in target.size), indexing="ij")
    shape = np.asarray(own.label.shape)[:, None, None]
    out = np.zeros((target.slices, *target.size), np.uint8)
    for k in range(target.slices):
        place = np.stack([np.full(rows.shape, k), rows, columns, np.ones(rows.shape)])
        index = np.rint(np.tensordot(to_own[:3], place, axes=1) - 1e-6).astype(np.int64)
        inside = ((index >= 0) & (index < shape)).all(axis=0)
        clipped = np.clip(index, 0, shape - 1)
        out[k] = np.where(inside, own.label[clipped[0], clipped[1], clipped[2]], 0)
    return out
