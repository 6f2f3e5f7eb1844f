"""Puts the slices of a DICOM series in order and refuses series that do not make one volume."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segweave.errors import InputError

_SAME_DIRECTION = 1e-3
_THICKEST = 1000.0
"""Millimetres; a single slice that claims more has the thickness 1."""
_UNEVEN = 0.06
"""Share of a step by which steps may differ: positions are rounded in the files."""
_MOST_TILT = 0.5  # degrees


@dataclass(frozen=True, eq=False)
class Slice:
    """What a DICOM file holds of one slice: `size` (rows, columns), `bytes` of its pixels,
    `spacing` mm (row, column), `orientation` and `position` in the patient (LPS mm), or None;
    `frame` is its index in a file of several, `scale` the slope and intercept of its values where
    they are those of a frame.
    """

    file: Path
    series: str
    modality: str
    size: tuple[int, int]
    samples: int
    bytes: int
    spacing: NDArray[Any] | None
    orientation: NDArray[Any] | None
    position: NDArray[Any] | None
    thickness: NDArray[Any] | None
    frame: int | None = None
    scale: tuple[float, float] | None = None

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.file.name if self.frame is None else f"frame {self.frame + 1}"


def as_numbers(
    value: Any, name: str, count: int, file: Path, doing: str
) -> NDArray[np.float64] | None:
    """The `count` numbers of an element, None where it is empty; raises InputError for others."""
    if value is None or value == "":
        return None
    try:
        found = np.asarray(value if isinstance(value, Sequence) else [value], np.float64).ravel()
    except (TypeError, ValueError):
        found = np.array([])
    if found.size != count or not np.isfinite(found).all():
        raise InputError(
            doing,
            file=file,
            expected=f"{count} numbers as {name}",
            # Never the value itself: a damaged header may have a name in its place.
            found=f"{found.size} numbers" if found.size else "another value",
            kind="damaged",
        )
    return found


def ordered(
    slices: Sequence[Slice], doing: str, path: Path
) -> tuple[list[Slice], NDArray[np.float64] | None]:
    """The slices from first to last and the affine (column, row, slice, 1) → LPS mm.

    The affine is None for a single picture that names no position. Raises InputError where the
    slices do not make one evenly spaced volume.
    """
    _one_series(slices, doing, path)
    first = slices[0]
    positioned = [one.position is not None and one.orientation is not None for one in slices]
    if not any(positioned) and len(slices) == 1:
        return [first], None
    if not all(positioned):
        lost = slices[positioned.index(False)]
        raise InputError(
            doing,
            file=lost.file,
            expected="a position and an orientation in every slice",
            found=f"none in {len(slices) - sum(positioned)} of {len(slices)}",
            remedy="move what is not a slice (reports, overviews) out of the folder",
            kind="layout",
        )
    if first.spacing is None or min(first.spacing) <= 0:
        raise InputError(
            doing,
            file=first.file,
            expected="a positive PixelSpacing",
            found=str(first.spacing),
            kind="damaged",
        )
    across, down = _axes(first, doing)
    _same_everywhere(slices, doing)
    normal = np.cross(across, down)
    depth = np.array([float(np.dot(normal, one.position)) for one in slices])  # type: ignore[arg-type]
    order = np.argsort(depth, kind="stable")
    kept = [slices[int(i)] for i in order]
    step = _step(kept, depth[order], normal, doing, path)
    affine = np.eye(4)
    affine[:3, 0] = across * first.spacing[1]
    affine[:3, 1] = down * first.spacing[0]
    affine[:3, 2] = step
    affine[:3, 3] = kept[0].position
    return kept, affine


def _one_series(slices: Sequence[Slice], doing: str, path: Path) -> None:
    counts = Counter(one.series for one in slices)
    if len(counts) > 1:
        shown = ", ".join(
            f"{n} files like {next(s.file.name for s in slices if s.series == uid)}"
            for uid, n in counts.most_common(4)
        )
        raise InputError(
            doing,
            file=path,
            expected="one series in a folder",
            found=f"{len(counts)}: {shown}",
            remedy="put each series into a separate folder",
            kind="layout",
        )


def _axes(one: Slice, doing: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Unit vectors along a row and down a column."""
    assert one.orientation is not None
    across, down = one.orientation[:3], one.orientation[3:]
    lengths = np.linalg.norm(across), np.linalg.norm(down)
    if min(lengths) < 0.5 or abs(float(np.dot(across, down))) > 0.01:
        raise InputError(
            doing,
            file=one.file,
            expected="an orientation of two directions at right angles",
            found=", ".join(f"{v:g}" for v in one.orientation),
            remedy="the header is damaged; export the series again",
            kind="damaged",
        )
    return across / lengths[0], down / lengths[1]


def _same_everywhere(slices: Sequence[Slice], doing: str) -> None:
    first = slices[0]
    assert first.orientation is not None
    assert first.spacing is not None
    for one in slices[1:]:
        assert one.orientation is not None
        what = None
        if np.abs(one.orientation - first.orientation).max() > _SAME_DIRECTION:
            what = ("mixed orientations", "the orientation of", "one")
        elif one.size != first.size or one.samples != first.samples:
            what = (
                f"{one.size[0]} × {one.size[1]} pixels",
                f"{first.size[0]} × {first.size[1]} pixels as in",
                "slices of one size",
            )
        elif one.spacing is None or not np.allclose(one.spacing, first.spacing, rtol=1e-3):
            what = (f"pixels of {one.spacing} mm", f"{first.spacing} mm as in", "one pixel size")
        if what:
            raise InputError(
                doing,
                file=one.file,
                expected=f"{what[1]} {first.name}",
                found=what[0] + (f" in {one.name}" if one.frame is not None else ""),
                remedy="move overviews and other series out of the folder",
                kind="layout",
            )


def _step(
    kept: Sequence[Slice], depth: NDArray[Any], normal: NDArray[Any], doing: str, path: Path
) -> NDArray[np.float64]:
    """The vector in mm from one slice to the next."""
    if len(kept) == 1:
        thick = kept[0].thickness
        known = thick is not None and 0 < thick[0] <= _THICKEST
        return normal * (float(thick[0]) if known and thick is not None else 1.0)
    steps = np.diff(depth)
    usual = float(np.median(steps[steps > 1e-4])) if (steps > 1e-4).any() else 0.0
    doubled = np.flatnonzero(steps <= max(1e-4, 0.01 * usual))
    if doubled.size:
        k = int(doubled[0])
        raise InputError(
            doing,
            file=path,
            expected="one slice at each position",
            found=f"{doubled.size} doubled slices: {kept[k].name} and {kept[k + 1].name} have the "
            f"same position ({float(depth[k] - depth[0]):.4g} mm from the first slice)",
            remedy="remove the copies, or put time points into separate folders",
            kind="layout",
        )
    uneven = np.flatnonzero(np.abs(steps - usual) > _UNEVEN * usual)
    if uneven.size:
        k = int(uneven[0])
        times = steps[uneven] / usual
        whole = (times > 1.5).all() and (np.abs(times - np.rint(times)) < 3 * _UNEVEN).all()
        lost = int((np.rint(times) - 1).sum())
        between = (
            f"between slice {k + 1} ({kept[k].name}) and slice {k + 2} ({kept[k + 1].name}) of "
            f"{len(kept)}"
        )
        found = (
            f"{lost} missing slice{'s' if lost > 1 else ''}: {steps[k]:.4g} mm {between}"
            if whole
            else f"uneven steps: {steps[k]:.4g} mm {between}"
        )
        raise InputError(
            doing,
            file=path,
            expected=f"slices every {usual:.4g} mm",
            found=found,
            remedy="copy the whole series again"
            if whole
            else "resample it to even steps first (for instance with dcm2niix)",
            kind="layout",
        )
    positions = np.array([one.position for one in kept])
    step: NDArray[np.float64] = (positions[-1] - positions[0]) / (len(kept) - 1)
    aside = np.linalg.norm(
        positions - (positions[0] + np.arange(len(kept))[:, None] * step), axis=1
    )
    if aside.max() > max(0.1 * usual, 0.1):
        k = int(aside.argmax())
        raise InputError(
            doing,
            file=kept[k].file,
            expected="slices on a straight line",
            found=f"slice {k + 1} of {len(kept)} ({kept[k].name}), {aside.max():.3g} mm beside it",
            remedy="export the series again",
            kind="layout",
        )
    _check_tilt(step, normal, len(kept), doing, path)
    return step


def _check_tilt(
    step: NDArray[np.float64], normal: NDArray[Any], slices: int, doing: str, path: Path
) -> None:
    """Raise InputError where the slices are stacked aslant: a scan with a tilted gantry."""
    along = float(np.dot(step, normal))
    beside = float(np.linalg.norm(step - along * normal))
    tilt = float(np.degrees(np.arctan2(beside, along)))
    if tilt > _MOST_TILT:
        raise InputError(
            doing,
            file=path,
            expected="slices that are stacked at right angles",
            found=f"a gantry tilt of {tilt:.1f}°: each slice is {beside:.3g} mm beside the one "
            f"before, {beside * (slices - 1):.3g} mm over {slices} slices",
            remedy="correct the tilt first: dcm2niix writes a corrected volume (NAME_Tilt.nii)",
            kind="geometry",
        )
