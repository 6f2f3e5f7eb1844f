"""What a job leaves: label maps, the overlay, the table of measurements, and what slices are drawn
from.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segweave.data.case import Case
from segweave.data.specs import TargetSpec
from segweave.formats import label_name, write_label
from segweave.prediction import Prediction, display_slices, draw_overlay, draw_slice, measure
from segweave.prediction.measurements import REMARK, as_csv
from segweave.storage import read_json, write_json

FOLDER = "results"
MEDIA_TYPES = {
    ".csv": "text/csv; charset=utf-8",
    ".png": "image/png",
    ".gz": "application/gzip",
}
_PIXELS, _LABELS, _SLICES = "slices.npy", "slice-labels.npy", "slices.json"


def write_results(
    folder: Path, image: Path, prediction: Prediction, target: TargetSpec, format: str | None
) -> dict[str, str]:
    """Write the results of a prediction into `folder`; returns the name of each → its file.

    `labels` is the label map in the format that suits the image, or in `format`; `array` the same
    as an npz on the case's axes; `overlay` and `measurements`; `probabilities` and
    `uncertainty` (float32 from 0 to 1, slices × height × width) where they were asked for. Raises
    UsageError where the format can't hold the label map.
    """
    case, labels = prediction.case, prediction.labels
    overlapping = target.kind == "overlapping"
    named = label_name(image, overlapping=overlapping, slices=case.slices, format=format)
    # The ending alone: what stands before it is the server's name of the upload.
    results = {
        "labels": "labels" + named[named.index(".") :],
        "array": "array.npz",
        "overlay": "overlay.png",
        "measurements": "measurements.csv",
    }
    write_label(labels, case, folder / results["labels"], target=target)
    write_label(labels, case, folder / results["array"], format="npz", target=target)
    sheet = draw_overlay(case, labels, target, title=REMARK)
    sheet.save(folder / results["overlay"], format="PNG", compress_level=3)
    table = as_csv(measure(case, labels, target))
    (folder / results["measurements"]).write_text(table, encoding="utf-8")
    if prediction.probabilities is not None:
        results["probabilities"] = "probabilities.npz"
        with (folder / results["probabilities"]).open("wb") as stream:
            np.savez_compressed(stream, probabilities=prediction.probabilities)
    if prediction.uncertainty is not None:
        results["uncertainty"] = "uncertainty.npz"
        with (folder / results["uncertainty"]).open("wb") as stream:
            np.savez_compressed(stream, uncertainty=prediction.uncertainty)
    _write_slices(folder, case, labels, target)
    return results


def _write_slices(folder: Path, case: Case, labels: NDArray[np.uint8], target: TargetSpec) -> None:
    """Pixels and labels of every slice as arrays that are read a slice at a time."""
    colour = case.image.shape[1] == 3
    shape = (case.slices, *case.size, 3) if colour else (case.slices, *case.size)
    pixels = np.lib.format.open_memmap(folder / _PIXELS, "w+", np.uint8, shape)
    for number, picture in enumerate(display_slices(case)):
        pixels[number] = picture if colour else picture[..., 0]
    pixels.flush()
    np.save(folder / _LABELS, labels)
    steps = None if case.spacing is None else [float(step) for step in case.spacing[1:]]
    about = {
        "slices": case.slices,
        "size": list(case.size),
        "steps": steps,
        "target": target.model_dump(mode="json"),
    }
    write_json(folder / _SLICES, about)


def slices_of(folder: Path) -> dict[str, Any]:
    """How many slices the results in `folder` have, and their size in pixels (rows, columns)."""
    return read_json(folder / _SLICES, "reading the slices of a job")


def slice_png(folder: Path, number: int, *, labels: bool = True, opacity: float = 0.28) -> bytes:
    """Slice `number` (from 0) of the results in `folder` as a PNG, with its classes over it where
    `labels`. Raises IndexError where there is none.
    """
    about = slices_of(folder)
    if not 0 <= number < about["slices"]:
        raise IndexError(number)
    pixels = np.load(folder / _PIXELS, mmap_mode="r")[number]
    picture = np.ascontiguousarray(pixels if pixels.ndim == 3 else np.stack([pixels] * 3, -1))
    label = np.array(np.load(folder / _LABELS, mmap_mode="r")[number]) if labels else None
    steps, target = about["steps"], TargetSpec.model_validate(about["target"])
    spacing = None if steps is None else (steps[0], steps[1])
    drawn = draw_slice(picture, label, target, spacing=spacing, opacity=opacity)
    stream = io.BytesIO()
    drawn.save(stream, format="PNG")
    return stream.getvalue()
