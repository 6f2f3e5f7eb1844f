"""What MHA and NRRD share: a header of text before the pixels, in one file; writes label maps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segweave.data.case import Case, spacing_of
from segweave.data.specs import TargetSpec
from segweave.errors import InputError, MissingExtraError
from segweave.formats.content import Content, Request
from segweave.formats.guard import (
    Unpacked,
    check_affine,
    check_declared,
    check_deflated,
    check_finite,
    declared_bytes,
    read_into,
)
from segweave.formats.turned import LPS_TO_RAS, turned_content
from segweave.storage import atomic_write

_HEADER = 1 << 20
"""A header is text at the start of the file; longer ones are refused."""


def library(doing: str) -> Any:
    """SimpleITK, without its own messages; raises MissingExtraError where it is not installed."""
    try:
        import SimpleITK
    except ImportError as error:
        raise MissingExtraError(doing, library="SimpleITK", extra="formats") from error
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    return SimpleITK


def header_lines(file: Path, doing: str, last: Callable[[str], bool]) -> tuple[list[str], int]:
    """The lines of a header up to the first that is the `last`, and where the pixels begin.

    Raises InputError for a header without an end, and for control characters in it: programs
    disagree about where such a line ends, so that one of them would read something else.
    """
    with file.open("rb") as stream:
        head = stream.read(_HEADER)
    lines: list[str] = []
    at = 0
    while (end := head.find(b"\n", at)) >= 0:
        line = head[at:end].removesuffix(b"\r").decode("utf-8", "replace")
        at = end + 1
        if any(letter < " " and letter != "\t" for letter in line):
            raise not_a_header(file, doing, "control characters in it")
        lines.append(line)
        if last(line):
            return lines, at
    raise not_a_header(file, doing, f"no end of one within {_HEADER >> 20} MiB")


def not_a_header(file: Path, doing: str, found: str) -> InputError:
    """The error for what can't be the header of such a file."""
    return InputError(
        doing,
        file=file,
        expected=f"the header of an {file.suffix} file",
        found=found,
        remedy="copy or download it again",
        kind="damaged",
    )


def elsewhere(file: Path, doing: str) -> InputError:
    """The error for pixels that are not in the file itself."""
    return InputError(
        doing,
        file=file,
        expected="header and pixels in one file",
        found="pixels in another file",
        remedy="save it as one .mha, .nrrd or .nii.gz file",
        kind="unsupported",
    )


def check_axes(sizes: tuple[int, ...], file: Path, doing: str) -> None:
    """Raise InputError unless these are the axes of one image: two or three, and others of 1."""
    if len(sizes) < 2 or any(n != 1 for n in sizes[3:]):
        raise InputError(
            doing,
            file=file,
            expected="one image of two or three axes",
            found=f"{len(sizes)} axes of {' × '.join(map(str, sizes))}",
            remedy="save each frame as a separate file",
            kind="unsupported",
        )


def read_pixels(
    file: Path,
    start: int,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    packed: str,
    request: Request,
) -> NDArray[Any]:
    """The pixels from byte `start` on, last axis first in `shape`; `packed` is "", "gzip" or
    "zlib". Raises InputError where the file can't hold them.
    """
    doing = request.doing
    declared = declared_bytes(shape, dtype.itemsize)
    stored = max(0, file.stat().st_size - start)
    if packed:
        check_deflated(declared, stored, doing, file, as_label=request.as_label)
    else:
        check_declared(declared, stored, doing, file)
    with file.open("rb") as plain:
        plain.seek(start)
        stream = Unpacked(plain, form=packed) if packed else plain
        raw = read_into(stream, declared)
        # One more byte makes the unpacker compare its checksum.
        more = stream.read(1) if packed else b""
    if raw.size < declared or more:
        raise InputError(
            doing,
            file=file,
            expected=f"{declared} bytes of pixels",
            found=f"{raw.size} bytes" + (" and more" if more else ""),
            remedy="the file is damaged; copy or download it again",
            kind="damaged",
        )
    values: NDArray[Any] = raw.view(dtype).reshape(shape)
    return values.astype(dtype.newbyteorder("="), copy=False)


def content_in_place(
    values: NDArray[Any],
    affine: NDArray[np.float64],
    *,
    dimensions: int,
    oriented: bool,
    file: Path,
    request: Request,
) -> Content:
    """The content of pixels (z, y, x, parts), whose `affine` leads from (x, y, z, 1) to RAS+ mm;
    `dimensions` is the number of the file's own axes.
    """
    check_affine(affine, request.doing, file)
    on_file = values.transpose(2, 1, 0, 3)
    on_file = on_file[..., 0] if on_file.shape[3] == 1 else on_file
    check_finite(on_file, request.doing, file)
    return turned_content(
        on_file,
        affine,
        as_label=request.as_label,
        single=dimensions == 2,
        oriented=oriented,
    )


def dtype_of(name: str, names: Mapping[str, str], doing: str, file: Path) -> np.dtype[Any]:
    """The type of the pixels that a header calls `name`; raises InputError for another."""
    if name not in names:
        raise InputError(
            doing,
            file=file,
            expected="pixels that are plain numbers",
            found=repr(name[:40]),
            kind="unsupported",
        )
    return np.dtype(names[name])


def write_meta(
    labels: NDArray[np.uint8], case: Case, path: Path, target: TargetSpec | None = None
) -> None:
    """Write a label map (slices, height, width) in the case's geometry as .mha or .nrrd."""
    doing = "writing a label map"
    sitk = library(doing)
    if case.source_grid is None or case.affine is None:
        raise InputError(
            doing,
            file=path,
            expected="a case with a geometry",
            found=f"the case {case.id!r} without one",
            remedy="write it as .npz",
            kind="unsupported",
        )
    grid = case.source_grid
    turn = np.zeros((4, 4))
    turn[3, 3] = 1.0
    for column, (axis, flip) in enumerate(zip(grid.axes, grid.flips, strict=True)):
        turn[column, axis] = -1.0 if flip else 1.0
        turn[column, 3] = grid.shape[axis] - 1 if flip else 0.0
    lps = LPS_TO_RAS @ case.affine @ turn
    spacing = spacing_of(lps)
    image = sitk.GetImageFromArray(np.ascontiguousarray(grid.to_file(labels).transpose(2, 1, 0)))
    image.SetSpacing(spacing)
    image.SetDirection((lps[:3, :3] / np.asarray(spacing)).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    with atomic_write(path) as temporary:
        sitk.WriteImage(image, str(temporary), True)
