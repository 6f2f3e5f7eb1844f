"""What an augmentation is: it draws numbers for each sample and applies them to a whole batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from segweave.data.inputs import IMAGENET_MEAN, IMAGENET_SD
from segweave.data.specs import InputSpec

if TYPE_CHECKING:
    import torch
    from torch import Tensor


Numbers = NDArray[np.floating[Any]]
"""What was drawn: for one sample, or for N samples with N as the first axis."""


class WindowShape(NamedTuple):
    """The shape of one sample's window."""

    slices: int
    channels: int
    height: int
    width: int


class Samples(NamedTuple):
    """The samples of a batch that an augmentation is applied to.

    Attributes:
        image: normalised windows, float32 (N, slices, channels, height, width).
        maps: what moves with the image by nearest neighbour, uint8 (N, K, height, width): the
            label, and the masks of a network with feedback.
        outside: (N, channels), the normalised value of a pixel that is beyond the image's edge.
        spec: how the images were normalised.
    """

    image: Tensor
    maps: Tensor
    outside: Tensor
    spec: InputSpec

    def spread(self) -> Tensor:
        """Standard deviation of each channel of the middle slice, (N, 1, channels, 1, 1)."""
        return self._middle().std(dim=(-2, -1), keepdim=True, correction=0)

    def mean(self) -> Tensor:
        """Mean of each channel of the middle slice, (N, 1, channels, 1, 1)."""
        return self._middle().mean(dim=(-2, -1), keepdim=True)

    def levels(self) -> tuple[Tensor, Tensor]:
        """The normalised values of black and white, each (N, 1, channels, 1, 1).

        With normalisation `imagenet`, those of an RGB value of 0 and of 1. Otherwise black is the
        least value of the case, and white the largest of the middle slice.
        """
        if self.spec.normalisation == "imagenet":
            mean = self.image.new_tensor(IMAGENET_MEAN)[None, None, :, None, None]
            sd = self.image.new_tensor(IMAGENET_SD)[None, None, :, None, None]
            ones = self.image.new_ones(len(self.image), 1, 1, 1, 1)
            return ones * (-mean / sd), ones * ((1 - mean) / sd)
        return self.outside[:, None, :, None, None], self._middle().amax(dim=(-2, -1), keepdim=True)

    def _middle(self) -> Tensor:
        middle = self.image.shape[1] // 2
        return self.image[:, middle : middle + 1]


class Augmentation(ABC):
    """One augmentation. A plug-in derives from ValueAugmentation or PositionAugmentation.

    Its constructor takes the options of the recipe by keyword and raises ValueError or UsageError
    for those that are out of range.
    """

    own_odds: ClassVar[bool] = False
    """Whether `draw` itself decides if a sample is changed. Then the constructor takes the recipe's
    `probability`; for all others the plan draws that first."""

    @property
    def active(self) -> bool:
        """Whether anything can change at all."""
        return True

    def check(self, spec: InputSpec) -> None:
        """Raise UsageError where images of this kind can't be augmented."""
        del spec

    @abstractmethod
    def draw(self, stream: np.random.Generator, window: WindowShape) -> Numbers:
        """The numbers of one sample, an array of the same shape for all samples of a training.

        Draw the same count of numbers whatever the options are, so that an option changes nothing
        else.
        """

    @abstractmethod
    def apply(self, samples: Samples, numbers: Numbers) -> Samples:
        """The changed samples; `numbers` (N, ...) are those that `draw` returned. The tensors that
        are given may be overwritten.
        """


class ValueAugmentation(Augmentation):
    """Changes the values of images; labels stay."""

    @abstractmethod
    def change(self, samples: Samples, numbers: Tensor) -> Tensor:
        """The new image (N, slices, channels, height, width); `numbers` (N, ...) as drawn, float32
        on the image's device.
        """

    def apply(self, samples: Samples, numbers: Numbers) -> Samples:
        """See `Augmentation.apply`."""
        return samples._replace(image=self.change(samples, to_tensor(numbers, samples.image)))


class UniformAugmentation(ValueAugmentation):
    """Changes values by one number per sample, uniform between the two `limits`."""

    limits: tuple[float, float]

    def draw(self, stream: np.random.Generator, window: WindowShape) -> Numbers:
        """See `Augmentation.draw`."""
        return np.asarray(uniform(stream, self.limits))


class PositionAugmentation(Augmentation):
    """Moves pixels; image and label move together, images by linear interpolation."""

    @abstractmethod
    def positions(self, numbers: Numbers, like: Tensor) -> Tensor:
        """Where each pixel of the result is read, (N, height, width, 2): (x, y) from -1 to 1
        between the image's outer edges. `like` gives size, dtype and device.
        """

    def apply(self, samples: Samples, numbers: Numbers) -> Samples:
        """See `Augmentation.apply`."""
        from segweave.data.augmentations._sampling import read_at

        image, maps = samples.image, samples.maps
        planes = image.flatten(1, 2)
        fill = samples.outside.repeat(1, image.shape[1])[:, :, None, None]
        grid = self.positions(numbers, planes)
        moved, moved_maps = read_at(planes, maps, grid, fill, nearest=False)
        return samples._replace(image=moved.reshape(image.shape), maps=moved_maps)


def uniform(stream: np.random.Generator, limits: tuple[float, float]) -> float:
    """A number between the limits."""
    return float(limits[0] + (limits[1] - limits[0]) * stream.random())


def to_tensor(numbers: NDArray[Any], like: torch.Tensor) -> torch.Tensor:
    """Drawn numbers with the dtype of `like`, on its device."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(numbers)).to(like.device, like.dtype)


def per_sample(numbers: Tensor) -> Tensor:
    """(N,) → (N, 1, 1, 1, 1), to be joined with images."""
    return numbers.reshape(-1, 1, 1, 1, 1)


def check_range(name: str, option: str, limits: tuple[float, float], least: float) -> None:
    """Raise ValueError unless least ≤ limits[0] ≤ limits[1]."""
    if not least <= limits[0] <= limits[1]:
        raise ValueError(f"{option} of {name}: two numbers from {least}, the lower first")
