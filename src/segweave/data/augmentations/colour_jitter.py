"""Colour jitter: brightness, contrast, saturation and hue of RGB images."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from segweave.data.augmentations.base import (
    Numbers,
    Samples,
    ValueAugmentation,
    WindowShape,
    per_sample,
)
from segweave.data.specs import InputSpec
from segweave.errors import UsageError
from segweave.registry import AugmentationCard

CARD = AugmentationCard(
    name="colour-jitter",
    title="Brightness, contrast, saturation and hue of RGB images",
    entry="ColourJitter",
    paper="as torchvision's ColorJitter, in a fixed order",
    strong_options={"brightness": 0.5, "contrast": 0.5, "saturation": 0.5, "hue": 0.3},
)
_GREY = (0.2989, 0.587, 0.114)  # ITU-R BT.601, as torchvision rounds it


class ColourJitter(ValueAugmentation):
    """Changes RGB values between 0 (black) and 1 (white), in this order; values are cut to 0..1
    after each step.

    With normalisation `imagenet` these are the values of the 8-bit picture; otherwise black is the
    least value of the case and white the largest of the window's middle slice, for each channel.

    Args:
        brightness: values are multiplied by a factor uniform in 1 ± `brightness`.
        contrast: v becomes m + f (v − m), f in 1 ± `contrast`, m the mean grey of the middle slice.
        saturation: v becomes g + f (v − g), f in 1 ± `saturation`, g the grey of the pixel.
        hue: the hue is turned by a fraction of the circle uniform in ± `hue`, at most 0.5.
    """

    def __init__(
        self,
        *,
        brightness: float = 0.0,
        contrast: float = 0.0,
        saturation: float = 0.0,
        hue: float = 0.0,
    ) -> None:
        if not (min(brightness, contrast, saturation) >= 0 and 0 <= hue <= 0.5):
            raise ValueError("options of colour-jitter: numbers from 0, hue at most 0.5")
        self.strengths = np.asarray([brightness, contrast, saturation, hue])

    @property
    def active(self) -> bool:
        """Whether anything can change at all."""
        return bool(self.strengths.any())

    def check(self, spec: InputSpec) -> None:
        """Raise UsageError for images that are not RGB."""
        if spec.colour_order != "rgb":
            raise UsageError(
                "augmenting images by colour-jitter",
                expected="RGB images (input.colour_order: rgb)",
                found=f"input.colour_order: {spec.colour_order}",
                remedy="use brightness and contrast for grey images",
            )

    def draw(self, stream: np.random.Generator, window: WindowShape) -> Numbers:
        """See `Augmentation.draw`."""
        numbers = self.strengths * (2 * stream.random(4) - 1)
        # A factor below 0 would turn values round.
        return (numbers + np.asarray((1, 1, 1, 0))).clip(min=(0, 0, 0, -1))

    def change(self, samples: Samples, numbers: Tensor) -> Tensor:
        """See `ValueAugmentation.change`."""
        black, white = samples.levels()
        width = (white - black).clamp(min=1e-6)
        rgb = ((samples.image - black) / width).clamp(0, 1)
        brightness, contrast, saturation, hue = (per_sample(n) for n in numbers.unbind(1))
        rgb = (rgb * brightness).clamp(0, 1)
        middle = rgb.shape[1] // 2
        mean = _grey(rgb[:, middle : middle + 1]).mean(dim=(-2, -1), keepdim=True)
        rgb = (mean + contrast * (rgb - mean)).clamp(0, 1)
        grey = _grey(rgb)
        rgb = (grey + saturation * (rgb - grey)).clamp(0, 1)
        if self.strengths[3] > 0:
            rgb = turn_hue(rgb, hue)
        return black + width * rgb


def turn_hue(rgb: Tensor, turn: Tensor) -> Tensor:
    """RGB (N, slices, 3, height, width) in 0..1 with the hue moved by `turn`, a fraction of the
    circle, at the same HSV saturation and value.
    """
    value, least = rgb.amax(2, keepdim=True), rgb.amin(2, keepdim=True)
    chroma = value - least
    safe = torch.where(chroma == 0, torch.ones_like(chroma), chroma)
    red, green, blue = (rgb[:, :, k : k + 1] for k in range(3))
    # In sixths of the circle: 0 at red, 2 at green, 4 at blue.
    hue = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    hue = hue + 6 * turn
    channels = []
    for number in (5, 3, 1):
        k = (number + hue) % 6
        channels.append(value - chroma * torch.minimum(k, 4 - k).clamp(0, 1))
    return torch.cat(channels, dim=2)


def _grey(rgb: Tensor) -> Tensor:
    weights = rgb.new_tensor(_GREY)[:, None, None]
    return (rgb * weights).sum(dim=2, keepdim=True)
