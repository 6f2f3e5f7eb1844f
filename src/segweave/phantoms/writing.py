"""Writes synthetic volumes and pictures; the same arguments give the same bytes."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segweave.storage import atomic_write

_PICTURES = {".png": "PNG", ".jpg": "JPEG", ".tif": "TIFF", ".tiff": "TIFF", ".bmp": "BMP"}


def write_picture(pixels: NDArray[np.generic], path: Path, *, quality: int = 90) -> None:
    """Write (height, width) or (height, width, 3) in the format of the ending; `quality` is that
    of JPEG.
    """
    kind = _PICTURES[path.suffix]
    options = {"quality": quality} if kind == "JPEG" else {}
    with atomic_write(path) as temporary:
        Image.fromarray(pixels).save(temporary, format=kind, **options)


def write_nifti(header: Any, voxels: NDArray[np.generic], path: Path) -> None:
    """Write voxels (x, y, z) as .nii.gz; their type, size and scaling are entered in the header."""
    header.set_data_dtype(voxels.dtype)
    header.set_data_shape(voxels.shape)
    header["vox_offset"], header["scl_slope"], header["scl_inter"] = 352, 1, 0
    header["magic"] = b"n+1"
    raw = bytes(header.binaryblock) + bytes(4) + voxels.tobytes(order="F")
    with atomic_write(path) as temporary:
        # No time inside.
        temporary.write_bytes(gzip.compress(raw, 6, mtime=0))
