"""Checks that every reader makes before and after it touches a file's data, and the reading of
compressed data piece by piece, so that no file unfolds to more than was asked for.
"""

from __future__ import annotations

import math
import os
import stat
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import IO, Any

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
_BLOCK = 1 << 16
_PIECE = 1 << 20
_MEMBERS = 1000
_LEAST_OF_A_MEMBER = 256
"""Programs that write many gzip members fill each with kilobytes; a million empty ones take time
and hold nothing."""
_GZIP_MAGIC = b"\x1f\x8b"


_limit: ContextVar[int | None] = ContextVar("largest bytes", default=None)
_ratio: ContextVar[int | None] = ContextVar("largest ratio of compression", default=None)


def largest_bytes() -> int:
    """How much decoded data one file may hold: 8 GiB, or SEGWEAVE_LARGEST_GIB, or less inside
    `at_most`.
    """
    usual = int(float(os.environ.get("SEGWEAVE_LARGEST_GIB", "8")) * 2**30)
    limit = _limit.get()
    return usual if limit is None else min(usual, limit)


class TooLargeError(InputError):
    """A file in order that holds, or unfolds to, more than is allowed."""


@contextmanager
def at_most(limit: int, *, ratio: int | None = None) -> Iterator[None]:
    """Refuse files that hold more than `limit` bytes of decoded data, and compressed data that
    unfold to more than `ratio` times their size (`LARGEST_RATIO` unless given), while this lasts.
    """
    before = _limit.set(limit), _ratio.set(ratio)
    try:
        yield
    finally:
        _limit.reset(before[0])
        _ratio.reset(before[1])


def may_unfold(stored: int, *, as_label: bool = False) -> int:
    """To how many bytes `stored` compressed bytes may unfold."""
    least = _ANY_RATIO_OF_LABELS if as_label else _ANY_RATIO
    ratio = _ratio.get()
    return max(least, stored * (LARGEST_RATIO if ratio is None else ratio))


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
def reading(doing: str, file: Path, *, quote: bool = True) -> Iterator[None]:
    """Turn whatever a library raises on a damaged file into one InputError. Its words are left out
    unless `quote`: they may repeat what is in the file.
    """
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
        name = type(error).__name__
        raise InputError(
            doing,
            file=file,
            expected="a complete, undamaged file",
            found=f"{name}: {first}" if quote else f"a value that can't be read ({name})",
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
        raise TooLargeError(
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
    if declared > may_unfold(stored, as_label=as_label):
        raise TooLargeError(
            doing,
            file=file,
            expected="compressed data that unfold to at most "
            f"{LARGEST_RATIO if _ratio.get() is None else _ratio.get()} times their size",
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


class Unpacked:
    """What a gzip stream (of any number of members), or a zlib stream, holds.

    It reads as a file does, forwards only. Raises zlib.error for damaged data, EOFError for data
    that end too early: both where checksums are compared, so that reading one byte beyond what is
    wanted compares them.
    """

    def __init__(self, stream: IO[bytes], *, form: str = "gzip") -> None:
        """Start at the stream's position; `form` is "gzip", "zlib" or "deflate" (bare)."""
        self._stream = stream
        self._gzip = form == "gzip"
        self._bits = {"gzip": 31, "zlib": 15, "deflate": -15}[form]
        self._unpacker = zlib.decompressobj(self._bits)
        self._block = b""
        self._more = False
        self._ended = False
        self._members = 1
        self._made = 0

    def __enter__(self) -> Unpacked:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def read(self, count: int) -> bytes:
        """The next `count` bytes, fewer at the end."""
        buffer = bytearray(count)
        return bytes(buffer[: self.readinto(memoryview(buffer))])

    def readinto(self, buffer: memoryview) -> int:
        """Fill the buffer; returns how many bytes there were."""
        done = 0
        while done < len(buffer) and (piece := self._next(min(_PIECE, len(buffer) - done))):
            buffer[done : done + len(piece)] = piece
            done += len(piece)
        return done

    def skip(self, count: int) -> int:
        """Pass over `count` bytes, keeping none; returns how many there were."""
        done = 0
        while done < count and (piece := self._next(min(_PIECE, count - done))):
            done += len(piece)
        return done

    def _next(self, most: int) -> bytes:
        while not self._ended:
            if self._unpacker.eof:
                self._next_member()
                continue
            if not self._block and not self._more:
                self._block = self._stream.read(_BLOCK)
                if not self._block:
                    raise EOFError("the compressed data end before their end mark")
            piece = self._unpacker.decompress(self._block, most)
            self._more = len(piece) == most
            self._block = self._unpacker.unconsumed_tail
            if self._unpacker.eof:
                self._block, self._more = self._unpacker.unused_data, False
            if piece:
                self._made += len(piece)
                return piece
        return b""

    def _next_member(self) -> None:
        """Go on to the next member of a gzip file; zeros may pad the end of one."""
        self._block = self._block.lstrip(b"\0") if self._gzip else b""
        while self._gzip and len(self._block) < 2 and (more := self._stream.read(_BLOCK)):
            self._block = (self._block + more).lstrip(b"\0")
        if not self._block:
            self._ended = True
            return
        self._members += 1
        if self._block[:2] != _GZIP_MAGIC:
            raise zlib.error("something else after the end of the compressed data")
        if self._members > _MEMBERS and self._made < self._members * _LEAST_OF_A_MEMBER:
            raise zlib.error(f"more than {_MEMBERS} compressed members that hold next to nothing")
        self._unpacker = zlib.decompressobj(self._bits)


def read_into(stream: Any, size: int) -> NDArray[np.uint8]:
    """The next `size` bytes of a file or of `Unpacked`, fewer at the end. Memory is taken as
    they come, not by what a header declares.
    """
    buffer = np.empty(size, np.uint8)
    view, done = memoryview(buffer.data), 0
    while done < size and (count := stream.readinto(view[done : done + (1 << 22)])):
        done += count
    return buffer[:done]
