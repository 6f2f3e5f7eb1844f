"""The row of pictures of a case whose image was predicted: noisy, true and predicted images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segweave.data.case import Case
from segweave.data.specs import TargetSpec
from segweave.metrics import compute_metric


def row_of_images(
    case: Case, predictions: Mapping[str, NDArray[Any]], target: TargetSpec
) -> dict[str, Any]:
    """The middle slice of a case, its true image and the predicted ones, each in its first channel
    and in the grey values of the target's range; PSNR below: the fields of a `Panel`.
    """
    assert case.label is not None
    assert target.range is not None
    index, (low, high) = case.slices // 2, target.range
    truth = np.clip(np.asarray(case.label[index, 0], np.float64), low, high)
    shown = {arm: np.clip(image[index, 0], low, high) for arm, image in predictions.items()}
    values = {
        arm: compute_metric("psnr", image, truth, data_range=high - low)
        for arm, image in shown.items()
    }
    return {
        "title": f"{case.id}, slice {index + 1}" if case.slices > 1 else case.id,
        "image": np.clip(np.asarray(case.image[index, 0], np.float64), low, high),
        "truth": truth,
        "predictions": {arm: image.astype(np.float64) for arm, image in shown.items()},
        "notes": {arm: f"PSNR {value:.2f} dB" for arm, value in values.items()},
        "pixel": case.spacing[1] / case.spacing[2] if case.spacing else 1.0,
    }
