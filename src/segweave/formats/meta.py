"""Reads and writes MHA and NRRD files with SimpleITK."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segweave.data.case import Case
from segweave.data.geometry import spacing_of
from segweave.data.specs import TargetSpec
from segweave.errors import InputError, MissingExtraError
from segweave.formats.content import Content, Request
from segweave.formats.guard import (
    DEFLATE_LIMIT,
    check_declared,
    check_finite,
    check_numeric,
    declared_bytes,
    reading,
)
from segweave.formats.turned import LPS_TO_RAS, turned_content
from segweave.storage import atomic_write

_HEADER = 1 << 16
"""A header is text at the start of the file; longer ones are refused."""


def _library(doing: str) -> Any:
    try:
        import SimpleITK
    except ImportError as error:
        raise MissingExtraError(doing, library="SimpleITK", extra="formats") from error
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    return SimpleITK


def read_meta(file: Path, request: Request) -> Content:
    """Read an .mha or .nrrd file of one 2D or 3D image, header and data in one file.

    Several components per pixel are channels, or overlapping classes of a label. Raises InputError
    for a truncated or damaged file, a size that the file cannot hold, data kept in another file, a
    time series, and pixels that aren't finite numbers; MissingExtraError without SimpleITK.
    """
    doing = request.doing
    sitk = _library(doing)
    with reading(doing, file):
        start, facts = _facts(file, doing)
        reader = sitk.ImageFileReader()
        reader.SetImageIO("NrrdImageIO" if file.suffix.lower() == ".nrrd" else "MetaImageIO")
        reader.SetFileName(str(file))
        reader.ReadImageInformation()
        size = tuple(int(n) for n in reader.GetSize())
        extra = [n for n in size[3:] if n != 1]
        if len(size) < 2 or extra:
            raise InputError(
                doing,
                file=file,
                expected="one image of two or three axes",
                found=f"{len(size)} axes of {' × '.join(map(str, size))}",
                remedy="save each frame as a separate file",
                kind="unsupported",
            )
        name = sitk.GetPixelIDValueAsString(reader.GetPixelID()).lower()
        dtype = _dtype(name, doing, file)
        parts = int(reader.GetNumberOfComponents())
        stored = max(0, file.stat().st_size - start)
        check_declared(facts["compressed"], stored, doing, file)
        declared = declared_bytes((*size, parts), dtype.itemsize)
        check_declared(declared, stored * DEFLATE_LIMIT if facts["packed"] else stored, doing, file)
        image = reader.Execute()
        values: NDArray[Any] = sitk.GetArrayFromImage(image)
        affine = _affine(image)
    check_numeric(values.dtype, doing, file)
    turned = _on_file_axes(values, len(size), parts)
    check_finite(turned, doing, file)
    if not np.isfinite(affine).all() or min(spacing_of(affine)) <= 0:
        raise InputError(
            doing,
            file=file,
            expected="a geometry with positive spacing",
            found=str(affine),
            kind="damaged",
        )
    return turned_content(
        turned,
        affine,
        as_label=request.as_label,
        single=len(size) == 2,
        oriented=bool(facts["oriented"]),
    )


def _facts(file: Path, doing: str) -> tuple[int, dict[str, int]]:
    """Where the text of the header ends, and what of it decides how the rest is read: whether it is
    packed and names its orientation, and how many packed bytes it declares.
    """
    with file.open("rb") as stream:
        head = stream.read(_HEADER)
    nrrd = file.suffix.lower() == ".nrrd"
    if nrrd != head.startswith(b"NRRD"):
        raise InputError(
            doing,
            file=file,
            expected=f"the header of an {file.suffix} file",
            found="something else at its start",
            kind="damaged",
        )
    end, text = 0, {}
    for line in head.split(b"\n"):
        end += len(line) + 1
        key, sign, value = line.decode("latin-1").partition(":" if nrrd else "=")
        if nrrd and not line.strip():
            break
        if sign:
            text[key.strip().lower()] = value.strip(" =\t\r").lower()
        if not nrrd and key.strip().lower() == "elementdatafile":
            break
    else:
        raise InputError(
            doing,
            file=file,
            expected=f"the header of an {file.suffix} file, of at most 64 KiB",
            found="no end of one",
            kind="damaged",
        )
    apart = text.get("data file") or text.get("datafile") if nrrd else text.get("elementdatafile")
    if apart and (nrrd or apart != "local"):
        raise InputError(
            doing,
            file=file,
            expected="header and pixels in one file",
            found="pixels in another file",
            remedy="save it as one .mha, .nrrd or .nii.gz file",
            kind="unsupported",
        )
    if nrrd:
        raw = text.get("encoding", "raw") == "raw"
        return end, {"packed": not raw, "oriented": "space directions" in text, "compressed": 0}
    packed = text.get("compresseddata", "false") == "true"
    turned = {"transformmatrix", "rotation", "orientation"} & set(text)
    size = text.get("compresseddatasize", "0")
    declared = int(size) if size.isdigit() and packed else 0
    return end, {"packed": packed, "oriented": bool(turned), "compressed": declared}


def _dtype(name: str, doing: str, file: Path) -> np.dtype[Any]:
    for kind in ("8-bit", "16-bit", "32-bit", "64-bit"):
        if kind in name and "complex" not in name:
            sign = "f" if "float" in name else ("u" if "unsigned" in name else "i")
            return np.dtype(f"{sign}{int(kind[:-4]) // 8}")
    raise InputError(
        doing, file=file, expected="pixels that are plain numbers", found=name, kind="unsupported"
    )


def _affine(image: Any) -> NDArray[np.float64]:
    """(x, y, z, 1) → RAS+ mm; a 2D image has z = 0 and a thickness of 1 mm."""
    dimensions = int(image.GetDimension())
    used = min(3, dimensions)
    direction = np.asarray(image.GetDirection(), np.float64).reshape(dimensions, dimensions)
    lps = np.eye(4)
    lps[:used, :used] = direction[:used, :used] * np.asarray(image.GetSpacing()[:used])
    lps[:used, 3] = image.GetOrigin()[:used]
    return LPS_TO_RAS @ lps


def _on_file_axes(values: NDArray[Any], dimensions: int, parts: int) -> NDArray[Any]:
    """SimpleITK's array (z, y, x, parts) → (x, y, z) or (x, y, z, parts)."""
    for _ in range(3, dimensions):
        values = values[0]
    if dimensions == 2:
        values = values[None]
    return values.transpose(2, 1, 0, 3) if parts > 1 else values.transpose(2, 1, 0)


def write_meta(
    labels: NDArray[np.uint8], case: Case, path: Path, target: TargetSpec | None = None
) -> None:
    """Write a label map (slices, height, width) in the case's geometry as .mha or .nrrd."""
    doing = "writing a label map"
    sitk = _library(doing)
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
