"""Shear: rows slide along each other, and columns too."""

from __future__ import annotations

import math

import numpy as np

from segweave.data.augmentations._affine import AffineAugmentation
from segweave.data.augmentations.base import Numbers, WindowShape
from segweave.registry import AugmentationCard

CARD = AugmentationCard(
    name="shear",
    title="Shears image and label about the image's centre",
    entry="Shear",
    changes="positions",
    strong_options={"rows": 40.0, "columns": 30.0},
)


class Shear(AffineAugmentation):
    """A pixel at (x, y) from the centre is read at (x + y tan a, y + x tan b), square pixels.

    Args:
        rows: degrees below 90; a, by which rows slide, is uniform in ± this.
        columns: degrees below 90; b, by which columns slide, is uniform in ± this.
    """

    def __init__(self, *, rows: float = 10.0, columns: float = 0.0) -> None:
        if not (0 <= rows < 90 and 0 <= columns < 90):
            raise ValueError("rows and columns of shear: degrees from 0, below 90")
        if math.tan(math.radians(rows)) * math.tan(math.radians(columns)) >= 1:
            # The image would fold to a line where both reach their limit.
            raise ValueError("rows and columns of shear: together less than 90 degrees")
        self.limits = (rows, columns)

    @property
    def active(self) -> bool:
        """Whether anything can change at all."""
        return any(self.limits)

    def draw(self, stream: np.random.Generator, window: WindowShape) -> Numbers:
        """See `Augmentation.draw`."""
        a, b = (math.tan(math.radians(limit * (2 * stream.random() - 1))) for limit in self.limits)
        ratio = window.height / window.width
        return np.asarray([[1.0, a * ratio, 0.0], [b / ratio, 1.0, 0.0]])
