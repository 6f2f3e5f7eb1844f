"""What a job leaves: label maps, the overlay, the table of measurements."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from segweave.data.case import Case
from segweave.data.specs import TargetSpec
from segweave.errors import InputError
from segweave.formats import label_name, write_label
from segweave.formats.dicom_file import is_dicom
from segweave.formats.dicom_source import Origin
from segweave.prediction import Prediction, draw_overlay, measure
from segweave.prediction.measurements import REMARK, as_csv
from segweave.prediction.uncertainty import entropy
from segweave.serve.slices import add_map, add_picture, write_slices
from segweave.workflow.ranking import score_case

FOLDER = "results"
MEDIA_TYPES = {
    ".csv": "text/csv; charset=utf-8",
    ".png": "image/png",
    ".gz": "application/gzip",
    ".dcm": "application/dicom",
}


def write_results(
    folder: Path,
    image: Path,
    prediction: Prediction,
    target: TargetSpec,
    format: str | None,
    card: Mapping[str, Any],
) -> dict[str, str]:
    """Write the results of a prediction into `folder`; returns the name of each → its file.

    `labels` is the label map in the format that suits the image, or in `format`; `array` the same
    as an npz on the case's axes; `overlay` and `measurements`; `probabilities` and
    `uncertainty` (float32 from 0 to 1, slices × height × width) where they were asked for;
    `dicom-seg` where the image is DICOM with the UIDs that such an object refers to. `card` is the
    model card. Raises UsageError where the format can't hold the label map.
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
    origin = Origin(card)
    write_label(
        labels, case, folder / results["labels"], format=format, target=target, origin=origin
    )
    write_label(labels, case, folder / results["array"], format="npz", target=target)
    sheet = draw_overlay(case, labels, target, title=REMARK)
    sheet.save(folder / results["overlay"], format="PNG", compress_level=3)
    table = as_csv(measure(case, labels, target))
    (folder / results["measurements"]).write_text(table, encoding="utf-8")
    if prediction.probabilities is not None:
        results["probabilities"] = "probabilities.npz"
        with (folder / results["probabilities"]).open("wb") as stream:
            np.savez_compressed(stream, probabilities=prediction.probabilities)
    if image.is_dir() or is_dicom(image):
        name = "segmentation.seg.dcm"
        # Images without UIDs have no segmentation object; its format asked for by name is refused.
        with suppress(InputError):
            write_label(labels, case, folder / name, target=target, origin=origin)
            results["dicom-seg"] = name
    doubt = None
    if prediction.uncertainty is not None:
        doubt = score_case(labels, prediction.uncertainty).score
    write_slices(folder, case, labels, target, doubt=doubt)
    if prediction.uncertainty is not None:
        results["uncertainty"] = "uncertainty.npz"
        with (folder / results["uncertainty"]).open("wb") as stream:
            np.savez_compressed(stream, uncertainty=prediction.uncertainty)
        add_map(folder, "uncertainty", prediction.uncertainty, case)
    elif prediction.probabilities is not None:
        maps = (entropy(slice_, target) for slice_ in prediction.probabilities)
        add_map(folder, "entropy", maps, case)
    return results


def write_denoised(
    folder: Path, image: Path, quiet: Case, case: Case, target: TargetSpec
) -> dict[str, str]:
    """Write the denoised image `quiet` of `case`: as a picture of its slices, in the grey values of
    the case's own, and as a file in the unit and geometry of the upload `image`. Returns its name
    among the results → its file.
    """
    add_picture(folder, "denoised", quiet, case)
    several = quiet.image.shape[1] > 1
    named = label_name(image, overlapping=several, slices=case.slices, real=True)
    file = "denoised" + named[named.index(".") :]
    write_label(quiet.image, case, folder / file, target=target)
    return {"denoised": file}
