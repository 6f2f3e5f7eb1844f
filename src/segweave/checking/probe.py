"""Checks one case: reads it as the data set does and, where that fails, each of its files
separately, so that one fault does not hide another.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segweave.checking.kinds import problem_of
from segweave.checking.labels import unusual_labels
from segweave.checking.report import Problem
from segweave.checking.survey import Survey
from segweave.data.case import Case, count_ids, farthest_apart
from segweave.data.specs import TargetSpec
from segweave.data.validate_case import check_case
from segweave.datasets.base import Item
from segweave.errors import MissingExtraError, SegweaveError
from segweave.formats.content import Content, Geometry, Request
from segweave.formats.dicom import series_files
from segweave.formats.guard import as_label
from segweave.formats.nifti_header import check_header, read_geometry
from segweave.formats.pictures import exif_turn
from segweave.formats.read import read_case, read_content, read_label_case
from segweave.formats.table import ARRAYS, DICOM, NIFTI, PICTURES, suffix_of
from segweave.storage import sha256_of_bytes

NEAR = 0.1
"""Share of the smallest voxel side by which voxels of label and image may differ."""


@dataclass(frozen=True)
class Look:
    """What one readable case is like. `content` is a hash of its pixels."""

    id: str
    group: str
    slices: int
    channels: int
    size: tuple[int, int]
    spacing: tuple[float, float, float] | None
    stack: str
    dtype: str
    numbered: bool
    orientation: str
    low: float
    high: float
    ids: dict[int, int]
    content: str
    files: tuple[Path, ...]


@dataclass
class Probe:
    """The result for one case: its look, where it could be read, its problems, and those of headers
    that contradict themselves (which a reader may handle). `ids` are those in the label's
    own file, where the case could not be read; `frames` is a hash of each frame of a video.
    """

    look: Look | None = None
    problems: list[Problem] = field(default_factory=list)
    ids: frozenset[int] = frozenset()
    headers: list[Problem] = field(default_factory=list)
    frames: dict[Path, str] = field(default_factory=dict)


def probe(item: Item, found_in: Survey) -> Probe:
    """Read one case and check it. Raises nothing but what an interrupt raises."""
    done = Probe(headers=_headers(item, found_in), problems=_turned(item, found_in))
    try:
        case = item.read()
    except MissingExtraError:
        raise
    except SegweaveError as error:
        done.problems += _apart(item, found_in, error, done)
        done.ids = ids_in(label_file(item), found_in.plan.target)
        return done
    except (OSError, ValueError, MemoryError) as error:
        file = item.files[0] if item.files else None
        done.problems.append(_raised(error, item, file))
        return done
    try:
        check_case(case, found_in.plan.target, labelled=found_in.labelled)
    except SegweaveError as error:
        done.problems += _strange(item, found_in) or [_of(error, item, found_in)]

    def mask_of(k: int) -> Path | None:
        file = item.parts[2 * k + 1][0] if len(item.parts) > 2 else label_file(item)
        return None if file is None else file

    if found_in.plan.target.kind != "image":
        done.problems += unusual_labels(case, found_in.plan.target, mask_of)
    done.look = _look(case, item, found_in)
    if case.stack == "time":
        images = dict.fromkeys(path for path, _ in item.parts[::2])
        done.frames = {path: _frame(plane) for path, plane in zip(images, case.image, strict=False)}
    return done


def _look(case: Case, item: Item, found_in: Survey) -> Look:
    ids: dict[int, int] = {}
    if case.label is not None and found_in.plan.target.kind != "image":
        counts = count_ids(case.label)
        ids = {int(i): int(counts[i]) for i in np.flatnonzero(counts)}
        if case.label.ndim == 4:
            ids = {k: int(case.label[:, k].sum()) for k in range(case.label.shape[1])}
    header = f"{case.image.shape} {case.image.dtype}".encode()
    return Look(
        id=case.id,
        group=case.group,
        slices=case.slices,
        channels=case.image.shape[1],
        size=case.size,
        spacing=case.spacing,
        stack=case.stack,
        dtype=str(case.image.dtype),
        numbered=case.instances is not None,
        orientation=_orientation(case),
        low=float(case.image.min()),
        high=float(case.image.max()),
        ids=ids,
        content=sha256_of_bytes(header, np.ascontiguousarray(case.image).reshape(-1).data),
        files=tuple(path for path in item.files),
    )


def _frame(plane: NDArray[Any]) -> str:
    """A hash of a frame's pixels, "" where all are alike."""
    plain = plane.min() == plane.max()
    return "" if plain else sha256_of_bytes(plane.tobytes())


def _orientation(case: Case) -> str:
    """Along what the slices of a volume are stacked."""
    if case.affine is None:
        return ""
    direction = np.abs(case.affine[:3, 0])
    return ("sagittal", "coronal", "axial")[int(direction.argmax())]


def _headers(item: Item, found_in: Survey) -> list[Problem]:
    problems = []
    for path in item.files:
        if suffix_of(path) not in NIFTI or not path.is_file():
            continue
        try:
            check_header(path)
        except SegweaveError as error:
            if error.kind == "header":
                problems.append(_of(error, item, found_in, path))
    return problems


def _of(error: SegweaveError, item: Item, found_in: Survey, file: Path | None = None) -> Problem:
    """An error of ours as a problem of the case."""
    named = file or error.file
    if error.kind == "labels" and file is None:
        # The case is checked under its image's name; the label may have a separate file.
        named = label_file(item) or named
    return problem_of(error, default="unsupported", case=item.id, file=named)


def _apart(item: Item, found_in: Survey, error: SegweaveError, done: Probe) -> list[Problem]:
    """Every fault of a case that could not be read, file by file."""
    if item.parts:
        problems = _parts(item, found_in, done)
        first = _of(error, item, found_in, error.file)
        return problems if any(_same(first, p) for p in problems) else [*problems, first]
    problems = []
    # Where headers contradict themselves, the steps of pixdim are the ones that are looked at.
    geometry: Geometry = "pixdim" if done.headers else "affine"
    contents: list[tuple[Path, bool, Content]] = []
    for path in _units(item):
        label = path == label_file(item)
        try:
            content = read_content(
                path,
                Request(
                    "checking a file",
                    geometry,
                    as_label=label,
                    with_label=not label,
                    channels=True,
                ),
            )
            contents.append((path, label, content))
            if content.label is not None:
                as_label(content.label, "checking a label map", path)
        except MissingExtraError:
            raise
        except SegweaveError as fault:
            if path.is_dir():
                inside = _slices(path, item, found_in)
                problems += inside or [_of(fault, item, found_in, fault.file or path)]
                continue
            problems.append(_of(fault, item, found_in, path))
            if problems[-1].kind == "values" and suffix_of(path) in NIFTI:
                # Bad pixels do not make the header wrong.
                contents.append((path, label, read_geometry(path, geometry)))
    problems += _against_first(contents, item, found_in, {p.file for p in done.headers})
    problems += [p for p in _strange(item, found_in) if p.kind in ("labels", "missing")]
    first = _of(error, item, found_in)
    header = first.kind == "header"
    if not header and not any(_same(first, problem) for problem in problems):
        problems.append(first)
    return problems


def _units(item: Item) -> list[Path]:
    """The files of a case, those of a DICOM series as their folder."""
    label = label_file(item)
    slices = [p for p in item.files if p != label and suffix_of(p) in ("", *DICOM)]
    if len(slices) < 2:
        return list(item.files)
    return [slices[0].parent, *(p for p in item.files if p not in slices)]


def _slices(folder: Path, item: Item, found_in: Survey) -> list[Problem]:
    """The slices of a DICOM series that can't be read, each read separately."""
    problems = []
    for path in series_files(folder):
        try:
            read_content(path, Request("checking a slice"))
        except MissingExtraError:
            raise
        except SegweaveError as fault:
            problems.append(_of(fault, item, found_in, path))
    return problems


def _parts(item: Item, found_in: Survey, done: Probe) -> list[Problem]:
    """The faults of the files that a case is made of, each read separately."""
    problems = []
    for k, (path, read) in enumerate(item.parts):
        try:
            pixels = read()
            if k % 2 == 0 and len(item.parts) > 2 and isinstance(pixels, np.ndarray):
                done.frames[path] = _frame(pixels[0])
        except SegweaveError as fault:
            problems.append(_of(fault, item, found_in, path))
        except (OSError, ValueError, MemoryError) as error:
            problems.append(_raised(error, item, path))
    return problems


def _raised(error: Exception, item: Item, file: Path | None) -> Problem:
    text = f"{type(error).__name__}: {str(error).strip() or 'no message'}"[:200]
    return Problem("damaged", "error", found=text, case=item.id, file=file)


def _turned(item: Item, found_in: Survey) -> list[Problem]:
    """Pictures with an EXIF orientation, which is not applied."""
    return [
        Problem(
            "turned",
            "warning",
            found=f"an EXIF orientation of {turn}, which is not applied",
            expected="pixels stored as they are shown",
            case=item.id,
            file=path,
        )
        for path in item.files
        if suffix_of(path) in PICTURES and path.is_file() and (turn := exif_turn(path)) != 1
    ]


def _strange(item: Item, found_in: Survey) -> list[Problem]:
    """The files of a case of several slices, each with its label, that hold unknown ids."""
    arrays = [path for path in item.files if suffix_of(path) in ARRAYS]
    if len(arrays) < 2:
        return []
    target = found_in.plan.target
    problems = []
    for path in arrays:
        try:
            check_case(read_case(path, id=item.id), target, labelled=found_in.labelled)
        except SegweaveError as fault:
            problems.append(_of(fault, item, found_in, path))
    return problems


def label_file(item: Item) -> Path | None:
    """The file that holds the label alone, if there is one; the slices of a series are none."""
    last = item.files[-1] if len(item.files) > 1 else None
    return None if last is None or suffix_of(last) in ("", *ARRAYS, *DICOM) else last


def ids_in(path: Path | None, target: TargetSpec) -> frozenset[int]:
    """The ids in a label's own file; none where it can't be read."""
    if path is None:
        return frozenset()
    try:
        label = read_label_case(path, geometry="affine", scaled=target.white_is_one).label
    except SegweaveError:
        return frozenset()
    return frozenset() if label is None else frozenset(np.unique(label).tolist())


def _same(first: Problem, other: Problem) -> bool:
    """Whether both are one fault: of one kind, or of one file where one of them is unspecific."""
    return first.kind == other.kind or (first.file == other.file and first.kind == "unsupported")


def _against_first(
    contents: list[tuple[Path, bool, Content]],
    item: Item,
    found_in: Survey,
    doubtful: set[Path | None],
) -> list[Problem]:
    """Sizes and positions of labels and further channels compared with the first image's. The
    `doubtful` files have headers that contradict themselves, so that their position is unknown.
    """
    problems = []
    image = next((c for _, label, c in contents if not label and c.image is not None), None)
    source = next((p for p, label, c in contents if not label and c.image is not None), None)
    if image is None or image.image is None or source is None:
        return []
    grid = _grid(image.image.shape)
    for path, label, content in contents:
        values = content.label if content.label is not None else content.image
        if values is None or (path == source and content.label is None):
            continue
        its_grid = _grid(values.shape)
        common: dict[str, Any] = {
            "severity": "error",
            "case": item.id,
            "file": path,
            "image": source if label else None,
        }
        if its_grid != grid:
            problems.append(
                Problem(
                    "size", found=_shape(its_grid), expected=f"the image's {_shape(grid)}", **common
                )
            )
            continue
        if image.affine is None or content.affine is None or not content.oriented:
            continue
        if {source, common["file"]} & doubtful:
            continue
        apart = farthest_apart(content.affine, image.affine, grid)
        if apart > NEAR * min(image.spacing or (1.0,)):
            problems.append(
                Problem(
                    "geometry",
                    found=f"corners up to {apart:.3g} mm away from the image's",
                    expected="the image's voxels",
                    **common,
                )
            )
    return problems


def _grid(shape: tuple[int, ...]) -> tuple[int, int, int]:
    return shape[0], shape[-2], shape[-1]


def _shape(grid: tuple[int, int, int]) -> str:
    return " × ".join(map(str, grid))


def majority(values: list[Any]) -> Any:
    """The most frequent value."""
    return Counter(values).most_common(1)[0][0]
