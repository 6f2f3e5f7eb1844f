"""Reads MHA files: MetaImage, header and pixels in one file."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segweave.formats.content import Content, Request
from segweave.formats.guard import check_declared, reading
from segweave.formats.meta import (
    check_axes,
    content_in_place,
    dtype_of,
    elsewhere,
    header_lines,
    not_a_header,
    read_pixels,
)
from segweave.formats.turned import LPS_TO_RAS

_TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4",
    "MET_UINT": "u4", "MET_LONG": "i4", "MET_ULONG": "u4", "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4", "MET_DOUBLE": "f8",
}  # fmt: skip
_LAST = "elementdatafile"
_FIELD = re.compile(r"\s*([^=:]*[^=:\s])\s*=(.*)")
_STEPS = ("elementspacing", "elementsize")
_ORIGIN = ("offset", "position", "origin")
_DIRECTIONS = ("transformmatrix", "rotation", "orientation")
_MOST_AXES = 8


def read_mha(file: Path, request: Request) -> Content:
    """Read an .mha file of one 2D or 3D image.

    Several components per pixel are channels, or overlapping classes of a label. Raises InputError
    for a truncated or damaged file, compressed data that are damaged, a size that the file cannot
    hold, data kept in another file, a time series, and pixels that aren't finite numbers.
    """
    doing = request.doing
    with reading(doing, file):
        lines, start = header_lines(file, doing, lambda line: _key(line) == _LAST)
        text = _fields(lines, file, doing)
        axes = _whole(text, ("ndims",), 1, file, doing)[0]
        if not 1 <= axes <= _MOST_AXES:
            raise not_a_header(file, doing, f"NDims = {axes}")
        sizes = _whole(text, ("dimsize",), axes, file, doing)
        check_axes(sizes, file, doing)
        parts = _whole(text, ("elementnumberofchannels",), 1, file, doing, (1,))[0]
        if min(*sizes, parts) < 1:
            raise not_a_header(file, doing, f"sizes {sizes} of {parts} channels")
        dtype = dtype_of(text.get("elementtype", ""), _TYPES, doing, file)
        high_first = ("elementbyteordermsb", "binarydatabyteordermsb")
        if any(_flag(text.get(key, "false"), file, doing) for key in high_first):
            dtype = dtype.newbyteorder(">")
        packed = _flag(text.get("compresseddata", "false"), file, doing)
        size = text.get("compresseddatasize", "0")
        if packed and not (size.isascii() and size.isdigit()):
            raise not_a_header(file, doing, f"CompressedDataSize = {size[:40]}")
        if packed:
            check_declared(int(size), file.stat().st_size - start, doing, file)
        used = (*sizes[:3], *(1,) * (3 - len(sizes)))
        values = read_pixels(
            file, start, dtype, (*used[::-1], parts), "zlib" if packed else "", request
        )
        affine = _affine(text, axes, file, doing)
    return content_in_place(
        values,
        affine,
        dimensions=axes,
        oriented=any(key in text for key in _DIRECTIONS),
        file=file,
        request=request,
    )


def _key(line: str) -> str:
    """The word at the start of a line, whatever is behind it."""
    return re.split(r"[\s=:]", line.strip(), maxsplit=1)[0].lower()


def _fields(lines: list[str], file: Path, doing: str) -> dict[str, str]:
    """Key in lower case → value. Raises InputError for lines that programs read differently."""
    text: dict[str, str] = {}
    for line in lines:
        field = _FIELD.fullmatch(line)
        if field is None and _key(line) == _LAST:
            raise elsewhere(file, doing)
        if field is None:
            if line.strip():
                raise not_a_header(file, doing, f"the line {line.strip()[:60]!r}")
            continue
        key = field[1].lower()
        if key in text and key != "comment":
            raise not_a_header(file, doing, f"{field[1][:60]} twice")
        text[key] = field[2].strip()
    if text.get("objecttype", "Image").lower() != "image":
        raise not_a_header(file, doing, f"ObjectType = {text['objecttype'][:60]}")
    if text.get(_LAST, "").lower() != "local":
        raise elsewhere(file, doing)
    if not _flag(text.get("binarydata", "true"), file, doing):
        raise not_a_header(file, doing, "pixels as text")
    if text.get("headersize", "0") != "0":
        raise not_a_header(file, doing, f"HeaderSize = {text['headersize'][:20]}")
    return text


def _flag(value: str, file: Path, doing: str) -> bool:
    if value.lower() not in ("true", "false", "1", "0"):
        raise not_a_header(file, doing, f"{value[:40]!r} instead of True or False")
    return value.lower() in ("true", "1")


def _whole(
    text: dict[str, str],
    keys: tuple[str, ...],
    count: int,
    file: Path,
    doing: str,
    otherwise: tuple[int, ...] | None = None,
) -> tuple[int, ...]:
    values = _numbers(text, keys, count, file, doing, otherwise)
    if any(value != int(value) for value in values):
        raise not_a_header(file, doing, f"{keys[0]} of {values}")
    return tuple(int(value) for value in values)


def _numbers(
    text: dict[str, str],
    keys: tuple[str, ...],
    count: int,
    file: Path,
    doing: str,
    otherwise: tuple[float, ...] | None = None,
) -> tuple[float, ...]:
    """The `count` numbers behind the first of `keys` that is there."""
    key = next((key for key in keys if key in text), None)
    if key is None and otherwise is not None:
        return otherwise
    words = text[key].split() if key is not None else []
    try:
        values = tuple(float(word) for word in words)
    except ValueError:
        values = ()
    if len(values) != count or not all(math.isfinite(value) for value in values):
        raise not_a_header(file, doing, f"{keys[0]} of {' '.join(words)[:60] or 'nothing'}")
    return values


def _affine(text: dict[str, str], axes: int, file: Path, doing: str) -> NDArray[np.float64]:
    """(x, y, z, 1) → RAS+ mm; a 2D image has z = 0 and a thickness of 1 mm."""
    used = min(3, axes)
    unit = tuple(np.eye(axes).ravel())
    steps = _numbers(text, _STEPS, axes, file, doing, (1.0,) * axes)
    origin = _numbers(text, _ORIGIN, axes, file, doing, (0.0,) * axes)
    # The file lists the direction of one axis after the other.
    turn = np.array(_numbers(text, _DIRECTIONS, axes * axes, file, doing, unit)).reshape(axes, axes)
    lps = np.eye(4)
    lps[:used, :used] = turn.T[:used, :used] * np.array(steps[:used])
    lps[:used, 3] = origin[:used]
    return LPS_TO_RAS @ lps
