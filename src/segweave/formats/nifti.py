"""Reads NIfTI images and writes label maps that keep the image's header."""

from __future__ import annotations

import base64
import gzip
import math
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from segweave.data.case import Case, SourceGrid
from segweave.data.geometry import case_affine, source_grid, spacing_of, with_spacing
from segweave.data.specs import TargetSpec
from segweave.errors import InputError
from segweave.formats.content import Content, Geometry, Request
from segweave.formats.guard import (
    DEFLATE_LIMIT,
    check_declared,
    check_finite,
    check_numeric,
    declared_bytes,
    reading,
)
from segweave.storage import atomic_write

HEADER_ATTRIBUTE = "nifti_header"
"""The attribute of a case that keeps the header of its file (base64), for its label maps."""

_UNITS_IN_MM = {"unknown": 1.0, "mm": 1.0, "meter": 1000.0, "micron": 0.001}
_GZIP = b"\x1f\x8b"


def _is_gzip(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(2) == _GZIP


def _open(file: Path, packed: bool) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(file, "rb") if packed else file.open("rb"))


def _parse(block: bytes, doing: str, file: Path | None) -> Any:
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


def _steps(header: Any, doing: str, file: Path, geometry: Geometry) -> NDArray[np.float64]:
    """The affine in millimetres, voxel axes of the file → RAS+, or InputError where sform and
    pixdim disagree and `geometry` does not decide.
    """
    affine = np.array(header.get_best_affine(), dtype=np.float64)
    pixdim = tuple(float(step) for step in np.abs(header["pixdim"][1:4]))
    dimensions = int(header["dim"][0])
    if dimensions < 3:
        # A 2D image often has no third step; its only slice gets the affine's own, or 1.
        if not affine[:3, 2].any():
            normal = np.cross(affine[:3, 0], affine[:3, 1])
            affine[:3, 2] = normal / (np.linalg.norm(normal) or 1.0)
        pixdim = (*pixdim[:2], float(np.linalg.norm(affine[:3, 2])))
    steps = spacing_of(affine)
    usable = np.isfinite(affine).all() and min(steps) > 0 and np.linalg.det(affine[:3, :3]) != 0
    if not usable:
        raise InputError(
            doing,
            file=file,
            expected="an sform or qform that can be inverted",
            found=f"steps of {steps} mm from the header's affine, pixdim {pixdim}",
            remedy="repair the header",
            kind="damaged",
        )
    if geometry == "pixdim" and not all(math.isfinite(step) and step > 0 for step in pixdim):
        raise InputError(
            doing,
            file=file,
            expected="positive steps in pixdim",
            found=f"pixdim {pixdim}",
            kind="damaged",
        )
    if geometry == "pixdim":
        affine = with_spacing(affine, pixdim)
    elif geometry == "check" and not np.allclose(steps, pixdim, rtol=1e-3, atol=1e-4):
        raise InputError(
            doing,
            file=file,
            expected="one voxel size in the header's affine (sform, qform) and in its pixdim",
            found="steps of {} in the affine, {} in pixdim".format(
                *(" × ".join(f"{step:g}" for step in three) for three in (steps, pixdim))
            ),
            remedy="say which is right: --geometry pixdim (the affine's directions with "
            "pixdim's steps) or --geometry affine",
            kind="header",
        )
    unit = _UNITS_IN_MM.get(str(header.get_xyzt_units()[0]), 1.0)
    affine[:3] *= unit
    return affine


def names_orientation(case: Case) -> bool:
    """Whether the file of a case names its orientation; NIfTI without sform and qform does not."""
    stored = case.attributes.get(HEADER_ATTRIBUTE)
    if stored is None:
        return case.affine is not None
    header = _parse(base64.b64decode(stored), "reading a header", None)
    return bool(header["sform_code"] > 0 or header["qform_code"] > 0)


def check_header(file: Path) -> None:
    """Raise InputError where a file's header can't be read, or its sform and pixdim disagree."""
    doing = "reading a header"
    with reading(doing, file):
        with _open(file, _is_gzip(file)) as stream:
            header = _parse(stream.read(540), doing, file)
        _steps(header, doing, file, "check")


def read_geometry(file: Path, geometry: Geometry) -> Content:
    """The geometry in a file's header, no voxel being read: a content whose image is an
    array of zeros that takes no memory.
    """
    doing = "reading a header"
    with reading(doing, file):
        with _open(file, _is_gzip(file)) as stream:
            header = _parse(stream.read(540), doing, file)
        declared = tuple(int(n) for n in header.get_data_shape())[:3]
        shape = (*declared, *(1,) * (3 - len(declared)))
        affine = _steps(header, doing, file, geometry)
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
        oriented=bool(header["sform_code"] > 0 or header["qform_code"] > 0),
    )


def _read_values(
    file: Path, packed: bool, header: Any, shape: tuple[int, ...], doing: str
) -> NDArray[Any]:
    """The pixels on the file's own axes, scaled where the header asks for it."""
    dtype = np.dtype(header.get_data_dtype())
    check_numeric(dtype, doing, file)
    offset = float(header["vox_offset"])
    if not math.isfinite(offset) or not 0 <= offset < 2**40:
        raise InputError(
            doing,
            file=file,
            expected="a sensible vox_offset",
            found=f"vox_offset {offset}",
            kind="damaged",
        )
    start = max(int(offset), header.structarr.nbytes)
    size = declared_bytes(shape, dtype.itemsize)
    stored = file.stat().st_size
    check_declared(start + size, stored * DEFLATE_LIMIT if packed else stored, doing, file)
    with _open(file, packed) as stream:
        skipped = stream.read(start)
        raw = stream.read(size)
        # One more byte makes gzip compare its checksum, so that a cut tail is noticed.
        stream.read(1)
    if len(skipped) + len(raw) < start + size:
        raise InputError(
            doing,
            file=file,
            expected=f"{size} bytes of pixels",
            found=f"{len(raw)} bytes",
            remedy="the file is truncated; copy or download it again",
            kind="damaged",
        )
    values = np.frombuffer(raw, dtype=dtype).reshape(shape, order="F")
    values = values.astype(dtype.newbyteorder("="), copy=False)
    slope, intercept = (float(header[name]) for name in ("scl_slope", "scl_inter"))
    if math.isfinite(slope) and slope != 0:
        intercept = intercept if math.isfinite(intercept) else 0.0
        if (slope, intercept) != (1.0, 0.0):
            values = (values * slope + intercept).astype(np.float32)
    return values


def read_nifti(file: Path, request: Request) -> Content:
    """Read a .nii or .nii.gz file of one 2D or 3D image.

    Raises InputError for a truncated or damaged file, a size that the file cannot hold, pixels that
    aren't finite, a time series, and a header whose sform and pixdim disagree (unless
    `request.geometry` decides).
    """
    doing, as_label = request.doing, request.as_label
    with reading(doing, file):
        packed = _is_gzip(file)
        with _open(file, packed) as stream:
            header = _parse(stream.read(540), doing, file)
        declared = tuple(int(n) for n in header.get_data_shape())
        if not declared or min(declared) < 1:
            raise InputError(
                doing,
                file=file,
                expected="two or three axes",
                found=f"size {declared}",
                kind="unsupported",
            )
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
        affine = _steps(header, doing, file, request.geometry)
        values = _read_values(file, packed, header, (*shape, *further), doing)
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
        oriented=bool(header["sform_code"] > 0 or header["qform_code"] > 0),
        attributes={HEADER_ATTRIBUTE: base64.b64encode(bytes(header.binaryblock)).decode("ascii")},
    )


def _to_case(values: NDArray[Any], grid: SourceGrid) -> NDArray[Any]:
    """File axes → (slices, height, width), or (slices, classes, height, width) of a fourth axis."""
    if values.ndim == 3:
        return grid.to_case(values)
    return np.stack([grid.to_case(values[..., k]) for k in range(values.shape[3])], axis=1)


def write_nifti(
    labels: NDArray[np.uint8], case: Case, path: Path, target: TargetSpec | None = None
) -> None:
    """Write a label map with the header of the case's file: size, pixdim, sform, qform and their
    codes and units byte for byte; only the pixel type, scaling and display range are the label's.

    `labels` (slices, height, width), or (slices, classes, height, width) as a fourth axis. Header
    extensions are left out (they can hold a patient's name).
    """
    doing = "writing a label map"
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
    header = _parse(base64.b64decode(stored), doing, path)
    planes = [labels] if labels.ndim == 3 else [labels[:, k] for k in range(labels.shape[1])]
    if len(planes) > 1 or labels.ndim == 4:
        header["dim"][0] = 4
        header["dim"][1:5] = (*case.source_grid.shape, len(planes))
        header["dim"][5:] = 1
        header["pixdim"][4:] = 1
    header["datatype"], header["bitpix"] = 2, 8
    header["vox_offset"] = header.structarr.nbytes + 4
    header["scl_slope"], header["scl_inter"] = 1, 0
    header["cal_max"], header["cal_min"] = 0, 0
    header["intent_code"] = 0
    with atomic_write(path) as temporary, temporary.open("wb") as plain:
        if path.name.endswith(".gz"):
            # No name and no time inside: the same labels give the same bytes.
            stream = cast(IO[bytes], gzip.GzipFile("", "wb", 6, plain, mtime=0))
        else:
            stream = cast(IO[bytes], plain)
        stream.write(bytes(header.binaryblock) + b"\0\0\0\0")
        for plane in planes:
            stream.write(case.source_grid.to_file(plane).tobytes(order="F"))
        if stream is not plain:
            stream.close()
