"""Unpacks the pixels of DICOM files, with pydicom's plug-ins, and makes values of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segweave.errors import InputError
from segweave.formats.dicom_file import read_data, reading_dicom
from segweave.formats.guard import check_finite
from segweave.formats.series import Slice

_PLUGINS = {
    "JPEG 2000": "pylibjpeg pylibjpeg-openjpeg",
    "High-Throughput JPEG 2000": "pylibjpeg pylibjpeg-openjpeg",
    "JPEG-LS": "pyjpegls",
    # The one under a free licence that also unpacks JPEG Lossless.
    "JPEG": "python-gdcm",
    "RLE": "pylibjpeg pylibjpeg-rle",
}
"""How the names of transfer syntaxes begin → what pip installs to unpack them."""

_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
"""What a message repeats of a header."""


def pixels_of(pydicom: Any, slices: Sequence[Slice], doing: str) -> list[NDArray[Any]]:
    """The values (rows, columns) or (rows, columns, 3) of each slice, rescaled as its header asks.

    Raises InputError for pixels that can't be unpacked; where a plug-in is missing, the message
    names it.
    """
    found: list[NDArray[Any] | None] = [None] * len(slices)
    # Neighbours may be frames of one file, which is read once.
    for file, group in groupby(enumerate(slices), key=lambda pair: pair[1].file):
        data = read_data(pydicom, file, doing)
        for number, values in _of_file(pydicom, data, file, list(group), doing):
            found[number] = values
    return [values for values in found if values is not None]


def _of_file(
    pydicom: Any, data: Any, file: Path, slices: Sequence[tuple[int, Slice]], doing: str
) -> Iterator[tuple[int, NDArray[Any]]]:
    with reading_dicom(doing, file):
        if "PixelData" not in data:
            raise InputError(doing, file=file, expected="pixels", found="none", kind="damaged")
        values = _unpacked(pydicom, data, file, doing)
        kind = str(data.get("PhotometricInterpretation", ""))
        if kind == "PALETTE COLOR":
            raise InputError(
                doing, file=file, expected="grey or RGB", found="a palette", kind="unsupported"
            )
        classic = (
            float(data.get("RescaleSlope", 1) or 1),
            float(data.get("RescaleIntercept", 0) or 0),
        )
        several = int(data.get("NumberOfFrames", 1) or 1) > 1
        for number, one in slices:
            plane = values[one.frame] if several else values
            if kind == "MONOCHROME1":
                # Low values are bright: turned round, so that brighter means more, as elsewhere.
                low, high = _range(data)
                plane = (low + high - plane.astype(np.int32)).astype(np.int32)
            yield number, _rescaled(plane, one.scale or classic, file, doing)


def _unpacked(pydicom: Any, data: Any, file: Path, doing: str) -> NDArray[Any]:
    syntax = data.file_meta.get("TransferSyntaxUID")
    if syntax is not None and syntax.is_compressed:
        _check_plugin(pydicom, syntax, file, doing)
    try:
        return np.asarray(data.pixel_array)
    except (RuntimeError, NotImplementedError, AttributeError, ValueError) as error:
        damaged = isinstance(error, ValueError)
        lines = str(error).strip().splitlines() or ["no message"]
        raise InputError(
            doing,
            file=file,
            expected="pixels that can be unpacked",
            found=_QUOTED.sub("...", lines[0])[:160],
            remedy="the file may be truncated: copy it again"
            if damaged
            else "decompress the series first (for instance with dcmdjpeg or dcm2niix)",
            kind="damaged" if damaged else "unsupported",
        ) from error


def _check_plugin(pydicom: Any, syntax: Any, file: Path, doing: str) -> None:
    """Raise InputError where no plug-in unpacks this transfer syntax."""
    try:
        available = pydicom.pixels.get_decoder(syntax).is_available
    except NotImplementedError:
        available = False
    if available:
        return
    name = str(syntax.name) if syntax.name != syntax else "a compression of no known name"
    plugin = next((p for start, p in _PLUGINS.items() if name.startswith(start)), None)
    raise InputError(
        doing,
        file=file,
        expected="a compression that can be unpacked here",
        found=f"{name}, for which no plug-in of pydicom is installed",
        remedy=(f"pip install {plugin}; or " if plugin else "")
        + "decompress the series first (for instance with dcmdjpeg or dcm2niix)",
        kind="unsupported",
    )


def _rescaled(
    values: NDArray[Any], scale: tuple[float, float], file: Path, doing: str
) -> NDArray[Any]:
    slope, intercept = scale
    if not np.isfinite([slope, intercept]).all():
        raise InputError(
            doing,
            file=file,
            expected="a finite rescale slope",
            found=f"{slope}, {intercept}",
            kind="damaged",
        )
    if (slope, intercept) == (1.0, 0.0):
        return values
    if slope.is_integer() and intercept.is_integer() and max(abs(slope), abs(intercept)) < 2**15:
        scaled = values.astype(np.int64) * int(slope) + int(intercept)
        fits = np.iinfo(np.int16)
        small = scaled.size == 0 or (scaled.min() >= fits.min and scaled.max() <= fits.max)
        return scaled.astype(np.int16 if small else np.int32)
    with np.errstate(over="ignore"):
        rescaled = (values * slope + intercept).astype(np.float32)
    check_finite(rescaled, doing, file)
    return rescaled


def _range(data: Any) -> tuple[int, int]:
    bits = int(data.get("BitsStored", data.BitsAllocated))
    if int(data.get("PixelRepresentation", 0)):
        return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    return 0, 2**bits - 1
