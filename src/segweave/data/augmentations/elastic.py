"""Elastic deformation: a smooth random displacement of all pixels."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from segweave.data.augmentations._sampling import affine_positions
from segweave.data.augmentations.base import Numbers, PositionAugmentation, WindowShape, to_tensor
from segweave.registry import AugmentationCard

CARD = AugmentationCard(
    name="elastic",
    title="Smooth random displacements of image and label",
    entry="Elastic",
    paper="Ronneberger et al., U-Net, MICCAI 2015, Section 3.1",
    changes="positions",
    strong_options={"strength": 0.05},
)


class Elastic(PositionAugmentation):
    """Displacements at `points` × `points` places, evenly spaced from corner to corner, are drawn
    from a normal distribution and interpolated between them by cubics.

    U-Net: 3 × 3 points and a standard deviation of 10 pixels. Neighbouring points that move by more
    than their distance fold the image; keep `strength` well below 1 / `points`.

    Args:
        strength: standard deviation of a displacement along each axis, as a fraction of the image's
            height and width.
        points: how many places along each axis, at least 2.
    """

    def __init__(self, *, strength: float = 0.03, points: int = 3) -> None:
        if strength < 0 or points < 2:
            raise ValueError("options of elastic: strength from 0, points from 2")
        self.strength, self.points = strength, points

    @property
    def active(self) -> bool:
        """Whether anything can change at all."""
        return self.strength > 0

    def draw(self, stream: np.random.Generator, window: WindowShape) -> Numbers:
        """See `Augmentation.draw`."""
        return self.strength * stream.standard_normal((2, self.points, self.points))

    def positions(self, numbers: Numbers, like: Tensor) -> Tensor:
        """See `PositionAugmentation.positions`."""
        size = (like.shape[-2], like.shape[-1])
        field = functional.interpolate(
            to_tensor(numbers, like), size=size, mode="bicubic", align_corners=True
        )
        still = torch.eye(2, 3, dtype=like.dtype, device=like.device)[None]
        return affine_positions(still, size) + 2 * field.movedim(1, -1)
