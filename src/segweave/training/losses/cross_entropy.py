"""Cross-entropy, the mean over the pixels that count."""

from __future__ import annotations

from torch import Tensor, nn

from segweave.data.specs import TargetSpec
from segweave.registry import LossCard
from segweave.training.losses._targets import pixel_cross_entropy

CARD = LossCard(
    name="cross-entropy",
    title="Cross-entropy, mean over pixels (sigmoid where the target is binary)",
    entry="CrossEntropyLoss",
)


class CrossEntropyLoss(nn.Module):
    """Cross-entropy of the softmax, or of one sigmoid per channel where the target is binary or
    overlapping; no class weights. Pixels with the target's ignored label do not count; without any
    pixel that counts the loss is 0.
    """

    def __init__(self, target: TargetSpec) -> None:
        super().__init__()
        self.target = target

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """Logits (B, classes, H, W), label (B, H, W) → a number."""
        entropy, counted = pixel_cross_entropy(logits, label, self.target)
        loss: Tensor = entropy.sum() / counted.sum().clamp(min=1)
        return loss
