"""A loss on boundaries: of the predicted classes, or of a boundary map that the network gives."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from segweave.data.specs import TargetSpec
from segweave.errors import UsageError
from segweave.registry import LossCard
from segweave.training.losses._targets import (
    channel_targets,
    label_targets,
    mean_where,
    probabilities,
)

CARD = LossCard(
    name="boundary",
    title="Dice on the classes' soft boundaries, or cross-entropy of a boundary map",
    entry="BoundaryLoss",
    paper="soft boundaries after Bokhovkin and Burnaev, ISNN 2019; boundary map: Liao et al., "
    "HarDNet-DFUS, arXiv:2209.07313",
)


class BoundaryLoss(nn.Module):
    """Compares boundaries with those of the label, which are derived here.

    With E the least and D the largest value within `radius` pixels (a square; beyond the image's
    edge 0), the boundary of a map y is y − E(y) for `side: inner` and D(y) − y for `outer`.

    `of: classes` reads class logits, p the probabilities, and is the mean over classes of
    1 − (2 Σ b(p)·b(t) + 1) / (Σ b(p)² + Σ b(t)² + 1). `of: boundary` reads a map of boundary
    logits with any number of channels; it is the mean binary cross-entropy against b(t), class by
    class where there are as many channels as classes, else each channel against the boundaries of
    all classes together. Pixels with the target's ignored label do not count.

    Args:
        target: what the classes are.
        of: what the map holds, "classes" or "boundary".
        side: "inner" boundaries are inside the class, "outer" ones around it.
        radius: width of the boundary in pixels, at least 1.
        released: for `of: boundary`, the map passes one more sigmoid in front, as in the released
            code of HarDNet-DFUS, so that no probability is below a half or above 0.74. Its edge map
            is the inner boundary of radius 1.
    """

    def __init__(
        self,
        target: TargetSpec,
        *,
        of: Literal["classes", "boundary"] = "classes",
        side: Literal["inner", "outer"] = "inner",
        radius: int = 1,
        released: bool = False,
    ) -> None:
        super().__init__()
        if released and of != "boundary":
            raise UsageError(
                "creating the loss 'boundary'",
                expected="of: boundary, where released is true",
                found=f"of {of!r}",
            )
        if of not in ("classes", "boundary") or side not in ("inner", "outer") or radius < 1:
            raise UsageError(
                "creating the loss 'boundary'",
                expected="of: classes or boundary, side: inner or outer, radius ≥ 1",
                found=f"of {of!r}, side {side!r}, radius {radius}",
            )
        self.target, self.of, self.side, self.radius = target, of, side, radius
        self.released = released

    def forward(self, map: Tensor, label: Tensor) -> Tensor:
        """A map (B, channels, H, W), label (B, H, W) → a number."""
        if self.of == "boundary":
            return self._of_boundary_map(map, label)
        truth, counted = channel_targets(map, label, self.target)
        predicted = self._boundary(probabilities(map, self.target) * counted) * counted
        wanted = self._boundary(truth) * counted
        axes = (0, 2, 3)
        overlap = (predicted * wanted).sum(dim=axes)
        size = (predicted**2).sum(dim=axes) + (wanted**2).sum(dim=axes)
        loss: Tensor = (1 - (2 * overlap + 1) / (size + 1)).mean()
        return loss

    def _of_boundary_map(self, map: Tensor, label: Tensor) -> Tensor:
        truth, counted = label_targets(label, self.target, map.dtype)
        if map.shape[0] != truth.shape[0] or map.shape[-2:] != truth.shape[-2:]:
            raise UsageError(
                "computing the loss 'boundary'",
                expected=f"a boundary map of the label's size {tuple(truth.shape[-2:])}",
                found=f"shape {tuple(map.shape)}",
            )
        wanted = self._boundary(truth)
        if map.shape[1] != truth.shape[1]:
            if self.target.kind == "exclusive":
                wanted = wanted[:, 1:]  # a boundary of the background is one of another class too
            wanted = wanted.amax(dim=1, keepdim=True)
            counted = counted.amin(dim=1, keepdim=True)
        logits = map.sigmoid() if self.released else map
        entropy = functional.binary_cross_entropy_with_logits(
            logits, wanted.expand_as(map), reduction="none"
        )
        return mean_where(entropy, counted.expand_as(map))

    def _boundary(self, maps: Tensor) -> Tensor:
        size, padding = 2 * self.radius + 1, (self.radius,) * 4
        sign = -1 if self.side == "inner" else 1
        padded = functional.pad(sign * maps, padding)  # zeros: there is no class outside
        extreme = functional.max_pool2d(padded, size, stride=1)
        return torch.sub(extreme, sign * maps)
