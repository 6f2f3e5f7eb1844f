"""What a prediction is, and whether it can come before another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segweave.data.case import Case
from segweave.data.specs import TargetSpec
from segweave.errors import UsageError


@dataclass(frozen=True, eq=False)
class Prediction:
    """The result for one case.

    Attributes:
        labels: uint8 (slices, height, width) on the case's own grid, with a class axis after slices
            where classes overlap; where the network predicts an image, its values in the unit of
            the source, float32 (slices, channels, height, width).
        probabilities: float32 (slices, classes, height, width), or None where not asked for; at the
            temperature of the model card where there is one.
        case: the case.
        uncertainty: float32 (slices, height, width), 0 to 1, or None where not asked for.
    """

    labels: NDArray[Any]
    probabilities: NDArray[np.float32] | None
    case: Case
    uncertainty: NDArray[np.float32] | None = None


def check_denoises(target: TargetSpec) -> None:
    """Raise UsageError where a model with this target can't denoise before another."""
    if target.task != "image":
        raise UsageError(
            "denoising before a prediction",
            expected="a model that predicts an image",
            found=f"one with a target of kind {target.kind} ({', '.join(target.names)})",
        )
