"""The contract of a network: encode → decode → head, with everything that later steps need carried
in plain tuples.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor, nn

from segweave.errors import UsageError


class Features(NamedTuple):
    """What an encoder gives: `skips` from shallow to deep, `bottleneck`, and in `extra` what later
    steps need besides.
    """

    skips: tuple[Tensor, ...]
    bottleneck: Tensor
    extra: dict[str, Tensor]


class Decoded(NamedTuple):
    """What a decoder gives: its last map (B, C, h, w) and in `extra` inner maps that the head or a
    loss reads.
    """

    map: Tensor
    extra: dict[str, Tensor]


class Output(NamedTuple):
    """What a network gives: `logits` (B, classes, H, W) at the size of the image and named
    auxiliary outputs for losses.
    """

    logits: Tensor
    auxiliary: dict[str, Tensor]


@dataclass(frozen=True)
class Feedback:
    """A network that reads its own earlier mask declares this as `network.feedback`.

    The mask is a float map (B, 1, H, W) of 0 and 1; `encode` takes it under `name`. Training gives
    each sample the mask that `mask_of` made of its last visit, and `first(image)` before that.
    Prediction runs `rounds` passes over a case: the first pass reads `first(image)`, each further
    one the masks of the pass before. In a window each slice has its own mask: (B, S, 1, H, W).

    Attributes:
        name: the keyword under which `encode` takes the mask.
        first: image (B, C, H, W), as the network gets it → first mask (B, 1, H, W).
        rounds: number of passes in prediction, at least 1.
    """

    name: str
    first: Callable[[Tensor], Tensor]
    rounds: int


@dataclass(frozen=True)
class WeightsReport:
    """What loading start values did with each tensor.

    Attributes:
        loaded: names of the network's tensors that were filled.
        missing: names of the network's tensors that keep their start values.
        unused: names of the source's tensors that the network has no use for.
    """

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unused: tuple[str, ...]


class SegmentationNetwork(nn.Module, ABC):
    """A 2D segmentation network. A subclass sets `channels` and `stride` in its constructor.

    `channels` maps each position to a tuple with one channel number a place: `skips` from shallow
    to deep, `bottleneck`, `decoder` (the map before the head), `output` (the classes). `stride`
    leads from image to bottleneck. Height and width of an image must be divisible by `divisor` and
    at least `smallest` (of this instance; its card has them for the default options).
    """

    channels: dict[str, tuple[int, ...]]
    stride: int
    in_channels: int
    classes: int
    divisor: int = 1
    smallest: int = 1
    feedback: Feedback | None = None

    def check_image(self, x: Tensor) -> None:
        """Raise UsageError where `x` is not (B, in_channels, H, W) of a size that works."""
        name = type(self).__name__
        if x.ndim != 4 or x.shape[1] != self.in_channels:
            raise UsageError(
                f"running {name} on an image",
                expected=f"shape (batch, {self.in_channels}, height, width)",
                found=f"shape {tuple(x.shape)}",
                remedy="create the network with as many in_channels as the image has",
            )
        check_size(
            name,
            int(x.shape[-2]),
            int(x.shape[-1]),
            divisor=self.divisor,
            smallest=self.smallest,
        )

    @abstractmethod
    def encode(self, x: Tensor, **inputs: Tensor) -> Features:
        """(B, C, H, W) → features. Raises UsageError for a size that the network cannot take."""

    @abstractmethod
    def decode(self, features: Features) -> Decoded:
        """Features → the map before the head."""

    @abstractmethod
    def head(self, decoded: Decoded, size: tuple[int, int]) -> Output:
        """The last map → logits at `size` = (height, width) of the image."""

    def forward(self, x: Tensor, **inputs: Tensor) -> Output:
        """(B, C, H, W) → Output, the three steps one after the other."""
        return self.head(
            self.decode(self.encode(x, **inputs)), size=(int(x.shape[-2]), int(x.shape[-1]))
        )


def mask_of(output: Output, *, exclusive: bool) -> Tensor:
    """Output → the mask that `Feedback` takes next: 1 where any foreground class is predicted.

    Args:
        output: its logits are (B, classes, H, W).
        exclusive: whether channel 0 is the background and exactly one class holds at a pixel;
            otherwise each channel is one sigmoid, and foreground is a probability above a half.

    Returns:
        float (B, 1, H, W) of 0 and 1, without a gradient, of the type of the logits.
    """
    logits = output.logits.detach()
    if exclusive:
        foreground = logits.argmax(1, keepdim=True) > 0
    else:
        foreground = (logits > 0).any(1, keepdim=True)
    return foreground.to(logits.dtype)


def check_size(name: str, height: int, width: int, *, divisor: int, smallest: int) -> None:
    """Raise UsageError naming sizes that work where an image size breaks a network's size rule."""
    if height % divisor == 0 and width % divisor == 0 and min(height, width) >= smallest:
        return

    def near(n: int) -> int:
        return max(smallest, round(n / divisor) * divisor, divisor)

    raise UsageError(
        f"running {name} on an image of {height}×{width}",
        expected=f"height and width divisible by {divisor} and at least {smallest}",
        found=f"{height}×{width}",
        remedy=f"resize or pad to {near(height)}×{near(width)}",
    )
