"""The focal loss: cross-entropy in which pixels that are right already count less."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from segweave.data.specs import TargetSpec
from segweave.errors import UsageError
from segweave.registry import LossCard
from segweave.training.losses._targets import channel_targets, mean_where, pixel_cross_entropy

CARD = LossCard(
    name="focal",
    title="Focal loss, mean over pixels",
    entry="FocalLoss",
    paper="Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, Eq. 4 and 5",
)


class FocalLoss(nn.Module):
    """−α (1 − p)^γ log p, p the probability of the true answer; the mean over the pixels that
    count (over pixels and channels where the target is binary or overlapping).

    Args:
        target: what the classes are.
        gamma: γ ≥ 0; with 0 this is cross-entropy.
        alpha: the weight of the foreground in each sigmoid channel, 1 − alpha that of the
            background; None for 1 and 1. Exclusive classes take no alpha.
    """

    def __init__(
        self, target: TargetSpec, *, gamma: float = 2.0, alpha: float | None = None
    ) -> None:
        super().__init__()
        if gamma < 0 or (alpha is not None and not 0 < alpha < 1):
            raise UsageError(
                "creating the loss 'focal'",
                expected="gamma ≥ 0 and alpha between 0 and 1",
                found=f"gamma {gamma}, alpha {alpha}",
            )
        if alpha is not None and target.kind == "exclusive":
            raise UsageError(
                "creating the loss 'focal'",
                expected="no alpha, as the classes exclude each other",
                found=f"alpha {alpha}",
                remedy="leave alpha out, or use a target with one sigmoid per class",
            )
        self.target, self.gamma, self.alpha = target, gamma, alpha

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """Logits (B, classes, H, W), label (B, H, W) → a number."""
        entropy, counted = pixel_cross_entropy(logits, label, self.target)
        wrong = -torch.expm1(-entropy)  # 1 − p, exact where p is near 1
        # For γ < 1 the gradient of the power is infinite at 0.
        loss = wrong.clamp(min=1e-12) ** self.gamma * entropy
        if self.alpha is not None:
            truth, _ = channel_targets(logits, label, self.target)
            loss = loss * (self.alpha * truth + (1 - self.alpha) * (1 - truth))
        return mean_where(loss, counted)
