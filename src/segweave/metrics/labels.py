"""Brings label maps into the shape that every metric works on (checked, cut to the foreground,
classes numbered 1, 2, ...), finds the surface voxels of all classes at once, and for each the
nearest one of another map.

Near ones are found by trying steps in order of their length, the first hit being the nearest; the
few that remain go to a KD-tree. Compiled and in two axes, the other map's surface is walked through
from the same row on instead. So the cost follows the surface, not the volume.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from segweave.errors import InputError, MissingExtraError, UsageError, nearest

Spacing = Sequence[float] | None
"""Millimetres per axis, in the order of the axes; None where they are unknown (pixels)."""
Engine = Literal["auto", "numpy", "compiled"]

# Steps tried before the KD-tree, at most. The NumPy search gives up earlier where hits get rare.
_NUMPY_STEPS = 256
_COMPILED_STEPS = 1200
_BLOCK = 8
# A KD-tree query costs about as much as this many tries of one voxel and one step.
_TREE_COST = 120
# Up to here the KD-tree alone is faster than trying steps with NumPy.
_FEW_POINTS = 2000
# Below this many voxels NumPy is done before the compiled loops would be loaded.
_COMPILED_FROM = 1_000_000


def check_pair(prediction: NDArray[Any], reference: NDArray[Any]) -> None:
    """Raise InputError unless both are integer or boolean label maps of one 2D or 3D shape."""
    if prediction.shape != reference.shape or prediction.ndim not in (2, 3):
        raise InputError(
            "comparing two label maps",
            expected="two arrays of one shape, (height, width) or (slices, height, width)",
            found=f"prediction {prediction.shape}, reference {reference.shape}",
        )
    for name, array in (("prediction", prediction), ("reference", reference)):
        if array.dtype.kind not in "bui":
            raise InputError(
                "comparing two label maps",
                expected=f"integer class ids in the {name}",
                found=f"values of type {array.dtype}",
                remedy="make labels of probabilities first (segweave.data.specs.decide)",
            )


def check_classes(classes: Sequence[int]) -> tuple[int, ...]:
    """The class ids as a tuple; UsageError where one is 0 (background), negative or repeated."""
    ids = tuple(int(c) for c in classes)
    if not ids or min(ids) < 1 or len(set(ids)) != len(ids) or len(ids) > 255:
        raise UsageError(
            "choosing the classes to score",
            expected="1 to 255 different ids of 1 and above",
            found=str(ids),
        )
    return ids


def foreground_box(*arrays: NDArray[Any]) -> tuple[slice, ...] | None:
    """The smallest box that holds every voxel that is not 0 in any of the arrays; None where all
    are 0. Outside it is background, as beyond the array's edge, so that surfaces in the box are
    those of the whole.
    """
    box: list[slice] = []
    one_type = len({array.dtype for array in arrays}) == 1
    # Bits joined over whole axes give the same as `any`, several times as fast.
    joined = functools.reduce(
        np.bitwise_or, arrays if one_type else [array != 0 for array in arrays]
    )
    for axis in range(joined.ndim):
        line = joined
        for other in reversed(range(joined.ndim)):
            if other != axis:
                line = np.bitwise_or.reduce(line, axis=other)
        filled = np.flatnonzero(line)
        if filled.size == 0:
            return None
        extent = slice(int(filled[0]), int(filled[-1]) + 1)
        box.append(extent)
        joined = joined[(slice(None),) * axis + (extent,)]
    return tuple(box)


def numbered(array: NDArray[Any], classes: tuple[int, ...]) -> NDArray[np.uint8]:
    """The label map with the id `classes[k]` as k + 1 and everything else as 0."""
    if array.dtype == np.bool_:
        array = array.view(np.uint8)
    if array.dtype == np.uint8:
        in_order = classes == tuple(range(1, len(classes) + 1))
        if in_order and int(array.max(initial=0)) <= len(classes):
            return array
        table = np.zeros(256, np.uint8)
        for k, c in enumerate(classes):
            if c < 256:
                table[c] = k + 1
        return table[array]
    out = np.zeros(array.shape, np.uint8)
    for k, c in enumerate(classes):
        out[array == c] = k + 1
    return out


@dataclass(frozen=True, eq=False)
class Surface:
    """The surface voxels of all classes of one label map.

    `map` holds the class number (1, 2, ...) at each surface voxel and 0 elsewhere; `points` are
    flat indices into it, ordered by class; those of class k are `points[start[k]:start[k + 1]]`.
    """

    map: NDArray[np.uint8]
    points: NDArray[np.int64]
    start: NDArray[np.int64]

    @property
    def classes(self) -> NDArray[np.uint8]:
        """Class number of each point."""
        return np.repeat(np.arange(self.start.size - 1, dtype=np.uint8), np.diff(self.start))


def find_surface(labels: NDArray[np.uint8], count: int, engine: Engine = "auto") -> Surface:
    """Surface voxels of the classes 1..count of a label map, 2D or 3D."""
    if (compiled := compiled_loops(engine, labels.size)) is not None:
        return Surface(*compiled.find_surface(labels, count))
    inner = np.ones(labels.shape, np.bool_)
    for axis in range(labels.ndim):
        lower = (slice(None),) * axis + (slice(None, -1),)
        upper = (slice(None),) * axis + (slice(1, None),)
        same = labels[lower] == labels[upper]
        inner[lower] &= same
        inner[upper] &= same
        inner[(slice(None),) * axis + (0,)] = False
        inner[(slice(None),) * axis + (-1,)] = False
    surface = np.where(inner, np.uint8(0), labels)
    points = np.flatnonzero(surface)
    classes = surface.ravel()[points]
    points = points[np.argsort(classes, kind="stable")]
    start = np.zeros(count + 2, np.int64)
    np.cumsum(np.bincount(classes, minlength=count + 1), out=start[1:])
    return Surface(surface, points, start)


def nearest_distances(
    of: Surface, to: Surface, spacing: tuple[float, ...], engine: Engine = "auto"
) -> NDArray[np.float64]:
    """Distance of each point of `of` to the nearest point of its class in `to`, in the unit of
    `spacing`; infinite where `to` lacks the class.
    """
    distances = np.full(of.points.size, np.inf)
    if of.points.size == 0 or to.points.size == 0:
        return distances
    shape = of.map.shape
    compiled = compiled_loops(engine, of.map.size)
    if compiled is not None and len(shape) == 2:
        compiled.search_rows(
            of.points, of.start, to.points, to.start, shape[1], spacing[0], spacing[1], distances
        )
        return distances
    if compiled is not None:
        steps, lengths = _steps(spacing, _COMPILED_STEPS)
        compiled.search(of.points, of.classes, to.map, steps, lengths, distances)
    elif of.points.size > _FEW_POINTS:
        _search(of, to, spacing, distances)
    for k in range(1, of.start.size - 1):
        points = slice(of.start[k], of.start[k + 1])
        targets = to.points[to.start[k] : to.start[k + 1]]
        left = np.flatnonzero(np.isinf(distances[points]))
        if left.size and targets.size:
            tree = cKDTree(_coordinates(targets, shape, spacing), balanced_tree=False)
            coordinates = _coordinates(of.points[points][left], shape, spacing)
            distances[of.start[k] + left] = tree.query(coordinates)[0]
    return distances


def _coordinates(
    points: NDArray[np.int64], shape: tuple[int, ...], spacing: tuple[float, ...]
) -> NDArray[np.float64]:
    return np.stack(np.unravel_index(points, shape), axis=1) * np.asarray(spacing)


def _search(
    of: Surface, to: Surface, spacing: tuple[float, ...], distances: NDArray[np.float64]
) -> None:
    steps, lengths = _steps(spacing, _NUMPY_STEPS)
    margin = np.abs(steps).max(axis=0)
    # A margin of zeros, so that no step has to be checked against the array's edge.
    padded = np.pad(to.map, [(int(m), int(m)) for m in margin])
    strides = np.array(padded.strides)
    coordinates = np.stack(np.unravel_index(of.points, of.map.shape), axis=1)
    flat = padded.ravel()
    left = np.arange(of.points.size)
    start = (coordinates + margin) @ strides
    classes = of.classes
    # Classes that `to` lacks would never hit.
    there = np.diff(to.start) > 0
    keep = there[classes]
    left, start, classes = left[keep], start[keep], classes[keep]
    jumps = steps @ strides
    for begin in range(0, len(steps), _BLOCK):
        if left.size == 0:
            return
        hit = flat[start[:, None] + jumps[begin : begin + _BLOCK]] == classes[:, None]
        reached = hit.any(axis=1)
        distances[left[reached]] = lengths[begin + hit[reached].argmax(axis=1)]
        hits = int(np.count_nonzero(reached))
        tried = left.size * _BLOCK
        missed = ~reached
        left, start, classes = left[missed], start[missed], classes[missed]
        if hits * _TREE_COST < tried:
            return


@functools.lru_cache(maxsize=64)
def _steps(spacing: tuple[float, ...], limit: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Steps (count, axes) in voxels and their lengths, shortest first. Every step shorter than the
    last one is among them, so that the first hit is the nearest point.
    """
    sizes = np.asarray(spacing)
    # A ball that holds about twice `limit` voxels.
    ball = {2: np.pi, 3: 4 * np.pi / 3}[len(spacing)]
    radius = max((2 * limit * sizes.prod() / ball) ** (1 / len(spacing)), 2 * sizes.min())
    reach = np.floor(radius / sizes).astype(int)
    grid = np.meshgrid(*(np.arange(-n, n + 1) for n in reach), indexing="ij")
    steps = np.stack(grid, axis=-1).reshape(-1, len(spacing))
    lengths = np.sqrt(((steps * sizes) ** 2).sum(axis=1))
    keep = lengths <= radius
    steps, lengths = steps[keep], lengths[keep]
    order = np.argsort(lengths, kind="stable")[:limit]
    return np.ascontiguousarray(steps[order]).astype(np.int64), lengths[order]


def compiled_loops(engine: Engine, voxels: int) -> Any:
    """The compiled loops, or None where NumPy shall do it."""
    if engine not in ("auto", "numpy", "compiled"):
        raise UsageError(
            "choosing how to compute a metric",
            found=repr(engine),
            remedy=nearest(str(engine), ("auto", "numpy", "compiled")),
        )
    if engine == "numpy" or (engine == "auto" and voxels < _COMPILED_FROM):
        return None
    loops = _loops()
    if loops is None and engine == "compiled":
        raise MissingExtraError("loading the compiled search", library="numba", extra="fast")
    return loops


@functools.cache
def _loops() -> Any:
    try:
        from segweave.metrics import compiled
    except ImportError:
        return None
    return compiled
