"""What a network adds to its image: the result of a denoiser is the image plus a correction."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_IMAGE = "image"


def image_of(x: Tensor, classes: int) -> dict[str, Tensor]:
    """The image (B, C, H, W) to be carried to the head in `extra`; nothing where the result has
    another number of channels, `classes`, so that it can't be added.
    """
    return {_IMAGE: x} if x.shape[1] == classes else {}


def start_near_image(last: nn.Conv2d | nn.ConvTranspose2d) -> None:
    """Start values of the last layer with which the correction is small and the result is about the
    image. Not 0, where the layers before it would get no gradient.
    """
    nn.init.normal_(last.weight, std=1e-3)
    if last.bias is not None:
        nn.init.zeros_(last.bias)


def with_image(correction: Tensor, extra: dict[str, Tensor], *, rectified: bool = False) -> Tensor:
    """The correction (B, classes, H, W) plus the image that `extra` carries, if it does; then, if
    `rectified`, a ReLU.
    """
    if _IMAGE not in extra:
        return correction
    result = extra[_IMAGE] + correction
    return torch.relu(result) if rectified else result
