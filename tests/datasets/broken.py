"""Ways to break the files of a data set, one fault each."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np


def rewrite(
    path: Path, change: Callable[[Any], Any] | None = None, affine: Any = None, **header: Any
) -> None:
    """Rewrite a NIfTI file with changed voxels, affine or fields of the header."""
    image = nibabel.load(path)
    values = np.asarray(image.dataobj)
    values = values if change is None else change(values)
    own = image.header.copy()
    own.set_data_dtype(values.dtype)
    own.set_data_shape(values.shape)
    if affine is not None:
        own.set_sform(affine, code=1)
        own.set_qform(None, code=0)
    # The loaded header has forgotten where the voxels begin.
    own["vox_offset"] = 352
    for name, value in header.items():
        own[name] = value
    raw = bytes(own.binaryblock) + bytes(4) + values.tobytes(order="F")
    path.write_bytes(gzip.compress(raw) if path.name.endswith(".gz") else raw)


def truncate(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def turned(path: Path, degrees: float = 8.0) -> Any:
    """The file's affine, turned about the z axis."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn = np.array([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    return turn @ nibabel.load(path).affine


def huge(path: Path) -> None:
    """A header that declares 64 TiB."""
    rewrite(path, dim=(3, 32767, 32767, 32767, 1, 1, 1, 1))


def seven(values: Any) -> Any:
    """One voxel of an id that no data set has."""
    values = values.astype(np.uint8).copy()
    values.ravel()[values.size // 2] = 77
    return values


def break_pairs(pairs: list[tuple[Path, Path]]) -> dict[str, tuple[str, Path]]:
    """Break eight cases (image, label), each in its own way; returns fault → (kind of problem,
    the file that must be named).
    """
    images, labels = [p[0] for p in pairs], [p[1] for p in pairs]
    truncate(images[0])
    labels[1].rename(labels[1].with_name(f"odd-{labels[1].name}"))
    rewrite(labels[2], seven)
    rewrite(labels[3], lambda v: v[:-1])
    rewrite(labels[4], affine=turned(labels[4]))
    huge(images[5])
    labels[6].unlink()
    twin = images[7].with_name(images[7].name.removesuffix(".gz"))
    twin.write_bytes(gzip.decompress(images[7].read_bytes()))
    return {
        "truncated": ("damaged", images[0]),
        "renamed": ("missing", labels[1]),
        "renamed, itself": ("unused", labels[1].with_name(f"odd-{labels[1].name}")),
        "wrong label values": ("labels", labels[2]),
        "another shape": ("size", labels[3]),
        "rotated affine": ("geometry", labels[4]),
        "huge header": ("damaged", images[5]),
        "missing mask": ("missing", labels[6]),
        "two cases with one id": ("same-id", twin),
    }
