"""A case: one image, volume or video with its labels and geometry, on one fixed axis order; and how
a file's voxel axes turn into that order by their anatomical direction.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from segweave.errors import InputError, UsageError, nearest

Stack = Literal["space", "time", "single"]
STACKS: tuple[Stack, ...] = ("space", "time", "single")
_AT_ONCE = 1 << 20  # pixels

LEFT, POSTERIOR, SUPERIOR = 0, 1, 2
_RAS_TO_LPS = np.array([-1.0, -1.0, 1.0])
_TIE = 1e-3
"""Spacings closer than this share count as equal: headers hold them in float32."""


@dataclass(frozen=True)
class SourceGrid:
    """How a file's own voxel axes relate to a case's (slice, row, column) axes.

    Label maps are written back with it, so that they fit the file exactly.

    Attributes:
        axes: the file axis that became case axis k (slice, row, column).
        flips: whether case axis k runs against its file axis.
        shape: the spatial shape in the file.
    """

    axes: tuple[int, ...]
    flips: tuple[bool, ...]
    shape: tuple[int, ...]

    def to_case(self, volume: NDArray[Any]) -> NDArray[Any]:
        """An array on the file's axes → (slice, row, column), a view where possible."""
        turned = np.transpose(volume, self.axes)
        return turned[tuple(slice(None, None, -1 if flip else 1) for flip in self.flips)]

    def to_file(self, volume: NDArray[Any]) -> NDArray[Any]:
        """(slice, row, column) → the file's own axes; the inverse of `to_case`."""
        turned = volume[tuple(slice(None, None, -1 if flip else 1) for flip in self.flips)]
        return np.transpose(turned, tuple(int(i) for i in np.argsort(self.axes)))


@dataclass(frozen=True)
class Provenance:
    """Where a case came from.

    Attributes:
        file: the path of its file, or of the folder of its files.
        sha256: the checksum; empty where it was not computed.
        converter: what read it, with its version.
    """

    file: str
    sha256: str = ""
    converter: str = ""


@dataclass(frozen=True, eq=False)
class Case:
    """One image, volume or video with its labels and geometry.

    Attributes:
        id: its name, unique in a store.
        group: what is never split between training and test: a patient, a video.
        image: (slices, channels, height, width), in the values and the dtype of the source.
        label: class ids, uint8 (slices, height, width); where classes overlap, 0 and 1 in
            (slices, classes, height, width); where an image is to be predicted, its values in the
            unit of the source, (slices, channels, height, width). None where there is none.
        instances: numbers of single objects, uint16 (slices, height, width), or None.
        stack: what the slices are: "space" (of a volume), "time" (frames of a video), "single" (one
            image).
        affine: 4×4, (slice, row, column, 1) → RAS+ millimetres, or None.
        spacing: mm per step along (slice, row, column), or None where it is unknown.
        source_grid: how the axes of the file come back.
        gaps: slice numbers before which the stack is interrupted; no window crosses them.
        provenance: where it came from.
        attributes: what else the file states, as JSON values.

    Raises InputError where shapes, spacing, affine, source grid and gaps do not agree, UsageError
    for another `stack`.

    Example:
        >>> import numpy as np
        >>> from segweave import Case
        >>> image = np.zeros((10, 1, 64, 48), np.float32)
        >>> case = Case("scan-1", "patient-1", image, stack="space", spacing=(8.0, 1.5, 1.5))
        >>> case.slices, case.size
        (10, (64, 48))
    """

    id: str
    group: str
    image: NDArray[Any]
    label: NDArray[Any] | None = None
    instances: NDArray[np.uint16] | None = None
    stack: Stack = "single"
    affine: NDArray[np.float64] | None = None
    spacing: tuple[float, float, float] | None = None
    source_grid: SourceGrid | None = None
    gaps: tuple[int, ...] = ()
    provenance: Provenance | None = None
    attributes: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        what = f"making the case {self.id!r}"
        if self.image.ndim != 4 or 0 in self.image.shape:
            raise InputError(
                what,
                expected="an image of shape (slices, channels, height, width)",
                found=str(self.image.shape),
                kind="size",
            )
        if self.stack not in STACKS:
            raise UsageError(
                what, found=f"stack={self.stack!r}", remedy=nearest(str(self.stack), STACKS)
            )
        slices, _, height, width = self.image.shape
        grid = (slices, height, width)
        if self.label is not None:
            own = self.label.shape
            spatial = (own[0], *own[-2:]) if self.label.ndim in (3, 4) else own
            image = self.label.ndim == 4 and self.label.dtype.kind in "fi"
            if spatial != grid or not (image or self.label.dtype == np.uint8):
                raise InputError(
                    what,
                    expected=f"a uint8 label of shape {grid}",
                    found=f"{self.label.dtype} {own}",
                    remedy="check that image and label belong together",
                    kind="size",
                )
        if self.instances is not None and self.instances.shape != grid:
            raise InputError(
                what,
                expected=f"instances of shape {grid}",
                found=str(self.instances.shape),
                kind="size",
            )
        if self.spacing is not None and not all(np.isfinite(s) and s > 0 for s in self.spacing):
            raise InputError(
                what, expected="positive spacing in mm", found=str(self.spacing), kind="damaged"
            )
        if any(not 0 < gap < slices for gap in self.gaps):
            raise InputError(
                what,
                expected=f"gaps before slices 1 to {slices - 1}",
                found=str(self.gaps),
                kind="unsupported",
            )
        turned = self.source_grid
        if turned is not None and tuple(turned.shape[axis] for axis in turned.axes) != grid:
            raise InputError(
                what,
                expected=f"a source grid that turns into {grid}",
                found=f"{turned.shape} with axes {turned.axes}",
                kind="damaged",
            )
        if self.affine is not None:
            if self.spacing is None:
                raise InputError(
                    what, expected="a spacing beside the affine", found="none", kind="damaged"
                )
            if self.affine.shape != (4, 4) or not np.isfinite(self.affine).all():
                raise InputError(
                    what,
                    expected="a finite 4×4 affine",
                    found=str(self.affine.tolist()),
                    kind="damaged",
                )
            steps = np.linalg.norm(self.affine[:3, :3], axis=0)
            if not np.allclose(steps, self.spacing, rtol=1e-3, atol=1e-4):
                raise InputError(
                    what,
                    expected=f"an affine with steps of {self.spacing} mm",
                    found=f"steps of {tuple(float(s) for s in steps)} mm",
                    kind="damaged",
                )
        if self.stack == "single" and slices != 1:
            raise InputError(
                what,
                expected="one slice in a single image",
                found=f"{slices} slices",
                kind="unsupported",
            )

    @property
    def slices(self) -> int:
        """Number of slices (frames of a video)."""
        return int(self.image.shape[0])

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return int(self.image.shape[2]), int(self.image.shape[3])


def count_ids(labels: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The number of pixels of each id 0..255, of a uint8 label map of any shape; made in pieces, as
    `numpy.bincount` takes eight times the memory of the map.
    """
    pixels = labels.ravel()  # a view where the array is in one piece
    counts = np.zeros(256, np.int64)
    for start in range(0, pixels.size, _AT_ONCE):
        counts += np.bincount(pixels[start : start + _AT_ONCE], minlength=256)
    return counts


def ids_in(labels: NDArray[np.uint8]) -> list[int]:
    """The ids that a uint8 label map of any shape holds, in order."""
    return [int(id) for id in np.flatnonzero(count_ids(labels))]


def spacing_of(affine: NDArray[Any]) -> tuple[float, float, float]:
    """Millimetres between neighbours along each voxel axis of a 4×4 affine."""
    steps = np.linalg.norm(np.asarray(affine, dtype=np.float64)[:3, :3], axis=0)
    return float(steps[0]), float(steps[1]), float(steps[2])


def with_spacing(affine: NDArray[Any], spacing: tuple[float, ...]) -> NDArray[np.float64]:
    """The affine with the same directions and origin, and steps of `spacing` mm."""
    rebuilt = np.array(affine, dtype=np.float64)
    rebuilt[:3, :3] *= np.asarray(spacing) / np.linalg.norm(rebuilt[:3, :3], axis=0)
    return rebuilt


def _slice_axis(spacing: NDArray[Any], directions: NDArray[Any], shape: tuple[int, ...]) -> int:
    """The axis of largest spacing; in a tie the one nearest to superior.

    An only axis of length one is the slice axis whatever its spacing: the file holds one image.
    """
    single = [axis for axis in range(3) if shape[axis] == 1]
    if len(single) == 1:
        return single[0]

    def preference(axis: int) -> tuple[float, ...]:
        # Products of components don't change with the sign of an axis: a last tie (45°) is decided
        # by the direction of the axis in the patient, never by its index in the file.
        left, posterior, superior = directions[:, axis]
        keys = (abs(superior), abs(posterior), posterior * superior, left * superior)
        return tuple(round(float(key), 3) for key in (*keys, left * posterior))

    longest = spacing.max()
    tied = [axis for axis in range(3) if spacing[axis] >= longest * (1 - _TIE)]
    return max(tied, key=preference)


def source_grid(affine: NDArray[Any], shape: tuple[int, ...]) -> SourceGrid:
    """How a file with this `affine` (voxel → RAS+ mm) and spatial `shape` becomes a case.

    The slice axis is the one of largest spacing, in a tie the nearest to superior. Columns are the
    in-plane axis nearest to left; where the slices themselves are stacked from side to side, the
    one nearest to posterior. Axes run to left, posterior and superior; only rows along superior
    run to inferior, so that the head is up.
    """
    matrix = np.asarray(affine, dtype=np.float64)[:3, :3]
    spacing = np.linalg.norm(matrix, axis=0)
    directions = _RAS_TO_LPS[:, None] * matrix / spacing
    slice_axis = _slice_axis(spacing, directions, shape)
    across = np.round(np.abs(directions[:, slice_axis]), 3)
    slice_way = max((SUPERIOR, POSTERIOR, LEFT), key=lambda way: across[way])
    column_way = POSTERIOR if slice_way == LEFT else LEFT
    row_way = 3 - slice_way - column_way

    def nearness(axis: int) -> tuple[float, float]:
        along, beside = directions[column_way, axis], directions[row_way, axis]
        return round(abs(float(along)), 3), round(float(along * beside), 3)

    column_axis = max((axis for axis in range(3) if axis != slice_axis), key=nearness)
    row_axis = 3 - slice_axis - column_axis
    row_sign = -1.0 if row_way == SUPERIOR else 1.0
    return SourceGrid(
        axes=(slice_axis, row_axis, column_axis),
        flips=(
            bool(directions[slice_way, slice_axis] < 0),
            bool(row_sign * directions[row_way, row_axis] < 0),
            bool(directions[column_way, column_axis] < 0),
        ),
        shape=(int(shape[0]), int(shape[1]), int(shape[2])),
    )


def case_affine(affine: NDArray[Any], grid: SourceGrid) -> NDArray[np.float64]:
    """The affine of the case's axes: (slice, row, column, 1) → RAS+ mm, 4×4."""
    turn = np.zeros((4, 4))
    turn[3, 3] = 1.0
    for case_axis, (axis, flip) in enumerate(zip(grid.axes, grid.flips, strict=True)):
        turn[axis, case_axis] = -1.0 if flip else 1.0
        turn[axis, 3] = grid.shape[axis] - 1 if flip else 0.0
    return np.asarray(affine, dtype=np.float64) @ turn


def farthest_apart(first: NDArray[Any], second: NDArray[Any], shape: tuple[int, ...]) -> float:
    """Largest distance in mm between where two affines put the same corner voxel of `shape`."""
    corners = np.array([[*np.ravel(corner), 1.0] for corner in np.ndindex(2, 2, 2)])
    corners[:, :3] *= np.asarray(shape, dtype=np.float64) - 1
    offset = (np.asarray(first) - np.asarray(second)) @ corners.T
    return float(np.linalg.norm(offset[:3], axis=0).max())
