"""Augmentation of a whole batch by one affine sampling: each sample's draw depends on (seed, epoch,
case, slice) alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from segweave.runtime.randomness import numpy_stream

if TYPE_CHECKING:
    import torch

Mirror = Literal["none", "rows", "columns", "both"]


class Augmentation(BaseModel):
    """What training images are turned into.

    Independent draws, one of each a sample: `rotation` uniform in ± that many degrees, `scale`
    uniform in 1 ± that fraction, `shift` uniform in ± that fraction of the image's height and
    width, `mirror` along `rows` (left-right within each row), `columns` (up-down) or `both` with
    probability 1/2 each (`true` means both), `rot90` turns by 0, 90, 180 or 270 degrees alike. A
    sample is left alone with probability 1 - `probability`. What comes from beyond the image's edge
    is the case's least value; its label is background. Images are sampled by `interpolation`,
    labels always by nearest neighbour.

    `odds: released` is the released training's rule instead: with probability 1/2 a quarter turn
    and one flip, that is one of four reflections; with 1/4 a turn by a whole number of degrees in
    -20..19; with 1/4 nothing; nearest neighbour for image and label. (There it happens before the
    image is brought to the network's size, here after.)
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    odds: Literal["independent", "released"] = "independent"
    probability: float = Field(default=1.0, ge=0, le=1)
    rotation: float = Field(default=0.0, ge=0, le=180)
    scale: float = Field(default=0.0, ge=0, lt=1)
    shift: float = Field(default=0.0, ge=0, lt=1)
    mirror: Mirror = "none"
    rot90: bool = False
    interpolation: Literal["linear", "nearest"] = "linear"

    @model_validator(mode="before")
    @classmethod
    def _plain_mirror(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(values.get("mirror"), bool):
            return {**values, "mirror": "both" if values["mirror"] else "none"}
        return values

    @model_validator(mode="after")
    def _check(self) -> Augmentation:
        if self.odds == "released":
            own = self.model_fields_set - {"odds"}
            changed = [name for name in sorted(own) if getattr(self, name) != _default(name)]
            if changed:
                raise ValueError(f"odds 'released' fixes everything; remove {', '.join(changed)}")
        return self

    @property
    def active(self) -> bool:
        """Whether anything can happen at all."""
        still = (self.rotation, self.scale, self.shift) == (0, 0, 0)
        return self.odds == "released" or not (still and self.mirror == "none" and not self.rot90)

    @property
    def nearest(self) -> bool:
        """Whether images too are sampled by nearest neighbour."""
        return self.odds == "released" or self.interpolation == "nearest"

    def draw(
        self, seed: int, epoch: int, case: str, slice_index: int, size: tuple[int, int]
    ) -> NDArray[np.float64]:
        """The 2×3 matrix of one sample, from output to input positions, both (x, y) in -1..1 over
        the image's outer edges; `size` is (height, width).
        """
        stream = numpy_stream(seed, "augmentation", epoch=epoch, case=case, slice_index=slice_index)
        draw = _draw_released if self.odds == "released" else self._draw_independent
        return draw(stream, size)

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


def augment(
    image: torch.Tensor,
    label: torch.Tensor,
    matrices: NDArray[np.float64],
    outside: torch.Tensor,
    *,
    nearest: bool = False,
    overwrite: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sample windows (B, S, C, h, w) and labels (B, h, w) or (B, K, h, w) at `matrices` (B, 2, 3).

    All slices of a window and its label move together. `outside` (B, C) fills what lies beyond the
    edges; labels are 0 there. The label keeps its dtype; the result is on the image's device.
    `overwrite` allows the image's memory to be worked in, which saves a copy.
    """
    import torch

    batch, slices, channels, height, width = image.shape
    planes = image.reshape(batch, slices * channels, height, width)
    maps = label.reshape(batch, -1, height, width)
    fill = outside.to(image).repeat(1, slices)[:, :, None, None]
    theta = torch.from_numpy(np.ascontiguousarray(matrices, np.float32)).to(image.device)
    reflections = [_reflection(matrix, square=height == width) for matrix in matrices]
    rest = [number for number, reflection in enumerate(reflections) if reflection is None]
    if len(rest) == batch:
        own = planes if overwrite else planes.clone()
        moved, moved_label = _sample(own, maps, theta, fill, nearest)
        return moved.reshape(image.shape), moved_label.reshape(label.shape)
    moved, moved_label = torch.empty_like(planes), torch.empty_like(maps)
    for number, reflection in enumerate(reflections):
        if reflection is None:
            continue
        # Nothing is computed where the pixels only change places.
        swapped, flips = reflection
        for source, target in ((planes, moved), (maps, moved_label)):
            picture = source[number].mT if swapped else source[number]
            target[number] = picture.flip(flips) if flips else picture
    if rest:
        moved[rest], moved_label[rest] = _sample(
            planes[rest], maps[rest], theta[rest], fill[rest], nearest
        )
    return moved.reshape(image.shape), moved_label.reshape(label.shape)


def _sample(
    planes: torch.Tensor,
    maps: torch.Tensor,
    theta: torch.Tensor,
    fill: torch.Tensor,
    nearest: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`planes` and `maps` (B, C, h, w) read at `theta` (B, 2, 3). Spoils `planes`: for arrays of
    this size, asking the system for fresh memory costs as much as the work.
    """
    from torch.nn.functional import grid_sample

    grid = _positions(theta, (planes.shape[-2], planes.shape[-1]))
    mode = "nearest" if nearest else "bilinear"
    # Beyond the edges grid_sample knows only zeros.
    moved = grid_sample(
        planes.sub_(fill), grid, mode=mode, padding_mode="zeros", align_corners=False
    ).add_(fill)
    moved_maps = grid_sample(
        maps.to(planes.dtype), grid, mode="nearest", padding_mode="zeros", align_corners=False
    ).to(maps.dtype)
    return moved, moved_maps


def _positions(theta: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Where each output pixel is read, (B, h, w, 2): torch's `affine_grid` for matrices of two
    dimensions, as sums along rows and columns, which take a tenth of its time.
    """
    import torch

    x, y = ((2 * torch.arange(n, device=theta.device) + 1) / n - 1 for n in reversed(size))
    grid = theta.new_empty(len(theta), *size, 2)
    for axis in (0, 1):
        across = theta[:, axis, 0, None, None] * x
        down = theta[:, axis, 1, None, None] * y[:, None] + theta[:, axis, 2, None, None]
        torch.add(across, down, out=grid[..., axis])
    return grid


def _reflection(matrix: NDArray[np.float64], *, square: bool) -> tuple[bool, list[int]] | None:
    """(are rows and columns exchanged, the axes that are turned round after that) of a matrix under
    which pixels only change places; None for any other.
    """
    (a, b, right), (c, d, down) = matrix.tolist()
    if right or down:
        return None
    if b == 0 == c and abs(a) == 1 == abs(d):
        return False, [axis for axis, sign in ((-2, d), (-1, a)) if sign < 0]
    if square and a == 0 == d and abs(b) == 1 == abs(c):
        return True, [axis for axis, sign in ((-2, b), (-1, c)) if sign < 0]
    return None


def draw_batch(
    augmentation: Augmentation,
    seed: int,
    epoch: int,
    keys: Sequence[tuple[str, int]],
    size: tuple[int, int],
) -> NDArray[np.float64]:
    """The matrices (B, 2, 3) of the samples (case, slice) in `keys`."""
    return np.stack([augmentation.draw(seed, epoch, case, index, size) for case, index in keys])


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


def _default(name: str) -> Any:
    return Augmentation.model_fields[name].default
