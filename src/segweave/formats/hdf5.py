"""Reads HDF5 files that hold an image and perhaps its label; writes label maps."""

from __future__ import annotations

import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segweave.data.case import Case
from segweave.data.specs import TargetSpec
from segweave.errors import InputError
from segweave.formats.arrays import choose_arrays, content_of
from segweave.formats.content import Content, Request
from segweave.formats.guard import (
    check_declared,
    check_deflated,
    check_numeric,
    declared_bytes,
    readable_size,
    reading,
)
from segweave.storage import atomic_write

_DEFLATE, _SHUFFLE, _CHECKSUM, _LZF = 1, 2, 3, 32000
_KNOWN = {_DEFLATE: "gzip", _SHUFFLE: "shuffle", _CHECKSUM: "fletcher32", _LZF: "lzf"}
_LARGEST_CHUNK = 1 << 26
_MOST_CHUNKS = 100_000
_SMALL_CHUNK = 4096
"""Bytes below which so many chunks hold little and take long."""
_LONGEST_ATTRIBUTE = 1 << 16


def read_h5(file: Path, request: Request) -> Content:
    """Read data sets `image` and `label` of an HDF5 file; `spacing_zyx_mm` and other attributes of
    the file are kept, as far as JSON can hold them.

    Raises InputError for a truncated file, for declared sizes that the stored bytes cannot hold,
    for data sets that are stored in another file (links, external and virtual storage), and for
    chunks that unfold to more than a chunk.
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
        names = choose_arrays(held, request, file)
        image, label = (
            None if name is None else _values(store[name], doing, file, as_label)
            for name, as_label in zip(names, (False, True), strict=True)
        )
        attributes = _attributes(store)
    return content_of(image, label, doing, file, attributes)


def _values(dataset: Any, doing: str, file: Path, as_label: bool) -> NDArray[Any]:
    what = f"{doing} (data set {dataset.name})"
    if dataset.shape is None or dataset.is_virtual or dataset.external:
        raise InputError(
            what,
            file=file,
            expected="data in this file",
            found="no data" if dataset.shape is None else "data stored in another file",
            kind="unsupported",
        )
    check_numeric(dataset.dtype, what, file)
    declared = declared_bytes(dataset.shape, dataset.dtype.itemsize)
    stored = min(int(dataset.id.get_storage_size()), file.stat().st_size)
    if not dataset.chunks:
        check_declared(declared, stored, what, file)
        values: NDArray[Any] = dataset[()]
    else:
        check_deflated(declared, stored, what, file, as_label=as_label)
        values = _chunked(dataset, what, file, declared)
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _chunked(dataset: Any, doing: str, file: Path, declared: int) -> NDArray[Any]:
    """The values of a data set in chunks, of which none unfolds to more than its size."""
    plan = dataset.id.get_create_plist()
    filters = [plan.get_filter(k)[0] for k in range(plan.get_nfilters())]
    size = declared_bytes(dataset.chunks, dataset.dtype.itemsize)
    unknown = any(code not in _KNOWN for code in filters)
    many = math.prod(-(-n // side) for n, side in zip(dataset.shape, dataset.chunks, strict=True))
    if (
        size > max(_LARGEST_CHUNK, 2 * declared)
        or (size < _SMALL_CHUNK and many > _MOST_CHUNKS)
        or unknown
        or len(set(filters)) < len(filters)
    ):
        raise InputError(
            doing,
            file=file,
            expected=f"chunks of at most {readable_size(_LARGEST_CHUNK)}, each packed at most "
            "once, with gzip or lzf",
            found=f"{many} chunks of {readable_size(size)}, packed with "
            + (", ".join(_KNOWN.get(code, f"filter {code}") for code in filters) or "nothing"),
            remedy="write it again with h5py (compression='gzip')",
            kind="unsupported",
        )
    held = _stored_chunks(dataset)
    largest = max((chunk.size for chunk in held), default=0)
    if largest > size + size // 8 + 4096:
        raise InputError(
            doing,
            file=file,
            expected=f"chunks of {readable_size(size)}",
            found=f"one that is stored in {readable_size(largest)}",
            kind="damaged",
        )
    if _DEFLATE not in filters:
        # Without deflate a chunk can't unfold to much more than its size.
        whole: NDArray[Any] = dataset[()]
        return whole
    values = np.full(dataset.shape, dataset.fillvalue, dataset.dtype)
    for chunk in held:
        skipped, raw = dataset.id.read_direct_chunk(chunk.chunk_offset)
        plain = _unfiltered(raw, filters, skipped, size, dataset.dtype.itemsize)
        part = plain.view(dataset.dtype).reshape(dataset.chunks)
        inside = tuple(
            slice(start, min(start + side, n))
            for start, side, n in zip(
                chunk.chunk_offset, dataset.chunks, dataset.shape, strict=True
            )
        )
        if all(one.start < one.stop for one in inside):
            values[inside] = part[tuple(slice(0, one.stop - one.start) for one in inside)]
    return values


def _stored_chunks(dataset: Any) -> list[Any]:
    """Offset and stored size of each chunk that the file holds."""
    if not hasattr(dataset.id, "chunk_iter"):
        return [dataset.id.get_chunk_info(k) for k in range(dataset.id.get_num_chunks())]
    held: list[Any] = []
    dataset.id.chunk_iter(held.append)
    return held


def _unfiltered(
    raw: bytes, filters: list[int], skipped: int, size: int, itemsize: int
) -> NDArray[np.uint8]:
    """The bytes of a chunk behind its filters, of which `skipped` (a bit each) were not applied."""
    for k in reversed(range(len(filters))):
        if skipped >> k & 1:
            continue
        if filters[k] == _CHECKSUM:
            raw = raw[:-4]
        elif filters[k] == _DEFLATE:
            unpacker = zlib.decompressobj()
            # A checksum behind deflate is packed with the values.
            raw = unpacker.decompress(raw, size + 5)
            if not unpacker.eof:
                raise ValueError("a chunk that unfolds to more than its size, or is cut off")
        elif itemsize > 1:
            lanes = np.frombuffer(raw, np.uint8)
            whole = lanes.size // itemsize * itemsize
            mixed = lanes[:whole].reshape(itemsize, -1).T.reshape(-1)
            raw = mixed.tobytes() + lanes[whole:].tobytes()
    if len(raw) != size:
        raise ValueError(f"a chunk of {len(raw)} bytes instead of {size}")
    return np.frombuffer(raw, np.uint8)


def _attributes(store: Any) -> dict[str, Any]:
    """The attributes that are short and that JSON can hold; NaN and infinity become None."""
    found = {}
    for name in store.attrs:
        one = store.attrs.get_id(name)
        if declared_bytes(one.shape or (), one.dtype.itemsize) > _LONGEST_ATTRIBUTE:
            continue
        try:
            found[name] = _plain(store.attrs[name])
        except (TypeError, ValueError, OSError):
            continue
    return found


def _plain(value: Any) -> Any:
    """An attribute as plain Python; raises TypeError for what JSON has no word for."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, (np.ndarray, np.generic)):
        value = value.tolist()
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, (bool, int, float)):
        return value
    raise TypeError(f"an attribute of type {type(value).__name__}")


def write_h5(
    labels: NDArray[np.uint8], case: Case, path: Path, target: TargetSpec | None = None
) -> None:
    """Write a label map (as it is: slices first) as data set `label`, an image that is not uint8 as
    `image`, with the attribute `spacing_zyx_mm`.
    """
    import h5py

    with atomic_write(path) as temporary, h5py.File(temporary, "w") as store:
        name = "label" if labels.dtype == np.uint8 else "image"
        store.create_dataset(name, data=labels, compression="gzip", track_times=False)
        if case.spacing is not None:
            store.attrs["spacing_zyx_mm"] = np.asarray(case.spacing, dtype=np.float64)
