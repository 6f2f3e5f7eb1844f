"""Masks that a person corrects on the page: slices that replace those of the network, kept beside
the results of a job until it is deleted.
"""

from __future__ import annotations

import shutil
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segweave.data.specs import TargetSpec
from segweave.serve.limits import RefusedError
from segweave.serve.results import FOLDER
from segweave.serve.slices import label_slice, labels_of, slices_of
from segweave.storage import atomic_write

CORRECTIONS = "corrections"


def corrected_slices(home: Path) -> list[int]:
    """The slices (from 0) of the job in `home` that were corrected."""
    return sorted(int(file.stem) for file in (home / CORRECTIONS).glob("*.slice"))


def corrected_slice(home: Path, number: int) -> NDArray[np.uint8]:
    """The labels of a slice (from 0) as they were corrected, or as the network made them. Raises
    IndexError where there is no such slice.
    """
    labels = label_slice(home / FOLDER, number)
    with suppress(FileNotFoundError):
        content = zlib.decompress(_file(home, number).read_bytes())
        labels = np.frombuffer(content, np.uint8).reshape(labels.shape)
    return labels


def corrected_labels(home: Path) -> NDArray[np.uint8]:
    """All labels with the corrections in them."""
    labels = np.array(labels_of(home / FOLDER))
    for number in corrected_slices(home):
        labels[number] = corrected_slice(home, number)
    return labels


def write_correction(home: Path, number: int, content: bytes) -> None:
    """Replace the labels of slice `number` (from 0) by `content`, a byte for each pixel. What
    equals the labels of the network stops being a correction.

    Raises IndexError where there is no such slice, RefusedError (422) for another number of bytes
    and for ids that are no classes.
    """
    labels = label_slice(home / FOLDER, number)
    target = TargetSpec.model_validate(slices_of(home / FOLDER)["target"])
    most = len(target.names) - 1 if target.kind == "exclusive" else 1
    highest = max(content, default=0)
    if len(content) != labels.size or highest > most:
        raise RefusedError(
            422,
            "correcting a slice",
            expected=f"{labels.size} bytes, class ids of 0 to {most}",
            found=f"{len(content)} bytes"
            if len(content) != labels.size
            else f"the class id {highest}",
        )
    if content == labels.tobytes():
        _file(home, number).unlink(missing_ok=True)
        return
    with atomic_write(_file(home, number)) as temporary:
        temporary.write_bytes(zlib.compress(content, 1))


def drop_corrections(home: Path) -> None:
    """Go back to the labels of the network."""
    shutil.rmtree(home / CORRECTIONS, ignore_errors=True)


def _file(home: Path, number: int) -> Path:
    return home / CORRECTIONS / f"{number:06d}.slice"
