"""Fixes labels whose geometry differs from their images'; the originals are kept, and a log lists
what was done.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from segweave.checking.report import Problem
from segweave.data.case import Case, farthest_apart
from segweave.errors import InputError, SegweaveError, UsageError, nearest
from segweave.formats import read_case, read_label_case, write_label
from segweave.formats.content import Request
from segweave.formats.read import read_content
from segweave.formats.table import format_of
from segweave.storage import atomic_write, sha256_of, sha256_of_bytes

HOW = ("copy-header", "resample")
KEPT = ".before-fix"
LOG = "check-fixes.jsonl"


def log_of(source: str | Path) -> Path:
    """Where `fix` writes what it did: in the folder `source`, or in that of a table."""
    path = Path(source)
    return (path if path.is_dir() else path.parent) / LOG


def fix(
    source: str | Path,
    problems: Sequence[Problem],
    how: Literal["copy-header", "resample"],
    *,
    folders: Sequence[str | Path] = (),
) -> list[dict[str, Any]]:
    """Fix every label of `problems` (kinds size and geometry) that is not on its image.

    The original is copied to SOURCE/.before-fix (of a table, to that in the table's folder), and
    one line per file is added to `log_of` the source. A file that can't be fixed stays as it is,
    and its line gives the reason. Nothing outside of the source and of `folders` is changed: a list
    in a data set may name any file of the machine.

    Args:
        source: the data set, as `check` got it.
        problems: those of a report.
        how: "copy-header": the voxels fit, the header is wrong; the label gets the image's header
            (it must have the image's shape). "resample": the header is right; every voxel of the
            image gets the nearest label (0 outside), unless that erases more than half of it.
        folders: further folders in which labels may be changed, such as that of the masks.

    Returns the lines of the log. Raises UsageError for another `how`.
    """
    if how not in HOW:
        raise UsageError("fixing labels", found=repr(how), remedy=nearest(str(how), HOW))
    folder = log_of(source).parent
    lines = []
    inside = [folder.resolve(), *(Path(path).resolve() for path in folders)]
    pairs = {(p.file, p.image) for p in problems if p.kind in ("size", "geometry")}
    for label, image in sorted((a, b) for a, b in pairs if a is not None and b is not None):
        line: dict[str, Any] = {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "file": str(label),
            "image": str(image),
            "how": how,
        }
        try:
            _check_inside(label, inside)
            line |= _fix_label(folder, label, image, how)
        except SegweaveError as error:
            line |= {"done": False, "why": error.found or error.doing}
        except OSError as error:
            line |= {"done": False, "why": f"{error.strerror or error}: {error.filename or label}"}
        lines.append(line)
        with log_of(source).open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")
    return lines


def _check_inside(label: Path, folders: Sequence[Path]) -> None:
    home = label.parent.resolve()
    if not any(home.is_relative_to(folder) for folder in folders):
        raise InputError(
            "fixing a label",
            file=label,
            found=f"a label outside of {folders[0]}, where nothing is changed; copy it there, or "
            "move the list to a folder above its files",
        )


def _fix_label(folder: Path, label: Path, image: Path, how: str) -> dict[str, Any]:
    doing = "fixing a label"
    format = format_of(label)
    if format is None or format.family != "volume":
        raise InputError(doing, file=label, found="a file format without a geometry")
    target = read_case(image, geometry="affine", channels=True, with_label=False)
    given = read_label_case(label, geometry="affine")
    if how == "resample" and not read_content(label, Request(doing, as_label=True)).oriented:
        raise InputError(
            doing,
            file=label,
            found="a label whose header has no orientation, so that it can't be "
            "resampled; if its voxels fit the image, use copy-header",
        )
    if (
        target.affine is None
        or given.affine is None
        or given.label is None
        or given.label.ndim != 3
    ):
        raise InputError(doing, file=label, found="an image or a label without a geometry")
    before = sha256_of(label)
    if how == "copy-header":
        values = _copied(given, target, label)
    else:
        values = _resampled(given, target)
        _check_kept(given, values, target, label)
    kept = folder / KEPT / _relative(label, folder)
    kept.parent.mkdir(parents=True, exist_ok=True)
    if os.path.lexists(kept):
        raise InputError(doing, file=label, found=f"an earlier copy is kept at {kept}")
    with atomic_write(kept) as temporary:
        shutil.copyfile(label, temporary)
    shutil.copystat(label, kept)
    try:
        write_label(values, target, label)
    except BaseException:
        kept.unlink()
        raise
    same = given.image.shape[0] == target.slices and given.size == target.size
    apart = farthest_apart(given.affine, target.affine, (target.slices, *target.size))
    return {
        "done": True,
        "kept": str(kept),
        "sha256_before": before,
        "sha256_after": sha256_of(label),
        "mm_apart_before": round(apart, 4) if same else None,
        "labelled_before": int(np.count_nonzero(given.label)),
        "labelled_after": int(np.count_nonzero(values)),
    }


def _relative(label: Path, folder: Path) -> Path:
    """A label's path below the folder; for one elsewhere, a name with a hash of its path."""
    path = label.parent.resolve() / label.name
    root = folder.resolve()
    if path.is_relative_to(root):
        return path.relative_to(root)
    return Path(f"{sha256_of_bytes(os.fsencode(path))[:12]}-{label.name}")


def _check_kept(given: Case, values: NDArray[np.uint8], target: Case, label: Path) -> None:
    """Raise InputError where resampling by the label's header loses most of what is labelled."""
    assert given.label is not None
    assert given.affine is not None
    assert target.affine is not None
    before, after = (
        np.count_nonzero(v) * abs(np.linalg.det(a[:3, :3]))
        for v, a in ((given.label, given.affine), (values, target.affine))
    )
    if after < before / 2:
        raise InputError(
            "fixing a label",
            file=label,
            expected="a label whose header puts it onto its image",
            found=f"a header by which {1 - after / before:.0%} of what is labelled is outside "
            "the image: resampling would erase it",
            remedy="if the voxels fit the image, use copy-header",
        )


def _copied(given: Case, target: Case, label: Path) -> NDArray[np.uint8]:
    """The label's voxels in the order of their file, on the image's axes."""
    assert given.label is not None
    assert given.source_grid is not None
    assert target.source_grid is not None
    if given.source_grid.shape != target.source_grid.shape:
        raise InputError(
            "fixing a label",
            file=label,
            expected="the image's shape " + " × ".join(map(str, target.source_grid.shape)),
            found="another shape, " + " × ".join(map(str, given.source_grid.shape)),
        )
    return np.ascontiguousarray(target.source_grid.to_case(given.source_grid.to_file(given.label)))


def _resampled(given: Case, target: Case) -> NDArray[np.uint8]:
    """For every voxel of the image the label's nearest voxel in the patient, slice by slice."""
    assert given.label is not None
    assert given.affine is not None
    assert target.affine is not None
    to_label = np.linalg.inv(given.affine) @ target.affine
    rows, columns = np.meshgrid(*(np.arange(n) for n in target.size), indexing="ij")
    shape = np.asarray(given.label.shape)[:, None, None]
    out = np.zeros((target.slices, *target.size), np.uint8)
    for k in range(target.slices):
        voxels = np.stack([np.full(rows.shape, k), rows, columns, np.ones(rows.shape)])
        index = np.rint(np.tensordot(to_label[:3], voxels, axes=1) - 1e-6).astype(np.int64)
        inside = ((index >= 0) & (index < shape)).all(axis=0)
        clipped = np.clip(index, 0, shape - 1)
        out[k] = np.where(inside, given.label[clipped[0], clipped[1], clipped[2]], 0)
    return out
