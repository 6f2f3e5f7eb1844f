"""Reads NIfTI images and writes label maps that keep the image's header."""

from __future__ import annotations

import base64
import gzip
import math
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from segweave.data.case import Case, SourceGrid
from segweave.data.geometry import (
    case_affine,
    source_grid,
    spacing_of,
)
from segweave.data.specs import TargetSpec
from segweave.errors import InputError
from segweave.formats.content import Content, Geometry, Request
from segweave.formats.guard import (
    WHOLE,
    Unpacked,
    check_declared,
    check_deflated,
    check_file,
    check_finite,
    check_numeric,
    declared_bytes,
    read_into,
    reading,
)
from segweave.formats.nifti_header import (
    HEADER_ATTRIBUTE,
    header_affine,
    header_shape,
    is_oriented,
)
from segweave.storage import atomic_write

_GZIP = b"\x1f\x8b"
_LARGEST_START = 1 << 26
"""A header and its extensions are far shorter."""


def _is_gzip(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(2) == _GZIP


def _open(file: Path, packed: bool) -> Any:
    """The file, unpacked where it is a gzip file."""
    return Unpacked(file.open("rb")) if packed else file.open("rb")


def check_header(file: Path) -> None:
    """Raise InputError where a file's header can't be read, or its sform, qform and pixdim
    disagree.
    """
    doing = "reading a header"
    with reading(doing, file):
        header = _header(check_file(file, doing), doing)
        header_affine(header, doing, file, "check")


def _header(file: Path, doing: str) -> Any:
    with _open(file, _is_gzip(file)) as stream:
        return parse_header(stream.read(540), doing, file)


def read_geometry(file: Path, geometry: Geometry) -> Content:
    """The geometry in a file's header, no voxel being read: a content whose image is an
    array of zeros that takes no memory.
    """
    doing = "reading a header"
    with reading(doing, file):
        header = _header(file, doing)
        declared = header_shape(header, doing, file)[:3]
        shape = (*declared, *(1,) * (3 - len(declared)))
        affine = header_affine(header, doing, file, geometry)
        grid = source_grid(affine, shape)
        turned = case_affine(affine, grid)
    sides = tuple(grid.shape[axis] for axis in grid.axes)
    return Content(
        image=np.broadcast_to(np.uint8(0), (sides[0], 1, *sides[1:])),
        label=None,
        stack="space" if len(declared) > 2 else "single",
        affine=turned,
        spacing=spacing_of(turned),
        source_grid=grid,
        oriented=is_oriented(header),
    )


def _read_values(
    file: Path, packed: bool, header: Any, shape: tuple[int, ...], request: Request
) -> NDArray[Any]:
    """The pixels on the file's own axes, scaled where the header asks for it."""
    doing, as_label = request.doing, request.as_label
    dtype = np.dtype(header.get_data_dtype())
    check_numeric(dtype, doing, file)
    offset = float(header["vox_offset"])
    if not math.isfinite(offset) or not 0 <= offset <= _LARGEST_START:
        raise InputError(
            doing,
            file=file,
            expected=f"a vox_offset from 0 to {_LARGEST_START}",
            found=f"vox_offset {offset:g}",
            kind="damaged",
        )
    start = max(int(offset), header.structarr.nbytes)
    size = declared_bytes(shape, dtype.itemsize)
    stored = file.stat().st_size
    if packed:
        check_deflated(start + size, stored, doing, file, as_label=as_label)
    else:
        check_declared(start + size, stored, doing, file)
    with _open(file, packed) as stream:
        skipped = stream.skip(start) if packed else stream.seek(start)
        raw = read_into(stream, size)
        # One more byte makes gzip compare its checksum, so that a cut tail is noticed.
        stream.read(1)
    if skipped + raw.size < start + size:
        raise InputError(
            doing,
            file=file,
            expected=f"{size} bytes of pixels",
            found=f"{raw.size} bytes",
            remedy="the file is truncated; copy or download it again",
            kind="damaged",
        )
    values: NDArray[Any] = raw.view(dtype).reshape(shape, order="F")
    values = values.astype(dtype.newbyteorder("="), copy=False)
    slope, intercept = (float(header[name]) for name in ("scl_slope", "scl_inter"))
    if math.isfinite(slope) and slope != 0:
        intercept = intercept if math.isfinite(intercept) else 0.0
        if (slope, intercept) != (1.0, 0.0):
            with np.errstate(over="ignore"):
                values = _scaled(values, slope, intercept)
            if as_label:
                values = _whole_ids(values, slope, doing, file)
    return values


def _scaled(values: NDArray[Any], slope: float, intercept: float) -> NDArray[np.float32]:
    """Values · slope + intercept, computed in float64 one plane of the last axis at a time."""
    scaled = np.empty(values.shape, np.float32, order="F")
    for k in range(values.shape[-1]):
        scaled[..., k] = values[..., k] * slope + intercept
    return scaled


def _whole_ids(values: NDArray[Any], slope: float, doing: str, file: Path) -> NDArray[Any]:
    """Labels that a slope broke (a float array under an integer header: 1 comes back as 1.00002)
    as the whole numbers that they were.
    """
    check_finite(values, doing, file)
    whole = np.rint(values)
    wrong = np.abs(values - whole) > max(WHOLE, min(abs(slope) / 2 * 1.01, 0.05))
    if wrong.any():
        raise InputError(
            doing,
            file=file,
            expected="a label map of integers",
            found=f"a header that multiplies by the slope {slope:g}, which makes {int(wrong.sum())}"
            f" ids broken numbers, the first {float(values[wrong][0]):g}",
            remedy="save the label as integers without a slope (nibabel: convert the array to "
            "uint8 and give no header of floats)",
            kind="labels",
        )
    return whole


def read_nifti(file: Path, request: Request) -> Content:
    """Read a .nii or .nii.gz file of one 2D or 3D image.

    Raises InputError for a truncated or damaged file, a size that the file cannot hold, pixels that
    aren't finite, a time series, and a header whose sform, qform and pixdim disagree (unless
    `request.geometry` decides).
    """
    doing, as_label = request.doing, request.as_label
    with reading(doing, file):
        packed = _is_gzip(file)
        with _open(file, packed) as stream:
            header = parse_header(stream.read(540), doing, file)
        declared = header_shape(header, doing, file)
        shape = (*declared[:3], *(1,) * (3 - len(declared)))
        further = tuple(n for n in declared[3:] if n != 1)
        if further and not ((as_label or request.channels) and len(further) == 1):
            raise InputError(
                doing,
                file=file,
                expected="one image of two or three axes",
                found=f"{len(declared)} axes of {' × '.join(map(str, declared))} (a time series?)",
                remedy="save each frame as a separate file",
                kind="unsupported",
            )
        affine = header_affine(header, doing, file, request.geometry)
        values = _read_values(file, packed, header, (*shape, *further), request)
    check_finite(values, doing, file)
    grid = source_grid(affine, shape)
    turned = np.ascontiguousarray(_to_case(values, grid))
    turned_affine = case_affine(affine, grid)
    return Content(
        image=None if as_label else turned[:, None] if turned.ndim == 3 else turned,
        label=turned if as_label else None,
        stack="space" if len(declared) > 2 else "single",
        affine=turned_affine,
        spacing=spacing_of(turned_affine),
        source_grid=grid,
        oriented=is_oriented(header),
        attributes={HEADER_ATTRIBUTE: base64.b64encode(bytes(header.binaryblock)).decode("ascii")},
    )


def _to_case(values: NDArray[Any], grid: SourceGrid) -> NDArray[Any]:
    """File axes → (slices, height, width), or (slices, classes, height, width) of a fourth axis."""
    if values.ndim == 3:
        return grid.to_case(values)
    return np.stack([grid.to_case(values[..., k]) for k in range(values.shape[3])], axis=1)


def write_nifti(
    labels: NDArray[np.uint8 | np.float32 | np.int16],
    case: Case,
    path: Path,
    target: TargetSpec | None = None,
) -> None:
    """Write a label map, probabilities (float32) or an image (int16, float32) with the header of
    the case's file: size, pixdim, sform, qform and their codes and units byte for byte; only the
    pixel type, scaling and display range are new.

    `labels` (slices, height, width), or (slices, classes, height, width) as a fourth axis. Header
    extensions are left out (they can hold a patient's name).
    """
    doing = "writing a label map" if labels.dtype == np.uint8 else "writing an image"
    stored = case.attributes.get(HEADER_ATTRIBUTE)
    if stored is None or case.source_grid is None:
        raise InputError(
            doing,
            file=path,
            expected="a case that was read from a NIfTI file",
            found=f"the case {case.id!r} without a NIfTI header",
            remedy="write it as .npz or .png",
            kind="unsupported",
        )
    header = parse_header(base64.b64decode(stored), doing, path)
    planes = [labels] if labels.ndim == 3 else [labels[:, k] for k in range(labels.shape[1])]
    if len(planes) > 1 or labels.ndim == 4:
        header["dim"][0] = 4
        header["dim"][1:5] = (*case.source_grid.shape, len(planes))
        header["dim"][5:] = 1
        header["pixdim"][4:] = 1
    # NIfTI's codes of uint8, int16 and float32.
    codes = {1: (2, 8), 2: (4, 16), 4: (16, 32)}
    header["datatype"], header["bitpix"] = codes[labels.dtype.itemsize]
    values_type = labels.dtype.newbyteorder(header.endianness)
    header["vox_offset"] = header.structarr.nbytes + 4
    header["scl_slope"], header["scl_inter"] = 1, 0
    header["cal_max"], header["cal_min"] = 0, 0
    header["intent_code"] = 0
    with atomic_write(path) as temporary, temporary.open("wb") as plain:
        if path.name.lower().endswith(".gz"):
            # No name and no time inside: the same labels give the same bytes.
            stream = cast(IO[bytes], gzip.GzipFile("", "wb", 6, plain, mtime=0))
        else:
            stream = cast(IO[bytes], plain)
        stream.write(bytes(header.binaryblock) + b"\0\0\0\0")
        for plane in planes:
            values = case.source_grid.to_file(plane).astype(values_type, copy=False)
            stream.write(values.tobytes(order="F"))
        if stream is not plain:
            stream.close()


def parse_header(block: bytes, doing: str, file: Path | None) -> Any:
    """The header in a file's first bytes. Raises InputError unless it is a single-file NIfTI."""
    import nibabel as nib

    for kind, size, magic_at in ((nib.Nifti1Header, 348, 344), (nib.Nifti2Header, 540, 4)):
        for order, sign in (("little", "<"), ("big", ">")):
            if int.from_bytes(block[:4], order) == size and len(block) >= size:  # type: ignore[arg-type]
                if block[magic_at : magic_at + 2] != b"n+":
                    break
                return kind(block[:size], endianness=sign, check=False)
    raise InputError(
        doing,
        file=file,
        expected="a NIfTI header (.nii or .nii.gz, header and data in one file)",
        found=f"{len(block)} bytes that don't start with one"
        if len(block) >= 348
        else f"{len(block)} bytes, too few for a header",
        kind="damaged",
    )


def names_orientation(attributes: Mapping[str, Any]) -> bool:
    """Whether the header that a case keeps names an orientation; True where it keeps none."""
    stored = attributes.get(HEADER_ATTRIBUTE)
    doing = "reading the header of a case"
    return stored is None or is_oriented(parse_header(base64.b64decode(stored), doing, None))
