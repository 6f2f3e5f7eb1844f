"""Uncertain points of a coarse prediction, predicted again from fine features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

_SHARE = 64
"""One of so many pixels of the image is predicted again in each step."""
_CANDIDATES = 3
_IMPORTANT = 0.75
Size = tuple[int, int]


class PointRendering(nn.Module):
    """A point-wise network reads features and the coarse logits at points; where the coarse
    prediction is least certain, its answer replaces it.

    Kirillov et al., PointRend, CVPR 2020, with its numbers: in training three times as many random
    pixels are drawn as are needed, the least certain of them make three quarters of the points, and
    random ones the rest; in prediction the logits are doubled in size step by step, and in each the
    least certain pixels are predicted again. One point for 64 pixels of the image, in each step.

    Certainty is |logit| for one class, and the difference of the two largest logits otherwise.

    Args:
        channels: of all feature maps together.
        classes: channels of the logits.
        width: of the three hidden layers, each of which reads the coarse logits again.
    """

    def __init__(self, channels: int, classes: int, *, width: int = 256) -> None:
        super().__init__()
        inputs = (channels, width, width)
        self.hidden = nn.ModuleList(nn.Linear(n + classes, width) for n in inputs)
        self.last = nn.Linear(width + classes, classes)

    def forward(self, features: Tensor, coarse: Tensor) -> Tensor:
        """Features (B, N, C) and coarse logits (B, N, classes) of N points → logits (B, N,
        classes).
        """
        x = features
        for layer in self.hidden:
            x = layer(torch.cat([x, coarse.to(x.dtype)], 2)).relu()
        logits: Tensor = self.last(torch.cat([x, coarse.to(x.dtype)], 2))
        return logits

    def subdivided(self, coarse: Tensor, features: Sequence[Tensor], size: Size) -> Tensor:
        """Coarse logits (B, classes, h, w) and maps of any size → logits (B, classes, *size)."""
        x = coarse
        while x.shape[-2:] != size:
            step = (min(2 * x.shape[-2], size[0]), min(2 * x.shape[-1], size[1]))
            x = functional.interpolate(x, size=step, mode="bilinear", align_corners=False)
            count = min(points_of(size), step[0] * step[1])
            chosen = uncertainty(x.flatten(2)).topk(count).indices
            x = _replaced(x, chosen, self._again(chosen, step, coarse, features))
        return x

    def sampled(
        self, coarse: Tensor, features: Sequence[Tensor], size: Size
    ) -> tuple[Tensor, Tensor]:
        """What the loss of the points reads: logits (B, classes, *size), those of the point-wise
        network at the points and the coarse ones, without a gradient, elsewhere; and a map (B, 1,
        *size) that is 1 at the points. In eval mode nothing is drawn: the least certain are taken.
        """
        full = functional.interpolate(coarse, size=size, mode="bilinear", align_corners=False)
        full = full.detach()
        doubt, count = uncertainty(full.flatten(2)), points_of(size)
        chosen = _drawn(doubt, count) if self.training else doubt.topk(count).indices
        rendered = _replaced(full, chosen, self._again(chosen, size, coarse, features))
        points = torch.zeros_like(doubt).scatter(1, chosen, 1).reshape(-1, 1, *size)
        return rendered, points

    def _again(
        self, chosen: Tensor, size: Size, coarse: Tensor, features: Sequence[Tensor]
    ) -> Tensor:
        """New logits (B, N, classes) of the pixels `chosen` (B, N) of a map of this size."""
        rows = torch.div(chosen, size[1], rounding_mode="floor")
        axes = [
            (position.to(coarse.dtype if coarse.dtype == torch.float64 else torch.float32) + 0.5)
            * (2 / side)
            - 1
            for position, side in ((chosen - rows * size[1], size[1]), (rows, size[0]))
        ]
        grid = torch.stack(axes, -1)[:, :, None]
        read = torch.cat([_at(map, grid) for map in features], 2)
        return self(read, _at(coarse, grid))


def points_of(size: Size) -> int:
    """How many points an image of this size has in each step."""
    return max(1, size[0] * size[1] // _SHARE)


def uncertainty(logits: Tensor) -> Tensor:
    """Logits (B, classes, N) → (B, N), at most 0, which is the least certain."""
    if logits.shape[1] == 1:
        return -logits[:, 0].abs()
    first, second = logits.topk(2, dim=1).values.unbind(1)
    return second - first


def _drawn(doubt: Tensor, count: int) -> Tensor:
    """Importance sampling: indices (B, count) of different pixels."""
    pixels = doubt.shape[1]
    important = min(count, int(_IMPORTANT * count + 0.5))
    others = count - important
    candidates = min(_CANDIDATES * count, pixels - others)
    order = torch.rand_like(doubt, dtype=torch.float32).topk(candidates + others).indices
    drawn, rest = order[:, :candidates], order[:, candidates:]
    best = doubt.gather(1, drawn).topk(important).indices
    return torch.cat([drawn.gather(1, best), rest], 1)


def _at(map: Tensor, grid: Tensor) -> Tensor:
    """A map (B, C, h, w) at points (B, N, 1, 2) of [-1, 1]², bilinear → (B, N, C)."""
    values = functional.grid_sample(
        map.to(grid.dtype), grid, padding_mode="border", align_corners=False
    )
    return values.squeeze(3).mT


def _replaced(logits: Tensor, chosen: Tensor, values: Tensor) -> Tensor:
    """Logits (B, classes, H, W) with other ones (B, N, classes) at the pixels `chosen` (B, N)."""
    index = chosen[:, None].expand(-1, logits.shape[1], -1)
    flat = logits.flatten(2).scatter(2, index, values.mT.to(logits.dtype))
    return flat.view_as(logits)
