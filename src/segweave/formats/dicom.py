"""Reads a DICOM series, ordered by the position of its slices in the patient, with pydicom."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segweave.errors import InputError, MissingExtraError, SegweaveError
from segweave.formats.content import Content, Request
from segweave.formats.dicom_file import is_dicom, read_data, reading_dicom
from segweave.formats.dicom_pixels import pixels_of
from segweave.formats.guard import (
    TooLargeError,
    check_affine,
    check_declared,
    check_unfolded,
    declared_bytes,
    largest_bytes,
    readable_size,
)
from segweave.formats.multiframe import GROUPS, has_frames, slices_of, value_of
from segweave.formats.series import Slice, as_numbers, ordered
from segweave.formats.turned import LPS_TO_RAS, turned_content

ENDINGS = (".dcm", ".dicom", ".ima")
_DIRECTORY = "1.2.840.10008.1.3.10"
_CODE = re.compile(r"[A-Z0-9 _]{1,16}")
_TAGS = [
    "SOPClassUID", "SeriesInstanceUID", "Modality", "Rows", "Columns", "SamplesPerPixel",
    "PhotometricInterpretation", "BitsAllocated", "BitsStored", "PixelRepresentation",
    "NumberOfFrames", "PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient",
    "SliceThickness", "RescaleSlope", "RescaleIntercept",
    *GROUPS,
]  # fmt: skip


def series_files(folder: Path) -> list[Path]:
    """The DICOM files directly in a folder, sorted by name: those that are called so, and those
    that begin as DICOM files do.
    """
    return [
        path
        for path in sorted(folder.iterdir())
        if path.is_file() and not path.name.startswith(".") and path.name.upper() != "DICOMDIR"
        if path.suffix.lower() in ENDINGS or is_dicom(path)
    ]


def images_in(folder: Path) -> list[Path]:
    """The images that the DICOM files directly in a folder are: the folder for the slices of a
    series, each file for pictures that name no position in a patient.
    """
    files = series_files(folder)
    if len(files) < 2:
        return files
    for file in files:
        if is_placed(file):
            return [folder]
    return files


def is_placed(file: Path) -> bool | None:
    """Whether a file names its position in the patient, as slices do; None where it can't be
    read.
    """
    try:
        pydicom = library("looking for images")
        wanted = ["ImagePositionPatient", "ImageOrientationPatient"]
        tags = [*wanted, *GROUPS]
        data = read_data(
            pydicom, file, "looking for images", stop_before_pixels=True, specific_tags=tags
        )
    except SegweaveError:
        return None
    if has_frames(data):
        return (
            value_of(data, 0, "PlanePositionSequence", "ImagePositionPatient") is not None
            and value_of(data, 0, "PlaneOrientationSequence", "ImageOrientationPatient") is not None
        )
    return all(data.get(name) not in (None, "") for name in wanted)


def library(doing: str) -> Any:
    """pydicom; raises MissingExtraError where it is not installed."""
    try:
        import pydicom
    except ImportError as error:
        raise MissingExtraError(doing, library="pydicom", extra="dicom") from error
    return pydicom


def ordered_slices(path: Path, doing: str) -> tuple[list[Slice], NDArray[np.float64] | None]:
    """The slices of a file or of the series in a folder, first to last, by their headers, and the
    affine (column, row, slice, 1) → LPS mm, or None. Raises InputError as `read_dicom` does.
    """
    pydicom = library(doing)
    files = series_files(path) if path.is_dir() else [path]
    if not files:
        raise InputError(
            doing,
            file=path,
            expected="a file, or a folder with a DICOM series",
            found="a folder without one",
            kind="layout",
        )
    slices = [one for file in files for one in _headers(pydicom, file, doing)]
    if not slices:
        raise InputError(
            doing, file=path, expected="a DICOM image", found="a DICOMDIR alone", kind="layout"
        )
    kept, affine = ordered(slices, doing, path)
    if affine is not None:
        check_affine(affine, doing, path)
    return kept, affine


def read_dicom(path: Path, request: Request) -> Content:
    """Read one DICOM file, or the series in a folder, whose slices are ordered by their position.

    Values are those of the modality (Hounsfield units of CT). Raises InputError, in plain words,
    for a folder of several series, slices that are missing, doubled or unevenly spaced, mixed
    sizes or orientations, a tilted gantry, several stacks or dimensions in a multi-frame file, and
    files that are damaged or would unfold to more than they should; MissingExtraError without
    pydicom.
    """
    doing, as_label = request.doing, request.as_label
    pydicom = library(doing)
    kept, affine = ordered_slices(path, doing)
    total = sum(one.bytes for one in kept)
    if total > largest_bytes():
        raise TooLargeError(
            doing,
            file=path,
            expected=f"at most {readable_size(largest_bytes())} of pixels",
            found=readable_size(total),
            remedy="raise the limit with SEGWEAVE_LARGEST_GIB",
            kind="unsupported",
        )
    planes = pixels_of(pydicom, kept, doing)
    dtype = np.result_type(*planes)
    stack = np.stack(planes).astype(dtype, copy=False)
    # (slices, rows, columns[, colours]) → (columns, rows, slices[, colours])
    values = np.swapaxes(stack, 0, 2)
    attributes = {"modality": kept[0].modality} if kept[0].modality else {}
    if affine is not None:
        return turned_content(
            values,
            LPS_TO_RAS @ affine,
            as_label=as_label,
            single=False,
            oriented=True,
            attributes=attributes,
        )
    image = np.moveaxis(stack, -1, 1) if stack.ndim == 4 else stack[:, None]
    return Content(
        image=None if as_label else np.ascontiguousarray(image),
        label=stack if as_label else None,
        stack="single",
        attributes=attributes,
    )


def _headers(pydicom: Any, file: Path, doing: str) -> list[Slice]:
    """The headers of the slices in a file, read without its pixels; none of a DICOMDIR."""
    data = read_data(pydicom, file, doing, stop_before_pixels=True, specific_tags=_TAGS)
    with reading_dicom(doing, file):
        if data.file_meta.get("MediaStorageSOPClassUID") == _DIRECTORY:
            return []
        frames = int(data.get("NumberOfFrames", 1) or 1)
        enhanced = has_frames(data)
        if frames > 1 and not enhanced:
            raise InputError(
                doing,
                file=file,
                expected="one slice per file, or an enhanced file, which names the position of "
                "each frame",
                found=f"{frames} frames in one file without positions",
                remedy="if it is a film, save its frames as pictures; else convert it to NIfTI "
                "first, for instance with dcm2niix",
                kind="unsupported",
            )
        whole = _slice(data, file, frames, doing)
        return slices_of(data, whole, frames, doing) if enhanced else [whole]


def _slice(data: Any, file: Path, frames: int, doing: str) -> Slice:
    missing = [name for name in ("Rows", "Columns", "BitsAllocated") if name not in data]
    if missing:
        raise InputError(
            doing,
            file=file,
            expected="an image",
            found=f"no {', '.join(missing)}: not a picture",
            remedy="it is truncated, or a report: copy it again, or take it out of the folder",
            kind="damaged",
        )
    rows, columns = int(data.Rows), int(data.Columns)
    samples, bits = int(data.get("SamplesPerPixel", 1)), int(data.BitsAllocated)
    one = declared_bytes((rows, columns, samples), max(1, bits // 8))
    size = frames * one
    syntax = data.file_meta.get("TransferSyntaxUID")
    packed = syntax is not None and (syntax.is_compressed or syntax.is_deflated)
    if packed:
        check_unfolded(size, file.stat().st_size, doing, file)
    else:
        check_declared(size, file.stat().st_size, doing, file)
    return Slice(
        file=file,
        series=str(data.get("SeriesInstanceUID", "")),
        modality=_code(data.get("Modality")),
        size=(rows, columns),
        samples=samples,
        bytes=one,
        spacing=_read_numbers(data, "PixelSpacing", 2, file, doing),
        orientation=_read_numbers(data, "ImageOrientationPatient", 6, file, doing),
        position=_read_numbers(data, "ImagePositionPatient", 3, file, doing),
        thickness=_read_numbers(data, "SliceThickness", 1, file, doing),
    )


def _code(value: Any) -> str:
    """A code of DICOM (CT, MR), "" for what is none."""
    text = str(value).strip()
    return text if _CODE.fullmatch(text) and value is not None else ""


def _read_numbers(data: Any, name: str, count: int, file: Path, doing: str) -> NDArray[Any] | None:
    return as_numbers(data.get(name), name, count, file, doing)
