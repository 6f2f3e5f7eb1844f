"""Reads HDF5, npz and npy files that hold an image and perhaps its label; writes npz label maps."""

from __future__ import annotations

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
    DEFLATE_LIMIT,
    check_declared,
    check_finite,
    check_numeric,
    declared_bytes,
    reading,
)
from segweave.storage import atomic_write

IMAGE_NAMES = ("image", "img")
LABEL_NAMES = ("label", "mask")
_FEWEST_PIXELS = 4
"""An image with more rows and columns than this and a short last axis has its channels last."""
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


def _content(
    image: NDArray[Any] | None,
    label: NDArray[Any] | None,
    doing: str,
    file: Path,
    attributes: dict[str, Any],
) -> Content:
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
    steps = np.asarray(value, dtype=np.float64).ravel()
    if steps.shape != (3,) or not np.isfinite(steps).all() or steps.min() <= 0:
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


def _choose(held: list[str], request: Request, file: Path) -> tuple[str | None, str | None]:
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


def read_h5(file: Path, request: Request) -> Content:
    """Read data sets `image` and `label` of an HDF5 file; `spacing_zyx_mm` and other attributes of
    the file are kept.

    Raises InputError for a truncated file, for declared sizes that the stored bytes cannot hold,
    and for data sets that are stored in another file (links, external and virtual storage).
    """
    import h5py

    doing = request.doing
    with reading(doing, file), h5py.File(file, "r") as store:
        held = [
            name
            for name in store
            if isinstance(store.get(name, getlink=True), h5py.HardLink)
            and isinstance(store[name], h5py.Dataset)
        ]
        names = _choose(held, request, file)
        image, label = (None if n is None else _h5_values(store[n], doing, file) for n in names)
        attributes = {name: _plain(value) for name, value in store.attrs.items()}
    return _content(image, label, doing, file, attributes)


def _h5_values(dataset: Any, doing: str, file: Path) -> NDArray[Any]:
    what = f"{doing} (data set {dataset.name})"
    if dataset.is_virtual or dataset.external:
        raise InputError(
            what,
            file=file,
            expected="data in this file",
            found="data stored in another file",
            kind="unsupported",
        )
    check_numeric(dataset.dtype, what, file)
    stored = int(dataset.id.get_storage_size())
    unfolded = stored * DEFLATE_LIMIT if dataset.chunks else stored
    check_declared(declared_bytes(dataset.shape, dataset.dtype.itemsize), unfolded, what, file)
    values: NDArray[Any] = dataset[()]
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _plain(value: Any) -> Any:
    """An HDF5 attribute as plain Python, so that a case's attributes can be written as JSON."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value


def _check_npy(stream: Any, stored: int, available: int, what: str, file: Path) -> None:
    """Compare an npy header's declared size with what is stored, before anything is allocated."""
    start = stream.tell()
    version = np.lib.format.read_magic(stream)
    parse = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if parse is None:
        raise InputError(
            what, file=file, expected="npy format 1 or 2", found=str(version), kind="unsupported"
        )
    shape, _, dtype = parse(stream)
    check_numeric(dtype, what, file)
    declared = declared_bytes(shape, dtype.itemsize)
    check_declared(declared, min(stored - (stream.tell() - start), available), what, file)


def read_npy(file: Path, request: Request) -> Content:
    """Read the one array of an npy file. Raises InputError for a damaged file or objects in it."""
    doing = request.doing
    with reading(doing, file):
        stored = file.stat().st_size
        with file.open("rb") as stream:
            _check_npy(stream, stored, stored, doing, file)
        values = np.load(file, allow_pickle=False)
        values = values.astype(values.dtype.newbyteorder("="), copy=False)
    image, label = (None, values) if request.as_label else (values, None)
    return _content(image, label, doing, file, {})


def read_npz(file: Path, request: Request) -> Content:
    """Read arrays `image` (or `img`) and `label` of an npz file; `spacing` is kept.

    Raises InputError for a damaged file, objects in it, and declared sizes that it cannot hold.
    """
    doing = request.doing
    with reading(doing, file):
        with zipfile.ZipFile(file) as archive:
            members = {m.filename: m for m in archive.infolist() if m.filename.endswith(".npy")}
            held = [name.removesuffix(".npy") for name in members]
            spaced = _pick(held, _SPACING_NAMES)
            arrays = [name for name in held if name not in _SPACING_NAMES]
            names = _choose(arrays, request, file)
            for name in filter(None, (*names, spaced)):
                member = members[name + ".npy"]
                with archive.open(member) as stream:
                    _check_npy(
                        stream,
                        member.file_size,
                        member.compress_size * DEFLATE_LIMIT,
                        f"{doing} (array {name})",
                        file,
                    )
        with np.load(file, allow_pickle=False) as stored:
            image, label = (
                None if n is None else stored[n].astype(stored[n].dtype.newbyteorder("="))
                for n in names
            )
            attributes = {} if spaced is None else {spaced: stored[spaced].tolist()}
    return _content(image, label, doing, file, attributes)


def write_h5(
    labels: NDArray[np.uint8], case: Case, path: Path, target: TargetSpec | None = None
) -> None:
    """Write a label map (as it is: slices first) as data set `label`, with the attribute
    `spacing_zyx_mm`.
    """
    import h5py

    with atomic_write(path) as temporary, h5py.File(temporary, "w") as store:
        store.create_dataset("label", data=labels, compression="gzip", track_times=False)
        if case.spacing is not None:
            store.attrs["spacing_zyx_mm"] = np.asarray(case.spacing, dtype=np.float64)


def write_npz(
    labels: NDArray[np.uint8], case: Case, path: Path, target: TargetSpec | None = None
) -> None:
    """Write a label map (as it is: slices first) as array `label`, with `spacing_zyx_mm`."""
    arrays: dict[str, NDArray[Any]] = {"label": labels}
    if case.spacing is not None:
        arrays["spacing_zyx_mm"] = np.asarray(case.spacing, dtype=np.float64)
    with atomic_write(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]
