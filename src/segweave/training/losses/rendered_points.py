"""Cross-entropy at the points that a network predicts a second time."""

from __future__ import annotations

from torch import Tensor, nn

from segweave.data.specs import TargetSpec
from segweave.errors import UsageError, nearest
from segweave.networks.base import Output
from segweave.registry import LossCard
from segweave.training.losses._targets import mean_where, pixel_cross_entropy

CARD = LossCard(
    name="rendered-points",
    title="Cross-entropy at the points that a rendering module predicts again",
    entry="RenderedPointsLoss",
    paper="Kirillov et al., PointRend, CVPR 2020",
    reads="all",
)


class RenderedPointsLoss(nn.Module):
    """The mean cross-entropy over the points that count (over points and channels where the target
    is binary or overlapping). Pixels with the target's ignored label do not count.

    Args:
        target: what the classes are.
        output: the auxiliary output that holds the logits (B, classes, H, W).
        points: the auxiliary output (B, 1, H, W) that is 1 at the points and 0 elsewhere.
    """

    def __init__(
        self,
        target: TargetSpec,
        *,
        output: str = "rendered",
        points: str = "rendered-points",
    ) -> None:
        super().__init__()
        self.target, self.output, self.points = target, output, points

    def forward(self, output: Output, label: Tensor) -> Tensor:
        """The network's output and the label (B, H, W) → a number."""
        maps = output.auxiliary
        for name in (self.output, self.points):
            if name not in maps:
                raise UsageError(
                    "computing the loss 'rendered-points'",
                    expected="a network with a rendering module, such as bsanet",
                    found=f"no auxiliary output {name!r}",
                    remedy=nearest(name, maps) or "leave this loss out",
                )
        entropy, counted = pixel_cross_entropy(maps[self.output], label, self.target)
        points = maps[self.points]
        points = points[:, 0] if entropy.ndim == 3 else points
        return mean_where(entropy, counted * points)
