"""Cross-entropy, the mean over the pixels that count."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from segweave.data.specs import TargetSpec
from segweave.registry import LossCard
from segweave.training.losses._labels import channel_targets

CARD = LossCard(
    name="cross-entropy",
    title="Cross-entropy, mean over pixels (sigmoid where the target is binary)",
    entry="CrossEntropyLoss",
)


class CrossEntropyLoss(nn.Module):
    """Cross-entropy of the softmax, or of one sigmoid a channel where the target is binary or
    overlapping; no class weights. Pixels with the target's ignored label do not count; without any
    pixel that counts the loss is 0.
    """

    def __init__(self, target: TargetSpec) -> None:
        super().__init__()
        self.target = target

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """Logits (B, classes, H, W), label (B, H, W) → a number."""
        truth, counted = channel_targets(logits, label, self.target)
        if self.target.kind == "exclusive":
            each = -(logits.log_softmax(dim=1) * truth * counted).sum(dim=1)
            number = counted[:, 0].sum()
        else:
            each = counted * functional.binary_cross_entropy_with_logits(
                logits, truth, reduction="none"
            )
            number = counted.sum()
        loss: Tensor = each.sum() / number.clamp(min=1)
        return loss
