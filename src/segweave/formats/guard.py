"""Checks that every reader makes before and after it touches a file's data."""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segweave.errors import InputError, SegweaveError

DEFLATE_LIMIT = 1040
"""Deflate (gzip, zip, PNG) cannot shrink data by more than about 1032 to 1."""
LARGEST_RATIO = 200
"""Compressed data that unfold to more than this many times their size are refused: images are far
below it, and a small file could fill the memory."""
WHOLE = 1e-3
"""How far a label's value may be from a whole number: floats are rounded."""
_ANY_RATIO = 1 << 26
_ANY_RATIO_OF_LABELS = 1 << 29
"""Below these bytes any ratio is allowed. A label map is mostly background: one voxel in 512 × 512
× 1000 shrinks by 1000 to 1."""
STEPS = (1e-9, 1e9)
"""Millimetres between voxels: electron microscopes and the Earth are in between."""


_limit: ContextVar[int | None] = ContextVar("largest bytes", default=None)


def largest_bytes() -> int:
    """How much decoded data one file may hold: 8 GiB, or SEGWEAVE_LARGEST_GIB, or less inside
    `at_most`.
    """
    usual = int(float(os.environ.get("SEGWEAVE_LARGEST_GIB", "8")) * 2**30)
    limit = _limit.get()
    return usual if limit is None else min(usual, limit)


@contextmanager
def at_most(limit: int) -> Iterator[None]:
    """Refuse files that hold more than `limit` bytes of decoded data while this lasts."""
    before = _limit.set(limit)
    try:
        yield
    finally:
        _limit.reset(before)


def readable_size(count: float) -> str:
    """A number of bytes as people write it."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.4g} {unit}"
        count /= 1024
    return f"{count:.4g} TiB"


def check_file(path: str | Path, doing: str) -> Path:
    """The path of a file that can be opened; raises InputError where it can't be, or is empty."""
    file = Path(path)
    if file.is_dir():
        raise InputError(doing, file=file, expected="a file", found="a folder", kind="layout")
    if not file.exists():
        raise InputError(
            doing,
            file=file,
            expected="a file",
            found="nothing there",
            remedy="check the path",
            kind="missing",
        )
    if not stat.S_ISREG(file.stat().st_mode):
        raise InputError(
            doing,
            file=file,
            expected="a regular file",
            found="a pipe, socket or device",
            remedy="save its content as a file",
            kind="unsupported",
        )
    try:
        with file.open("rb") as stream:
            empty = not stream.read(1)
    except OSError as error:
        raise InputError(
            doing,
            file=file,
            expected="a file that may be read",
            found=error.strerror or type(error).__name__,
            remedy="check its permissions",
            kind="damaged",
        ) from error
    if empty:
        raise InputError(
            doing, file=file, expected="a file with content", found="0 bytes", kind="damaged"
        )
    return file


@contextmanager
def reading(doing: str, file: Path) -> Iterator[None]:
    """Turn whatever a library raises on a damaged file into one InputError."""
    try:
        yield
    except SegweaveError:
        raise
    except MemoryError as error:
        raise InputError(
            doing,
            file=file,
            expected="data that fit into memory",
            found="not enough memory",
            kind="unsupported",
        ) from error
    except Exception as error:
        first = (str(error).strip() or "no message").splitlines()[0][:200]
        raise InputError(
            doing,
            file=file,
            expected="a complete, undamaged file",
            found=f"{type(error).__name__}: {first}",
            remedy="copy or download it again",
            kind="damaged",
        ) from error


def declared_bytes(shape: Iterable[int], itemsize: int) -> int:
    """Bytes that an array of this shape takes, as an exact integer."""
    return math.prod(int(n) for n in shape) * int(itemsize)


def check_declared(declared: int, available: int, doing: str, file: Path) -> None:
    """Raise InputError where a header claims more data than its file can hold or than is allowed.

    `declared` and `available` (the most that the stored bytes can unfold to) are in bytes.
    """
    if declared > available:
        raise InputError(
            doing,
            file=file,
            expected=f"the {readable_size(declared)} of data that its header declares",
            found=f"a file that can hold at most {readable_size(available)} of it",
            remedy="the file is truncated or its header is wrong; copy or download it again",
            kind="damaged",
        )
    if declared > largest_bytes():
        raise InputError(
            doing,
            file=file,
            expected=f"at most {readable_size(largest_bytes())} of data in one file",
            found=f"a header that declares {readable_size(declared)}",
            remedy="crop or split it, or raise the limit with SEGWEAVE_LARGEST_GIB",
            kind="unsupported",
        )


def check_unfolded(
    declared: int, stored: int, doing: str, file: Path, *, as_label: bool = False
) -> None:
    """Raise InputError where `stored` compressed bytes would unfold to more than images of that
    size do, which fill the memory from a small file.
    """
    allowed = _ANY_RATIO_OF_LABELS if as_label else _ANY_RATIO
    if declared > max(allowed, stored * LARGEST_RATIO):
        raise InputError(
            doing,
            file=file,
            expected=f"compressed data that unfold to at most {LARGEST_RATIO} times their size",
            found=f"{readable_size(declared)} declared from {readable_size(stored)}",
            remedy="the file is damaged or malicious; if it is right, save it without compression",
            kind="damaged",
        )
    check_declared(declared, declared, doing, file)


def check_deflated(
    declared: int, stored: int, doing: str, file: Path, *, as_label: bool = False
) -> None:
    """The same for data that deflate (gzip, zip, PNG) packed: they can't unfold to everything."""
    check_declared(declared, stored * DEFLATE_LIMIT, doing, file)
    check_unfolded(declared, stored, doing, file, as_label=as_label)


def check_affine(affine: NDArray[Any], doing: str, file: Path) -> None:
    """Raise InputError unless a 4×4 affine in mm is finite, can be inverted, and has steps and an
    origin that can be of an image.
    """
    steps = np.linalg.norm(affine[:3, :3], axis=0)
    good = np.isfinite(affine).all() and STEPS[0] <= steps.min() and steps.max() <= STEPS[1]
    if good:
        volume = abs(float(np.linalg.det(affine[:3, :3] / steps)))
        good = volume > 1e-6 and float(np.abs(affine[:3, 3]).max()) <= STEPS[1]
    if not good:
        raise InputError(
            doing,
            file=file,
            expected=f"three directions and an origin in mm, steps of {STEPS[0]:g} to "
            f"{STEPS[1]:g} mm",
            found="steps of {} mm, origin {}".format(
                " × ".join(f"{step:g}" for step in steps),
                ", ".join(f"{value:g}" for value in affine[:3, 3]),
            ),
            remedy="repair the header",
            kind="damaged",
        )


def check_numeric(dtype: np.dtype[Any], doing: str, file: Path) -> None:
    """Raise InputError for pixels that aren't plain integers, floats or booleans."""
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise InputError(
            doing,
            file=file,
            expected="integer or floating-point pixels of at most 8 bytes",
            found=f"pixels of type {dtype}",
            remedy="convert it to one of uint8, int16, uint16, float32",
            kind="unsupported",
        )


def check_finite(image: NDArray[Any], doing: str, file: Path | None) -> None:
    """Raise InputError that counts NaN and infinite pixels and names the first one's index."""
    if image.dtype.kind != "f":
        return
    finite = np.isfinite(image)
    if finite.all():
        return
    bad = int(image.size - np.count_nonzero(finite))
    nans = int(np.count_nonzero(np.isnan(image)))
    first = tuple(int(i) for i in np.unravel_index(int(np.argmin(finite)), image.shape))
    raise InputError(
        doing,
        file=file,
        expected="finite pixel values",
        found=f"{nans} NaN and {bad - nans} infinite of {image.size} pixels, the first at index "
        f"{first} of {image.shape} on the file's own axes",
        remedy="replace them with a meaningful value, for instance the background's",
        kind="values",
    )


def as_label(values: NDArray[Any], doing: str, file: Path | None) -> NDArray[np.uint8]:
    """Label values of any dtype → uint8. Raises InputError unless all are integers in 0..255."""
    if values.dtype.kind == "f":
        check_finite(values, doing, file)
        broken = np.abs(values - np.rint(values)) > WHOLE
        if broken.any():
            raise InputError(
                doing,
                file=file,
                expected="a label map of integers",
                found=f"{int(broken.sum())} other values, the first {float(values[broken][0])!r}",
                remedy="check that this is a label map, resampled with nearest neighbour",
                kind="labels",
            )
        values = np.rint(values)
    if values.dtype.kind != "b" and values.size:
        low, high = values.min(), values.max()
        if low < 0 or high > 255:
            raise InputError(
                doing,
                file=file,
                expected="class ids from 0 to 255",
                found=f"{np.unique(values).size} different values from {low:g} to {high:g}",
                remedy="give its classes the ids 1, 2, 3, ...; if it is a grey mask, give a "
                "threshold (--mask-threshold)",
                kind="labels",
            )
    return values.astype(np.uint8)
