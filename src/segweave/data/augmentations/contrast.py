"""Contrast: values are stretched away from their mean, or drawn towards it."""

from __future__ import annotations

from torch import Tensor

from segweave.data.augmentations.base import Samples, UniformAugmentation, check_range, per_sample
from segweave.registry import AugmentationCard

CARD = AugmentationCard(
    name="contrast",
    title="Multiplies the difference from the mean by a factor",
    entry="Contrast",
    paper="contrast as in nnU-Net: Isensee et al., Nature Methods 2021",
    strong_options={"factor": (0.2, 0.3)},
)


class Contrast(UniformAugmentation):
    """m + f · (x − m), f uniform between the two numbers of `factor`, m the mean of each channel in
    the window's middle slice. The result stays between the least and the largest value of each
    slice, as in nnU-Net. f has no unit, so that the normalisation does not matter.
    """

    def __init__(self, *, factor: tuple[float, float] = (0.75, 1.25)) -> None:
        check_range("contrast", "factor", factor, 0.0)
        self.limits = (factor[0], factor[1])

    @property
    def active(self) -> bool:
        """Whether anything can change at all."""
        return self.limits != (1, 1)

    def change(self, samples: Samples, numbers: Tensor) -> Tensor:
        """See `ValueAugmentation.change`."""
        image, mean = samples.image, samples.mean()
        axes = (-2, -1)
        changed = mean + per_sample(numbers) * (image - mean)
        return changed.clamp(image.amin(axes, keepdim=True), image.amax(axes, keepdim=True))
