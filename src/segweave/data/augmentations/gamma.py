"""Gamma: a power of the grey values between black and white."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from segweave.data.augmentations.base import (
    Numbers,
    Samples,
    ValueAugmentation,
    WindowShape,
    check_range,
    per_sample,
)
from segweave.registry import AugmentationCard

CARD = AugmentationCard(
    name="gamma",
    title="Raises the values between black and white to a power",
    entry="Gamma",
    paper="gamma as in nnU-Net: Isensee et al., Nature Methods 2021",
    strong_options={"power": (3.0, 4.0)},
)


class Gamma(ValueAugmentation):
    """black + (white − black) · ((x − black) / (white − black))^γ.

    With normalisation `imagenet` black and white are those of an 8-bit picture; otherwise black is
    the least value of the case and white the largest of the window's middle slice. log γ is uniform
    between the logarithms of the two numbers of `power`.

    Args:
        power: limits of γ, above 0; below 1 an image gets brighter.
        keep_statistics: bring each channel back to the mean and standard deviation that its middle
            slice had, as nnU-Net does.
    """

    def __init__(
        self, *, power: tuple[float, float] = (0.7, 1.5), keep_statistics: bool = True
    ) -> None:
        check_range("gamma", "power", power, 1e-3)
        self.power, self.keep_statistics = (power[0], power[1]), keep_statistics

    @property
    def active(self) -> bool:
        """Whether anything can change at all."""
        return self.power != (1, 1)

    def draw(self, stream: np.random.Generator, window: WindowShape) -> Numbers:
        """See `Augmentation.draw`."""
        low, high = np.log(self.power)
        return np.asarray(np.exp(low + (high - low) * stream.random()))

    def change(self, samples: Samples, numbers: Tensor) -> Tensor:
        """See `ValueAugmentation.change`."""
        black, white = samples.levels()
        width = (white - black).clamp(min=1e-6)
        grey = ((samples.image - black) / width).clamp(min=0)
        changed = black + width * grey ** per_sample(numbers)
        if not self.keep_statistics:
            return changed
        after = samples._replace(image=changed)
        scale = samples.spread() / after.spread().clamp(min=1e-6)
        return (changed - after.mean()) * scale + samples.mean()
