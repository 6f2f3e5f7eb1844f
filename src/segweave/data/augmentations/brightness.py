"""Brightness: a constant is added to the image."""

from __future__ import annotations

from torch import Tensor

from segweave.data.augmentations.base import Samples, UniformAugmentation, per_sample
from segweave.registry import AugmentationCard

CARD = AugmentationCard(
    name="brightness",
    title="Adds a constant to every pixel",
    entry="Brightness",
    strong_options={"strength": 3.0},
)


class Brightness(UniformAugmentation):
    """x + b · sd, b uniform in ± `strength`, sd the standard deviation of each channel in the
    window's middle slice: 0.1 is a tenth of a standard deviation whatever the normalisation.
    (nnU-Net multiplies normalised values instead.)
    """

    def __init__(self, *, strength: float = 0.3) -> None:
        if strength < 0:
            raise ValueError("strength of brightness: a number from 0")
        self.limits = (-strength, strength)

    @property
    def active(self) -> bool:
        """Whether anything can change at all."""
        return self.limits[1] > 0

    def change(self, samples: Samples, numbers: Tensor) -> Tensor:
        """See `ValueAugmentation.change`."""
        return samples.image + per_sample(numbers) * samples.spread()
