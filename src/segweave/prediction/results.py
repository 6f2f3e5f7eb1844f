"""What a prediction is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segweave.data.case import Case


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
