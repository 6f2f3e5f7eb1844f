"""Flip: mirroring along rows and along columns, each with its own probability."""

from __future__ import annotations

import numpy as np

from segweave.data.augmentations._affine import AffineAugmentation
from segweave.data.augmentations.base import Numbers, WindowShape
from segweave.registry import AugmentationCard

CARD = AugmentationCard(
    name="flip",
    title="Mirrors image and label, with a probability for each axis",
    entry="Flip",
    changes="positions",
    strong_options={"rows": 1.0, "columns": 1.0},
)


class Flip(AffineAugmentation):
    """Mirroring, drawn for each axis on its own. `geometry` mirrors too, but its probability is
    that of all its changes together.

    Args:
        rows: probability of left-right mirroring within each row.
        columns: probability of up-down mirroring.
    """

    def __init__(self, *, rows: float = 0.5, columns: float = 0.5) -> None:
        if not (0 <= rows <= 1 and 0 <= columns <= 1):
            raise ValueError("rows and columns of flip: probabilities from 0 to 1")
        self.odds = (rows, columns)

    @property
    def active(self) -> bool:
        """Whether anything can change at all."""
        return any(self.odds)

    def draw(self, stream: np.random.Generator, window: WindowShape) -> Numbers:
        """See `Augmentation.draw`."""
        matrix = np.zeros((2, 3))
        for axis, odds in enumerate(self.odds):
            matrix[axis, axis] = -1.0 if stream.random() < odds else 1.0
        return matrix
