"""Averages at test time: an image and its mirror images, and several networks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from segweave.errors import UsageError, nearest

if TYPE_CHECKING:
    from torch import Tensor

Flips = Literal["none", "rows", "columns", "both"]
"""Which mirror images are predicted too, in the words of the augmentation's `mirror`: along `rows`
(left-right), along `columns` (up-down), or `both` (four images in all)."""

_AXES: dict[Flips, tuple[tuple[int, ...], ...]] = {
    "none": ((),),
    "rows": ((), (-1,)),
    "columns": ((), (-2,)),
    "both": ((), (-1,), (-2,), (-2, -1)),
}


def check_flips(flips: str) -> None:
    """Raise UsageError for a name that is not one of `Flips`."""
    if flips not in _AXES:
        raise UsageError(
            "flipping images at test time",
            found=repr(flips),
            remedy=nearest(flips, get_args(Flips)),
        )


def with_flips(image: Tensor, flips: Flips) -> Tensor:
    """(1, channels, height, width) → (views, channels, height, width), the image itself first."""
    if flips == "none":
        return image
    # Here, so that the names of flips are known without torch.
    import torch

    return torch.cat([image.flip(axes) if axes else image for axes in _AXES[flips]])


def boxes_of_flips(box: Tensor, size: tuple[int, int], flips: Flips) -> Tensor:
    """A box (4,) of x0, y0, x1, y1 in an image of `size` (height, width) → the boxes (views, 4) in
    the image and its mirror images.
    """
    import torch

    height, width = size
    views = []
    for axes in _AXES[flips]:
        x0, y0, x1, y1 = box.unbind()
        if -1 in axes:
            x0, x1 = width - 1 - x1, width - 1 - x0
        if -2 in axes:
            y0, y1 = height - 1 - y1, height - 1 - y0
        views.append(torch.stack([x0, y0, x1, y1]))
    return torch.stack(views)


def mean_of_flips(maps: Sequence[Tensor], flips: Flips) -> Tensor:
    """Maps (..., height, width) of the views, in their order → the mean of all mirrored back."""
    if flips == "none":
        return maps[0]
    import torch

    return torch.stack(mirrored_back(maps, flips)).mean(0)


def mirrored_back(maps: Sequence[Tensor], flips: Flips) -> list[Tensor]:
    """Maps (..., height, width) of the views, in their order → all as the image itself lies."""
    views = zip(maps, _AXES[flips], strict=True)
    return [view.flip(axes) if axes else view for view, axes in views]


def views_of(flips: Flips) -> int:
    """How many images are predicted for one: itself and its mirror images."""
    return len(_AXES[flips])


def mean_maps(members: Sequence[Iterator[NDArray[np.float32]]]) -> Iterator[NDArray[np.float32]]:
    """The maps of each network, slice by slice → their mean, slice by slice."""
    for maps in zip(*members, strict=True):
        total = maps[0].copy()
        for one in maps[1:]:
            total += one
        yield total / np.float32(len(maps))
