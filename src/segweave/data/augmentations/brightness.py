"""Brightness: a constant is added to the image."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from segweave.data.augmentations.base import (
    Numbers,
    Samples,
    ValueAugmentation,
    WindowShape,
    per_sample,
    uniform,
)
from segweave.registry import AugmentationCard

CARD = AugmentationCard(
    name="brightness",
    title="Adds a constant to every pixel",
    entry="Brightness",
    strong_options={"strength": 3.0},
)


class Brightness(ValueAugmentation):
    """x + b · sd, b uniform in ± `strength`, sd the standard deviation of each channel in the
    window's middle slice: 0.1 is a tenth of a standard deviation whatever the normalisation.
    (nnU-Net multiplies normalised values instead.)
    """

    def __init__(self, *, strength: float = 0.3) -> None:
        if strength < 0:
            raise ValueError("strength of brightness: a number from 0")
        self.strength = strength

    @property
    def active(self) -> bool:
        """Whether anything can change at all."""
        return self.strength > 0

    def draw(self, stream: np.random.Generator, window: WindowShape) -> Numbers:
        """See `Augmentation.draw`."""
        return np.asarray(uniform(stream, (-self.strength, self.strength)))

    def change(self, samples: Samples, numbers: Tensor) -> Tensor:
        """See `ValueAugmentation.change`."""
        return samples.image + per_sample(numbers) * samples.spread()
