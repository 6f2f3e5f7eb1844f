"""What the slices of a job are drawn from: pictures, labels and heat maps, read a slice at a time.

Whoever writes results may add to them, and the page shows what it finds: `add_picture` for another
picture of the same slices (a denoised one), `add_map` for an array of 0 to 1 on the case's grid (an
uncertainty), which becomes a heat map over them.
"""

from __future__ import annotations

import gzip
import io
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segweave.data.case import Case
from segweave.data.specs import TargetSpec
from segweave.errors import UsageError
from segweave.prediction import direction_letters, display_slices, draw_slice
from segweave.storage import read_json, write_json

IMAGE = "image"
_PIXELS, _LABELS, _SLICES = "slices.npy", "slice-labels.npy", "slices.json"
_PICTURE, _MAP = "picture-", "map-"
_NAME = re.compile("[a-z][a-z0-9-]{0,30}")


def write_slices(
    folder: Path,
    case: Case,
    labels: NDArray[np.uint8],
    target: TargetSpec,
    *,
    doubt: float | None = None,
) -> None:
    """Write pixels and labels of every slice into the folder of results. `doubt` is what
    `segweave rank` would score the case, None where it is not known.
    """
    _write_picture(folder / _PIXELS, case)
    np.save(folder / _LABELS, labels)
    steps = None if case.spacing is None else [float(step) for step in case.spacing[1:]]
    about = {
        "slices": case.slices,
        "size": list(case.size),
        "steps": steps,
        "affine": None if case.affine is None else case.affine.tolist(),
        "spacing": None if case.spacing is None else [float(step) for step in case.spacing],
        "edges": direction_letters(case),
        "stack": case.stack,
        "doubt": doubt,
        "target": target.model_dump(mode="json"),
    }
    write_json(folder / _SLICES, about)


def add_picture(folder: Path, name: str, case: Case, like: Case | None = None) -> None:
    """Add another picture of the slices, of the size of the case's: the image of `case`, in the
    grey values in which the case `like` is shown (its own where None).
    """
    _write_picture(folder / f"{_PICTURE}{_checked(name)}.npy", case, like)


def add_map(folder: Path, name: str, slices: Iterable[NDArray[Any]], case: Case) -> None:
    """Add a heat map: one array of 0 to 1 (height, width) for each slice of the case."""
    file = folder / f"{_MAP}{_checked(name)}.npy"
    shape = (case.slices, *case.size)
    map = np.lib.format.open_memmap(file, "w+", np.uint8, shape)
    for number, values in enumerate(slices):
        map[number] = np.rint(np.clip(np.nan_to_num(values), 0, 1) * 255).astype(np.uint8)
    map.flush()


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise UsageError("adding to the slices of a job", expected="a plain name", found=repr(name))
    return name


def _write_picture(file: Path, case: Case, like: Case | None = None) -> None:
    colour = case.image.shape[1] == 3
    shape = (case.slices, *case.size, 3) if colour else (case.slices, *case.size)
    pixels = np.lib.format.open_memmap(file, "w+", np.uint8, shape)
    for number, picture in enumerate(display_slices(case, like)):
        pixels[number] = picture if colour else picture[..., 0]
    pixels.flush()


def slices_of(folder: Path) -> dict[str, Any]:
    """How many slices the results in `folder` have, their size in pixels (rows, columns), and what
    their classes are.
    """
    return read_json(folder / _SLICES, "reading the slices of a job")


def pictures_of(folder: Path) -> list[str]:
    """The names of the pictures: `image`, and those that were added."""
    return [IMAGE, *_names(folder, _PICTURE)]


def maps_of(folder: Path) -> list[str]:
    """The names of the heat maps."""
    return _names(folder, _MAP)


def _names(folder: Path, kind: str) -> list[str]:
    return sorted(path.stem.removeprefix(kind) for path in folder.glob(f"{kind}*.npy"))


def labels_of(folder: Path) -> NDArray[np.uint8]:
    """All labels, (slices, height, width) or (slices, classes, height, width), read as needed."""
    labels: NDArray[np.uint8] = np.load(folder / _LABELS, mmap_mode="r")
    return labels


def picture_png(folder: Path, name: str, number: int) -> bytes:
    """Slice `number` (from 0) of a picture as a PNG, pixel by pixel. Raises
    IndexError where there is none.
    """
    from PIL import Image

    if name not in pictures_of(folder):
        raise IndexError(name)
    file = _PIXELS if name == IMAGE else f"{_PICTURE}{name}.npy"
    stream = io.BytesIO()
    Image.fromarray(_slice(folder / file, number)).save(stream, format="PNG", compress_level=1)
    return stream.getvalue()


def map_slice(folder: Path, name: str, number: int) -> NDArray[np.uint8]:
    """Slice `number` (from 0) of a heat map, 255 for 1. Raises IndexError where there is none."""
    if name not in maps_of(folder):
        raise IndexError(name)
    return _slice(folder / f"{_MAP}{name}.npy", number)


def label_slice(folder: Path, number: int) -> NDArray[np.uint8]:
    """The labels of slice `number` (from 0). Raises IndexError where there is none."""
    return _slice(folder / _LABELS, number)


def _slice(file: Path, number: int) -> NDArray[np.uint8]:
    values = np.load(file, mmap_mode="r")
    if not 0 <= number < len(values):
        raise IndexError(number)
    return np.array(values[number])


def slice_png(folder: Path, number: int, *, labels: bool = True, opacity: float = 0.28) -> bytes:
    """Slice `number` (from 0) of the results in `folder` as a PNG, with its classes over it where
    `labels`. Raises IndexError where there is none.
    """
    about = slices_of(folder)
    pixels = _slice(folder / _PIXELS, number)
    picture = np.ascontiguousarray(pixels if pixels.ndim == 3 else np.stack([pixels] * 3, -1))
    label = label_slice(folder, number) if labels else None
    steps, target = about["steps"], TargetSpec.model_validate(about["target"])
    spacing = None if steps is None else (steps[0], steps[1])
    drawn = draw_slice(picture, label, target, spacing=spacing, opacity=opacity)
    stream = io.BytesIO()
    drawn.save(stream, format="PNG")
    return stream.getvalue()


def volume_nifti(folder: Path, labels: NDArray[np.uint8] | None = None) -> bytes:
    """The picture of the slices, or their `labels`, as a packed NIfTI for a viewer: on the case's
    axes, in its geometry, of the displayed grey values. No header of the upload is in it. Where
    classes overlap, a voxel gets the number of its last class, counted from 1.
    """
    import nibabel as nib

    about = slices_of(folder)
    values = np.load(folder / _PIXELS, mmap_mode="r") if labels is None else labels
    if labels is not None and labels.ndim == 4:
        values = np.zeros((len(labels), *labels.shape[2:]), np.uint8)
        for number in range(labels.shape[1]):
            values[labels[:, number] > 0] = number + 1
    elif labels is None and values.ndim == 4:
        values = np.rint(values.mean(-1)).astype(np.uint8)
    affine = np.diag([*(about.get("spacing") or (1.0, 1.0, 1.0)), 1.0])
    if about.get("affine") is not None:
        affine = np.asarray(about["affine"])
    # (slice, row, column) → (column, row, slice)
    turned = nib.Nifti1Image(np.transpose(values, (2, 1, 0)), affine[:, [2, 1, 0, 3]])
    turned.header.set_xyzt_units("mm")
    content: bytes = turned.to_bytes()
    return gzip.compress(content, 1, mtime=0)
