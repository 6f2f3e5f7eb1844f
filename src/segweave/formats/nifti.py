"""Reads NIfTI images and writes label maps that keep the image's header; a header that contradicts
itself is refused.
"""

from __future__ import annotations

import base64
import gzip
import math
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from segweave.data.case import (
    Case,
    SourceGrid,
    case_affine,
    farthest_apart,
    source_grid,
    spacing_of,
    with_spacing,
)
from segweave.data.specs import TargetSpec
from segweave.errors import InputError
from segweave.formats.content import HEADER_ATTRIBUTE, Content, Geometry, Request
from segweave.formats.guard import (
    WHOLE,
    Unpacked,
    check_affine,
    check_declared,
    check_deflated,
    check_finite,
    check_numeric,
    declared_bytes,
    read_into,
    reading,
)
from segweave.storage import atomic_write

_GZIP = b"\x1f\x8b"
_LARGEST_START = 1 << 26
"""A header and its extensions are far shorter."""
_MM_OF_UNIT = {1: 1000.0, 2: 1.0, 3: 0.001}
_APART = 0.1
"""Share of the smallest step by which sform and qform may differ: they are rounded."""


def _is_gzip(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(2) == _GZIP


def _open(file: Path, packed: bool) -> Any:
    """The file, unpacked where it is a gzip file."""
    return Unpacked(file.open("rb")) if packed else file.open("rb")


def read_header(file: Path, doing: str) -> Any:
    """The header of a file. Raises InputError unless it is a single-file NIfTI."""
    with _open(file, _is_gzip(file)) as stream:
        return parse_header(stream.read(540), doing, file)


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
        header = read_header(file, doing)
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


def header_shape(header: Any, doing: str, file: Path) -> tuple[int, ...]:
    """The sizes of the axes that the header declares; raises InputError where there are none."""
    axes = int(header["dim"][0])
    sizes = tuple(int(n) for n in header.get_data_shape()) if 1 <= axes <= 7 else ()
    if not sizes or min(sizes) < 1:
        raise InputError(
            doing,
            file=file,
            expected="two or three axes",
            found=f"size {sizes}" if sizes else f"{axes} axes",
            kind="unsupported",
        )
    return sizes


def _forms(header: Any) -> dict[str, NDArray[np.float64]]:
    """The affines that the header declares and that can be inverted: sform, qform."""
    from nibabel.spatialimages import HeaderDataError

    found = {}
    for name, read in (("sform", header.get_sform), ("qform", header.get_qform)):
        if header[f"{name}_code"] <= 0:
            continue
        try:
            affine = np.array(read(), dtype=np.float64)
        except (ValueError, ArithmeticError, HeaderDataError):
            continue
        if int(header["dim"][0]) < 3 and not affine[:3, 2].any():
            # A 2D image often has no third step; its only slice gets the normal of its plane.
            normal = np.cross(affine[:3, 0], affine[:3, 1])
            affine[:3, 2] = normal / (np.linalg.norm(normal) or 1.0)
        with np.errstate(all="ignore"):
            usable = np.isfinite(affine).all() and np.linalg.det(affine[:3, :3]) != 0
        if usable:
            found[name] = affine
    return found


def header_affine(header: Any, doing: str, file: Path, geometry: Geometry) -> NDArray[np.float64]:
    """The affine in millimetres, voxel axes of the file → RAS+, or InputError where sform, qform
    and pixdim disagree and `geometry` does not decide.
    """
    pixdim = tuple(float(step) for step in np.abs(header["pixdim"][1:4]))
    forms = _forms(header)
    if not forms and (header["sform_code"] > 0 or header["qform_code"] > 0):
        raise InputError(
            doing,
            file=file,
            expected="an sform or qform that can be inverted",
            found=f"none, pixdim {pixdim}",
            remedy="repair the header",
            kind="damaged",
        )
    order = ("qform", "sform") if geometry == "qform" else ("sform", "qform")
    chosen = next((forms[name] for name in order if name in forms), None)
    affine = np.array(header.get_base_affine(), np.float64) if chosen is None else chosen.copy()
    if int(header["dim"][0]) < 3:
        if chosen is None and not affine[:3, 2].any():
            affine[2, 2] = 1.0
        pixdim = (*pixdim[:2], float(np.linalg.norm(affine[:3, 2])))
    unit = _MM_OF_UNIT.get(int(header["xyzt_units"]) & 7, 1.0)
    check_affine(np.diag([unit] * 3 + [1.0]) @ affine, doing, file)
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
    elif geometry == "check":
        _check_agreement(header, affine, pixdim, forms, doing, file)
    affine[:3] *= unit
    return affine


def _check_agreement(
    header: Any,
    affine: NDArray[np.float64],
    pixdim: tuple[float, ...],
    forms: dict[str, NDArray[np.float64]],
    doing: str,
    file: Path,
) -> None:
    """Raise InputError where the affine has other steps than pixdim, or sform and qform put a
    corner of the image elsewhere.
    """
    steps = spacing_of(affine)
    if not np.allclose(steps, pixdim, rtol=1e-3, atol=1e-4):
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
    if len(forms) < 2:
        return
    sizes = [max(1, int(n)) for n in header["dim"][1:4]]
    shape = tuple(sizes[k] if k < int(header["dim"][0]) else 1 for k in range(3))
    apart = farthest_apart(forms["sform"], forms["qform"], shape)
    if apart > _APART * min(steps):
        raise InputError(
            doing,
            file=file,
            expected="an sform and a qform that put the image at one position",
            found=f"corners up to {apart:.3g} mm apart (sform code {int(header['sform_code'])}, "
            f"qform code {int(header['qform_code'])})",
            remedy="say which is right: --geometry affine (the sform) or --geometry qform",
            kind="header",
        )


def is_oriented(header: Any) -> bool:
    """Whether a header names an orientation, by an sform or a qform."""
    return bool(header["sform_code"] > 0 or header["qform_code"] > 0)
