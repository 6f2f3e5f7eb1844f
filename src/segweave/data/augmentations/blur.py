"""Blur: a Gaussian filter within each slice."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from segweave.data.augmentations.base import Samples, UniformAugmentation, check_range, per_sample
from segweave.registry import AugmentationCard

CARD = AugmentationCard(
    name="blur",
    title="Gaussian blur within each slice",
    entry="Blur",
    paper="Gaussian blur as in nnU-Net: Isensee et al., Nature Methods 2021",
    strong_options={"sigma": (1.5, 2.0)},
)


class Blur(UniformAugmentation):
    """A Gaussian filter whose standard deviation in pixels of the network's grid is uniform between
    the two numbers of `sigma`. The filter ends at three times the larger number; beyond the image
    its edge pixels repeat.
    """

    def __init__(self, *, sigma: tuple[float, float] = (0.5, 1.0)) -> None:
        check_range("blur", "sigma", sigma, 0.0)
        self.limits = sigma

    @property
    def active(self) -> bool:
        """Whether anything can change at all."""
        return self.limits[1] > 0

    def change(self, samples: Samples, numbers: Tensor) -> Tensor:
        """See `ValueAugmentation.change`."""
        reach = math.ceil(3 * self.limits[1])
        offsets = torch.arange(-reach, reach + 1, device=numbers.device, dtype=numbers.dtype)
        weights = torch.exp(-0.5 * (offsets / numbers.clamp(min=1e-3)[:, None]) ** 2)
        weights = weights / weights.sum(dim=1, keepdim=True)
        image = samples.image
        shape, planes = image.shape, image.flatten(1, 2)
        # A sum over shifted copies rounds in the same way in every batch; a grouped convolution
        # need not.
        for axis, padding in ((-2, (0, 0, reach, reach)), (-1, (reach, reach, 0, 0))):
            padded = functional.pad(planes, padding, mode="replicate").reshape(
                *shape[:3], *_grown(shape, axis, reach)
            )
            total = torch.zeros_like(image)
            for step in range(2 * reach + 1):
                shifted = padded.narrow(axis, step, shape[axis])
                total = total + per_sample(weights[:, step]) * shifted
            planes = total.flatten(1, 2)
        return planes.reshape(shape)


def _grown(shape: torch.Size, axis: int, reach: int) -> tuple[int, int]:
    height, width = shape[-2:]
    return (height + 2 * reach, width) if axis == -2 else (height, width + 2 * reach)
