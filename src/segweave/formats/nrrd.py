"""Reads NRRD files, header and pixels in one file; SimpleITK reads the geometry in the header."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segweave.errors import InputError
from segweave.formats.content import Content, Request
from segweave.formats.guard import reading
from segweave.formats.meta import (
    check_axes,
    content_in_place,
    dtype_of,
    elsewhere,
    header_lines,
    library,
    not_a_header,
    read_pixels,
)
from segweave.formats.turned import LPS_TO_RAS

_NAMES = {
    "i1": "signed char, int8, int8_t",
    "u1": "uchar, unsigned char, uint8, uint8_t",
    "i2": "short, short int, signed short, signed short int, int16, int16_t",
    "u2": "ushort, unsigned short, unsigned short int, uint16, uint16_t",
    "i4": "int, signed int, int32, int32_t",
    "u4": "uint, unsigned int, uint32, uint32_t",
    "i8": "longlong, long long, long long int, signed long long, signed long long int, int64, "
    "int64_t",
    "u8": "ulonglong, unsigned long long, unsigned long long int, uint64, uint64_t",
    "f4": "float",
    "f8": "double",
}
_TYPES = {name: code for code, names in _NAMES.items() for name in names.split(", ")}
_PACKED = {"raw": "", "gzip": "gzip", "gz": "gzip"}
_PLACES = ("domain", "space", "time", "none", "???")
"""Kinds of axes along which pixels lie; any other is that of the components of a pixel."""


def read_nrrd(file: Path, request: Request) -> Content:
    """Read a .nrrd file of one 2D or 3D image, header and data in one file.

    Several components per pixel are channels, or overlapping classes of a label. Raises InputError
    for a truncated or damaged file, a size that the file cannot hold, data kept in another file, a
    time series, and pixels that aren't finite numbers; MissingExtraError without SimpleITK.
    """
    doing = request.doing
    sitk = library(doing)
    with reading(doing, file):
        lines, start = header_lines(file, doing, lambda line: not line.strip())
        text = _fields(lines, file, doing)
        dtype = dtype_of(text.get("type", "").lower(), _TYPES, doing, file)
        if dtype.itemsize > 1 and text.get("endian", "little").lower() == "big":
            dtype = dtype.newbyteorder(">")
        sizes = _sizes(text, file, doing)
        packed = text.get("encoding", "").lower()
        skips = [text.get(key, "0") for key in ("lineskip", "byteskip")]
        if packed not in _PACKED or skips != ["0", "0"]:
            raise InputError(
                doing,
                file=file,
                expected="pixels in encoding raw or gzip, at the end of the header",
                found=f"encoding {packed or 'unknown'}, line skip {skips[0]}, byte skip {skips[1]}",
                remedy="save it again as raw or gzip",
                kind="unsupported",
            )
        image = _information(sitk, file)
        size = tuple(int(n) for n in image.GetSize())
        check_axes(size, file, doing)
        across = _component_axis(text, len(sizes))
        parts = 1 if across is None else sizes[across]
        grid = tuple(n for k, n in enumerate(sizes) if k != across)
        if grid != size or parts != int(image.GetNumberOfComponents()):
            raise not_a_header(file, doing, f"sizes {sizes} for an image of {size}")
        values = read_pixels(file, start, dtype, sizes[::-1], _PACKED[packed], request)
        if across is None:
            values = values[..., None]
        else:
            values = np.moveaxis(values, len(sizes) - 1 - across, -1)
        used = (*size[:3], *(1,) * (3 - len(size)))
        affine = _affine(image)
    return content_in_place(
        values.reshape(*used[::-1], parts),
        affine,
        dimensions=len(size),
        oriented="spacedirections" in text,
        file=file,
        request=request,
    )


def _fields(lines: list[str], file: Path, doing: str) -> dict[str, str]:
    """Field in lower case and without blanks → its description."""
    if not lines[0].startswith("NRRD"):
        raise not_a_header(file, doing, "something else at its start")
    text: dict[str, str] = {}
    for line in lines[1:]:
        if line.startswith("#"):
            continue
        key, sign, value = line.partition(":")
        field = "".join(key.lower().split())
        if field.startswith("datafile"):
            raise elsewhere(file, doing)
        if not sign or value.startswith("="):
            continue
        if field in text:
            raise not_a_header(file, doing, f"{key[:60]} twice")
        text[field] = value.strip()
    return text


def _sizes(text: dict[str, str], file: Path, doing: str) -> tuple[int, ...]:
    words = text.get("sizes", "").split()
    good = words and all(word.isascii() and word.isdigit() and int(word) > 0 for word in words)
    if not good or text.get("dimension") != str(len(words)):
        raise not_a_header(
            file, doing, f"dimension {text.get('dimension', '')[:20]}, sizes {' '.join(words)[:60]}"
        )
    return tuple(int(word) for word in words)


def _component_axis(text: dict[str, str], axes: int) -> int | None:
    """The axis of the components of a pixel, None where a pixel has one."""
    kinds = text.get("kinds", "").lower().replace('"', "").split()
    found = [k for k, kind in enumerate(kinds[:axes]) if kind not in _PLACES]
    return found[0] if found else None


def _information(sitk: Any, file: Path) -> Any:
    """What the library reads in the header; the pixels stay where they are."""
    reader = sitk.ImageFileReader()
    reader.SetImageIO("NrrdImageIO")
    reader.SetFileName(str(file))
    reader.ReadImageInformation()
    return reader


def _affine(image: Any) -> NDArray[np.float64]:
    """(x, y, z, 1) → RAS+ mm; a 2D image has z = 0 and a thickness of 1 mm."""
    dimensions = int(image.GetDimension())
    used = min(3, dimensions)
    direction = np.asarray(image.GetDirection(), np.float64).reshape(dimensions, dimensions)
    lps = np.eye(4)
    lps[:used, :used] = direction[:used, :used] * np.asarray(image.GetSpacing()[:used])
    lps[:used, 3] = image.GetOrigin()[:used]
    return LPS_TO_RAS @ lps
