"""Geometry: rotation, scale, shift, mirroring and quarter turns as one affine sampling."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from segweave.data.augmentations._affine import AffineAugmentation
from segweave.data.augmentations.base import WindowShape
from segweave.data.specs import GeometryOptions
from segweave.registry import AugmentationCard

CARD = AugmentationCard(
    name="geometry",
    title="Rotation, scale, shift, mirroring and quarter turns as one affine sampling",
    entry="Geometry",
    changes="positions",
    strong_options={"rotation": 60.0, "scale": 0.2, "shift": 0.1, "mirror": "both"},
)


class Geometry(GeometryOptions, AffineAugmentation):  # noqa: D101 (that of its options)
    __doc__ = GeometryOptions.__doc__

    own_odds: ClassVar[bool] = True

    @property
    def active(self) -> bool:
        """Whether anything can happen at all."""
        still = (self.rotation, self.scale, self.shift) == (0, 0, 0)
        return self.odds == "released" or not (still and self.mirror == "none" and not self.rot90)

    @property
    def nearest(self) -> bool:
        """Whether images too are sampled by nearest neighbour."""
        return self.odds == "released" or self.interpolation == "nearest"

    def draw(self, stream: np.random.Generator, window: WindowShape) -> NDArray[np.float64]:
        """The 2×3 matrix of one sample, from output to input positions, both (x, y) in -1..1
        between the image's outer edges.
        """
        draw = _draw_released if self.odds == "released" else self._draw_independent
        return draw(stream, (window.height, window.width))

    def _draw_independent(
        self, stream: np.random.Generator, size: tuple[int, int]
    ) -> NDArray[np.float64]:
        # Everything is drawn whether it is used or not, so that switching one kind on leaves the
        # others as they were.
        chance, angle, factor, right, down, first, second = stream.random(7)
        quarter = int(stream.integers(4))
        matrix = np.zeros((2, 3))
        if chance >= self.probability:
            matrix[:, :2] = np.eye(2)
            return matrix
        linear = _turn(math.radians(self.rotation * (2 * angle - 1)), size)
        linear = linear / (1 + self.scale * (2 * factor - 1))
        if self.rot90:
            linear = _quarter_turns(quarter) @ linear
        if self.mirror in ("rows", "both") and first < 0.5:
            linear[0] *= -1
        if self.mirror in ("columns", "both") and second < 0.5:
            linear[1] *= -1
        matrix[:, :2] = linear
        matrix[:, 2] = 2 * self.shift * (2 * right - 1), 2 * self.shift * (2 * down - 1)
        return matrix


def _draw_released(stream: np.random.Generator, size: tuple[int, int]) -> NDArray[np.float64]:
    matrix = np.zeros((2, 3))
    linear = np.eye(2)
    if stream.random() < 0.5:
        quarter, axis = int(stream.integers(4)), int(stream.integers(2))
        linear = _quarter_turns(quarter)
        # NumPy's axis 0 are the rows, that is y. The flip comes last, so it meets the output first.
        flip = np.diag([1.0, -1.0] if axis == 0 else [-1.0, 1.0])
        linear = linear @ flip
    elif stream.random() < 0.5:
        linear = _turn(math.radians(int(stream.integers(-20, 20))), size)
    matrix[:, :2] = linear
    return matrix


def _turn(angle: float, size: tuple[int, int]) -> NDArray[np.float64]:
    """Output to input for a turn of the picture by `angle`, counter-clockwise as it is looked at,
    square pixels on an image of any shape.
    """
    height, width = size
    cosine, sine = math.cos(angle), math.sin(angle)
    return np.array(
        [[cosine, -sine * height / width], [sine * width / height, cosine]], dtype=np.float64
    )


def _quarter_turns(count: int) -> NDArray[np.float64]:
    """Output to input for `count` turns by 90 degrees (numpy.rot90's direction), exact."""
    turns = ((1, 0), (0, 1)), ((0, -1), (1, 0)), ((-1, 0), (0, -1)), ((0, 1), (-1, 0))
    return np.array(turns[count % 4], dtype=np.float64)
