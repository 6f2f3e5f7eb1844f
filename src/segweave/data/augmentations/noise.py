"""Noise: independent Gaussian noise on every pixel."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from segweave.data.augmentations.base import (
    Numbers,
    Samples,
    ValueAugmentation,
    WindowShape,
    check_range,
    uniform,
)
from segweave.registry import AugmentationCard

CARD = AugmentationCard(
    name="noise",
    title="Adds Gaussian noise to every pixel",
    entry="Noise",
    paper="Gaussian noise as in nnU-Net: Isensee et al., Nature Methods 2021",
    strong_options={"strength": (0.5, 0.6)},
)


class Noise(ValueAugmentation):
    """x + s · sd · n, n from a standard normal distribution, s uniform between the two numbers of
    `strength`, sd the standard deviation of each channel in the window's middle slice: 0.1 is a
    tenth of a standard deviation whatever the normalisation.

    The slices of a window share s. Each has a separate n, because equal noise could be subtracted.
    That of the middle slice is drawn first, so that it does not depend on the window's length.
    """

    def __init__(self, *, strength: tuple[float, float] = (0.0, 0.3)) -> None:
        check_range("noise", "strength", strength, 0.0)
        self.strength = strength

    @property
    def active(self) -> bool:
        """Whether anything can change at all."""
        return self.strength[1] > 0

    def draw(self, stream: np.random.Generator, window: WindowShape) -> Numbers:
        """See `Augmentation.draw`."""
        strength = uniform(stream, self.strength)
        middle = window.slices // 2
        field = np.empty(window, np.float32)
        for index in sorted(range(window.slices), key=lambda k: (abs(k - middle), k)):
            field[index] = stream.standard_normal(window[1:], np.float32)
        return strength * field

    def change(self, samples: Samples, numbers: Tensor) -> Tensor:
        """See `ValueAugmentation.change`."""
        return samples.image + numbers * samples.spread()
