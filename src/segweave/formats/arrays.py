"""Reads npz and npy files that hold an image and perhaps its label; writes npz label maps."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segweave.data.case import Case, Stack
from segweave.data.specs import TargetSpec
from segweave.errors import InputError
from segweave.formats.content import Content, Request
from segweave.formats.guard import (
    STEPS,
    check_declared,
    check_deflated,
    check_finite,
    check_numeric,
    declared_bytes,
    read_into,
    reading,
)
from segweave.storage import atomic_write

IMAGE_NAMES = ("image", "img")
LABEL_NAMES = ("label", "mask")
_FEWEST_PIXELS = 4
"""An image with more rows and columns than this and a short last axis has its channels last."""
_LONGEST_HEADER = 1 << 14
"""Of an npy file; NumPy itself evaluates no longer one."""
_SPACING_NAMES = ("spacing_zyx_mm", "spacing")


def _as_image(values: NDArray[Any], doing: str, file: Path) -> tuple[NDArray[Any], Stack]:
    """(height, width), (slices, height, width), (slices, channels, height, width), and with 1, 3 or
    4 channels last (height, width, 3) or (slices, height, width, 3) → (slices, channels, height,
    width).
    """
    shape = values.shape
    colours_last = _channels_last(shape, (1, 3, 4))
    if values.ndim == 2:
        return values[None, None], "single"
    if values.ndim == 3 and colours_last:
        return np.moveaxis(values, -1, 0)[None], "single"
    if values.ndim == 3:
        return values[:, None], "space"
    if values.ndim == 4 and colours_last:
        return np.moveaxis(values, -1, 1), "space"
    if values.ndim == 4:
        return values, "space"
    raise InputError(
        doing,
        file=file,
        expected="an array of (height, width), (slices, height, width) or "
        "(slices, channels, height, width)",
        found=f"shape {shape}",
        kind="unsupported",
    )


def _channels_last(shape: tuple[int, ...], counts: tuple[int, ...]) -> bool:
    return len(shape) in (3, 4) and shape[-1] in counts and min(shape[-3:-1]) > _FEWEST_PIXELS


def content_of(
    image: NDArray[Any] | None,
    label: NDArray[Any] | None,
    doing: str,
    file: Path,
    attributes: dict[str, Any],
) -> Content:
    """The arrays of a file, whose axes are known by their lengths, and its spacing in mm."""
    stack: Stack = "space"
    turned = None
    if image is not None:
        check_finite(image, doing, file)
        turned, stack = _as_image(image, doing, file)
        turned = np.ascontiguousarray(turned)
    if label is not None and _channels_last(label.shape, (1,)):
        label = label[..., 0]
    if label is not None and label.ndim == 2:
        label = label[None]
    spacing = None
    for name in _SPACING_NAMES:
        if name in attributes:
            spacing = _spacing(attributes[name], name, doing, file)
            break
    return Content(image=turned, label=label, stack=stack, spacing=spacing, attributes=attributes)


def _spacing(value: Any, name: str, doing: str, file: Path) -> tuple[float, float, float]:
    try:
        steps = np.asarray(value, dtype=np.float64).ravel()
    except (TypeError, ValueError):
        steps = np.zeros(0)
    low, high = STEPS
    if steps.shape != (3,) or not (low <= steps.min() and steps.max() <= high):
        raise InputError(
            doing,
            file=file,
            expected=f"three positive millimetres (slice, row, column) in {name}",
            found=str(value)[:100],
            kind="damaged",
        )
    return float(steps[0]), float(steps[1]), float(steps[2])


def _nothing_named(doing: str, file: Path, wanted: tuple[str, ...], held: list[str]) -> InputError:
    return InputError(
        doing,
        file=file,
        expected=f"an array named {' or '.join(wanted)}",
        found=", ".join(held[:8]) or "no arrays",
        remedy="rename the array",
        kind="missing",
    )


def _pick(held: list[str], wanted: tuple[str, ...]) -> str | None:
    return next((name for name in wanted if name in held), None)


def choose_arrays(held: list[str], request: Request, file: Path) -> tuple[str | None, str | None]:
    """Names of the image and the label to read; a file with a single array needs no name."""
    only = held[0] if len(held) == 1 else None
    if request.as_label:
        label = _pick(held, LABEL_NAMES) or only
        if label is None:
            raise _nothing_named(request.doing, file, LABEL_NAMES, held)
        return None, label
    image = _pick(held, IMAGE_NAMES) or (only if only not in LABEL_NAMES else None)
    if image is None:
        raise _nothing_named(request.doing, file, IMAGE_NAMES, held)
    return image, _pick(held, LABEL_NAMES) if request.with_label else None


def _read_npy(
    stream: Any, space: int, what: str, file: Path, *, packed: int = 0, as_label: bool = False
) -> NDArray[Any]:
    """The array of an npy stream of `space` bytes, which `packed` bytes unfold to if more than 0.

    All that the header declares is compared with what is stored before anything is allocated, the
    header's own length too.
    """
    version = np.lib.format.read_magic(stream)
    width, parse = {
        (1, 0): (2, np.lib.format.read_array_header_1_0),
        (2, 0): (4, np.lib.format.read_array_header_2_0),
    }.get(version, (0, None))
    if parse is None:
        raise InputError(
            what, file=file, expected="npy format 1 or 2", found=str(version), kind="unsupported"
        )
    count = stream.read(width)
    length = int.from_bytes(count, "little")
    if len(count) < width or length > _LONGEST_HEADER:
        raise InputError(
            what,
            file=file,
            expected=f"an npy header of at most {_LONGEST_HEADER} bytes",
            found=f"one of {length} bytes",
            kind="damaged",
        )
    shape, in_columns, dtype = parse(io.BytesIO(count + stream.read(length)))
    check_numeric(dtype, what, file)
    if any(type(n) is not int or n < 0 for n in shape):
        raise InputError(
            what, file=file, expected="sizes of at least 0", found=str(shape), kind="damaged"
        )
    declared = declared_bytes(shape, dtype.itemsize)
    if packed:
        check_deflated(declared, packed, what, file, as_label=as_label)
    check_declared(declared, space, what, file)
    raw = read_into(stream, declared)
    if raw.size < declared:
        raise InputError(
            what,
            file=file,
            expected=f"{declared} bytes of values",
            found=f"{raw.size} bytes",
            remedy="the file is truncated; copy or download it again",
            kind="damaged",
        )
    values: NDArray[Any] = raw.view(dtype).reshape(shape, order="F" if in_columns else "C")
    return values.astype(dtype.newbyteorder("="), copy=False)


def read_npy(file: Path, request: Request) -> Content:
    """Read the one array of an npy file. Raises InputError for a damaged file or objects in it."""
    doing = request.doing
    with reading(doing, file), file.open("rb") as stream:
        values = _read_npy(stream, file.stat().st_size, doing, file)
    image, label = (None, values) if request.as_label else (values, None)
    return content_of(image, label, doing, file, {})


def read_npz(file: Path, request: Request) -> Content:
    """Read arrays `image` (or `img`) and `label` of an npz file; `spacing` is kept.

    Raises InputError for a damaged file, objects in it, declared sizes that it cannot hold, and
    compression that NumPy does not write (it could unfold without a limit).
    """
    doing = request.doing
    with reading(doing, file), zipfile.ZipFile(file) as archive:
        members = {m.filename: m for m in archive.infolist() if m.filename.endswith(".npy")}
        held = [name.removesuffix(".npy") for name in members]
        spaced = _pick(held, _SPACING_NAMES)
        arrays = [name for name in held if name not in _SPACING_NAMES]
        names = choose_arrays(arrays, request, file)
        image, label = (
            None if name is None else _read_member(archive, members[f"{name}.npy"], doing, file, of)
            for name, of in zip(names, (False, True), strict=True)
        )
        attributes = {}
        if spaced is not None:
            value = _read_member(archive, members[f"{spaced}.npy"], doing, file, False)
            attributes[spaced] = value.tolist()
    return content_of(image, label, doing, file, attributes)


def _read_member(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, doing: str, file: Path, as_label: bool
) -> NDArray[Any]:
    doing = f"{doing} (array {member.filename.removesuffix('.npy')})"
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise InputError(
            doing,
            file=file,
            expected="arrays that are stored or deflated, as NumPy writes them",
            found=f"compression method {member.compress_type} in {member.filename}",
            remedy="save it again with numpy.savez_compressed",
            kind="unsupported",
        )
    stored = min(member.compress_size, file.stat().st_size)
    packed = max(1, stored) if member.compress_type == zipfile.ZIP_DEFLATED else 0
    with archive.open(member) as stream:
        values = _read_npy(stream, member.file_size, doing, file, packed=packed, as_label=as_label)
        # One more byte makes zip compare its checksum.
        stream.read(1)
    return values


def write_npz(
    labels: NDArray[np.uint8], case: Case, path: Path, target: TargetSpec | None = None
) -> None:
    """Write a label map (as it is: slices first) as array `label`, an image that is not uint8 as
    array `image`, with `spacing_zyx_mm`.
    """
    arrays: dict[str, NDArray[Any]] = {"label" if labels.dtype == np.uint8 else "image": labels}
    if case.spacing is not None:
        arrays["spacing_zyx_mm"] = np.asarray(case.spacing, dtype=np.float64)
    with atomic_write(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]
