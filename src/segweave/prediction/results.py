"""What a prediction is, and what predicts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from segweave.data.boxes import CaseBoxes
from segweave.data.case import Case
from segweave.data.specs import TargetSpec
from segweave.runtime.progress import Progress


@dataclass(frozen=True, eq=False)
class Prediction:
    """The result for one case.

    Attributes:
        labels: uint8 (slices, height, width) on the case's own grid, with a class axis after slices
            where classes overlap; where the network predicts an image, its values in the unit of
            the source, float32 (slices, channels, height, width).
        probabilities: float32 (slices, classes, height, width), or None where not asked for.
        case: the case.
    """

    labels: NDArray[Any]
    probabilities: NDArray[np.float32] | None
    case: Case


class Predicts(Protocol):
    """What `predict_files` asks: a Session, or a server that has one."""

    @property
    def target(self) -> TargetSpec:
        """What the classes are."""

    @property
    def card(self) -> Mapping[str, Any]:
        """What summaries report about the model."""

    def check_boxes(self, given: object | None) -> None:
        """Raise UsageError where boxes are needed and none are given, or the other way round."""

    def predict(
        self,
        case: Case,
        *,
        boxes: CaseBoxes | None = None,
        probabilities: bool = False,
        progress: Progress | None = None,
    ) -> Prediction:
        """Segment a case, as `Session.predict` does."""
