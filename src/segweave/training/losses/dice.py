"""The Dice loss with squared denominators, every class of a batch as one region."""

from __future__ import annotations

from torch import Tensor, nn

from segweave.data.specs import TargetSpec
from segweave.registry import LossCard
from segweave.training.losses._targets import channel_targets, probabilities

CARD = LossCard(
    name="dice",
    title="Dice loss, squared denominators, over batch and pixels together",
    entry="DiceLoss",
    paper="Milletari et al., V-Net, 3DV 2016; background counted as in the released ACDC training",
)


class DiceLoss(nn.Module):
    """1 − (2·Σ p·t + s) / (Σ p² + Σ t² + s) for each class over batch and pixels, then the mean
    over the classes, background included.

    p is the softmax (one sigmoid per channel where the target is binary or overlapping), t the
    truth, s = `smooth`. A class that is absent costs 1 − s / (Σ p² + s). Pixels with the target's
    ignored label do not count.
    """

    def __init__(self, target: TargetSpec, *, smooth: float = 1e-5) -> None:
        super().__init__()
        self.target = target
        self.smooth = smooth

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """Logits (B, classes, H, W), label (B, H, W) → a number."""
        truth, counted = channel_targets(logits, label, self.target)
        p = probabilities(logits, self.target) * counted
        truth = truth * counted
        axes = (0, 2, 3)
        overlap = (p * truth).sum(dim=axes)
        size = (p * p).sum(dim=axes) + (truth * truth).sum(dim=axes)
        loss: Tensor = (1 - (2 * overlap + self.smooth) / (size + self.smooth)).mean()
        return loss
