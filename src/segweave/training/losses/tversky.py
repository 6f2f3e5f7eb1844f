"""The Tversky loss, which weighs false alarms and missed pixels apart."""

from __future__ import annotations

from torch import Tensor, nn

from segweave.data.specs import TargetSpec
from segweave.errors import UsageError
from segweave.registry import LossCard
from segweave.training.losses._targets import channel_targets, probabilities

CARD = LossCard(
    name="tversky",
    title="Tversky loss over batch and pixels together; with an exponent, focal Tversky loss",
    entry="TverskyLoss",
    paper="Salehi et al., MLMI 2017; exponent: Abraham and Khan, ISBI 2019",
)


class TverskyLoss(nn.Module):
    """The mean over the classes, background included, of (1 − T)^exponent with
    T = (Σ p·t + s) / (Σ p·t + α Σ p·(1 − t) + β Σ (1 − p)·t + s), sums over batch and pixels.

    p is the softmax, or a sigmoid per channel where the target is binary or overlapping. Pixels
    with the target's ignored label do not count. With alpha = beta = 0.5 and exponent 1 it is the
    Dice loss with plain denominators.

    Args:
        target: what the classes are.
        alpha: weight of false alarms, ≥ 0.
        beta: weight of missed pixels, ≥ 0.
        exponent: > 0. Abraham and Khan write 1/γ with γ = 4/3, that is 0.75.
        smooth: s, which keeps the loss defined where a class is absent.
    """

    def __init__(
        self,
        target: TargetSpec,
        *,
        alpha: float = 0.3,
        beta: float = 0.7,
        exponent: float = 1.0,
        smooth: float = 1e-5,
    ) -> None:
        super().__init__()
        if min(alpha, beta) < 0 or exponent <= 0:
            raise UsageError(
                "creating the loss 'tversky'",
                expected="alpha ≥ 0, beta ≥ 0 and exponent > 0",
                found=f"alpha {alpha}, beta {beta}, exponent {exponent}",
            )
        self.target, self.alpha, self.beta = target, alpha, beta
        self.exponent, self.smooth = exponent, smooth

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """Logits (B, classes, H, W), label (B, H, W) → a number."""
        truth, counted = channel_targets(logits, label, self.target)
        p = probabilities(logits, self.target)
        axes = (0, 2, 3)
        hit = (p * truth * counted).sum(dim=axes)
        false_alarm = (p * (1 - truth) * counted).sum(dim=axes)
        missed = ((1 - p) * truth * counted).sum(dim=axes)
        index = (hit + self.smooth) / (
            hit + self.alpha * false_alarm + self.beta * missed + self.smooth
        )
        error = 1 - index
        if self.exponent != 1:
            # Below 1, the power's gradient is infinite at 0.
            error = error.clamp(min=1e-12) ** self.exponent
        loss: Tensor = error.mean()
        return loss
