"""Cross-entropy and a Dice term of each single pixel, as SSFormer is trained."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from segweave.data.specs import TargetSpec
from segweave.registry import LossCard
from segweave.training.losses._targets import channel_targets, class_logits, mean_where

CARD = LossCard(
    name="pixel-dice",
    title="Cross-entropy and Dice of each pixel, mean over pixels",
    entry="PixelDiceLoss",
    paper="as in the released training of SSFormer (Wang et al., MICCAI 2022)",
)


class PixelDiceLoss(nn.Module):
    """The mean over pixels and channels of BCE(p, t) + 1 − (2·p·t + 1) / (p + t + 1), p the sigmoid
    and t the truth of a pixel.

    Where classes exclude each other, each is taken against all the others. Pixels with the target's
    ignored label do not count.

    Args:
        target: what the classes are.
        released: p is the sigmoid of the sigmoid, between 0.5 and 0.73. SSFormer's released loss
            applies a sigmoid to maps that went through one, so that it is never 0.
    """

    def __init__(self, target: TargetSpec, *, released: bool = False) -> None:
        super().__init__()
        self.target, self.released = target, released

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """Logits (B, classes, H, W), label (B, H, W) → a number."""
        truth, counted = channel_targets(logits, label, self.target)
        logits = class_logits(logits, self.target)
        if self.released:
            logits = logits.sigmoid()
        entropy = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
        p = logits.sigmoid()
        dice = (2 * p * truth + 1) / (p + truth + 1)
        return mean_where(entropy + 1 - dice, counted)
