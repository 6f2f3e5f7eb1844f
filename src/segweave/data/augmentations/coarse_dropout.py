"""Coarse dropout: squares of the image turn black."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from segweave.data.augmentations.base import Numbers, Samples, ValueAugmentation, WindowShape
from segweave.registry import AugmentationCard

CARD = AugmentationCard(
    name="coarse-dropout",
    title="Squares at random places turn black; the label stays",
    entry="CoarseDropout",
    paper="DeVries and Taylor, Improved Regularization of Convolutional Neural Networks with "
    "Cutout, arXiv:1708.04552; several holes as in Albumentations",
    strong_options={"holes": 12, "size": 0.4},
)


class CoarseDropout(ValueAugmentation):
    """`holes` squares, at the same places in every slice of a window, get the value of black (see
    `Samples.levels`). They lie within the image and may overlap.

    Args:
        holes: how many, at least 1.
        size: height and width of a hole as a fraction of the image's, 0 < size ≤ 1.
    """

    def __init__(self, *, holes: int = 8, size: float = 1 / 32) -> None:
        if holes < 1 or not 0 < size <= 1:
            raise ValueError("options of coarse-dropout: holes from 1, 0 < size ≤ 1")
        self.holes, self.size = holes, size

    def draw(self, stream: np.random.Generator, window: WindowShape) -> Numbers:
        """See `Augmentation.draw`."""
        return stream.random((self.holes, 2))

    def change(self, samples: Samples, numbers: Tensor) -> Tensor:
        """See `ValueAugmentation.change`."""
        inside = []
        for axis, length in enumerate(samples.image.shape[-2:]):
            side = max(1, round(self.size * length))
            first = (numbers[:, :, axis] * (length - side + 1)).floor().clamp(max=length - side)
            pixels = torch.arange(length, device=first.device)
            inside.append((pixels >= first[..., None]) & (pixels < first[..., None] + side))
        rows, columns = inside
        holes = (rows[..., :, None] & columns[..., None, :]).any(dim=1)[:, None, None]
        black, _ = samples.levels()
        return torch.where(holes, black, samples.image)
