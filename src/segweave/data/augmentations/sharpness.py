"""Sharpness: the image is moved away from a smoothed copy of itself, or towards it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from segweave.data.augmentations.base import (
    Samples,
    UniformAugmentation,
    check_range,
    per_sample,
)
from segweave.registry import AugmentationCard

CARD = AugmentationCard(
    name="sharpness",
    title="Sharpens each slice, or smooths it",
    entry="Sharpness",
    paper="as Pillow's ImageEnhance.Sharpness and torchvision's adjust_sharpness",
    strong_options={"factor": (6.0, 8.0)},
)


class Sharpness(UniformAugmentation):
    """s + f · (x − s), f uniform between the two numbers of `factor`, s the mean of 3×3 pixels in
    which the middle one counts five times; the image's outermost pixels stay. Values are cut to
    black and white (see `Samples.levels`). f = 0 smooths, 1 changes nothing.
    """

    def __init__(self, *, factor: tuple[float, float] = (1.0, 1.1)) -> None:
        check_range("sharpness", "factor", factor, 0.0)
        self.limits = (factor[0], factor[1])

    @property
    def active(self) -> bool:
        """Whether anything can change at all."""
        return self.limits != (1.0, 1.0)

    def change(self, samples: Samples, numbers: Tensor) -> Tensor:
        """See `ValueAugmentation.change`."""
        image = samples.image
        height, width = image.shape[-2:]
        kernel = image.new_ones(1, 1, 3, 3)
        kernel[..., 1, 1] = 5
        planes = image.reshape(-1, 1, height, width)
        smooth = planes.clone()
        smooth[..., 1:-1, 1:-1] = functional.conv2d(planes, kernel / 13)
        smooth = smooth.reshape(image.shape)
        sharpened = smooth + per_sample(numbers) * (image - smooth)
        black, white = samples.levels()
        return torch.maximum(torch.minimum(sharpened, white), black)
