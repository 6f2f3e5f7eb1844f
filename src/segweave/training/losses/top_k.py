"""Cross-entropy over the pixels where it is largest."""

from __future__ import annotations

from torch import Tensor, nn

from segweave.data.specs import TargetSpec
from segweave.errors import UsageError
from segweave.registry import LossCard
from segweave.training.losses._targets import pixel_cross_entropy

CARD = LossCard(
    name="top-k",
    title="Cross-entropy, mean over the given fraction of pixels in which it is largest",
    entry="TopKLoss",
    paper="Wu et al., Bridging Category-level and Instance-level Semantic Image Segmentation, "
    "arXiv:1605.06885; fraction 0.1 is TopK10 of nnU-Net",
)


class TopKLoss(nn.Module):
    """The mean of the k largest cross-entropies of a batch, k = `fraction` of the values that
    count (pixels; pixels and channels where the target is binary or overlapping), at least one.
    Pixels with the target's ignored label do not count; without any pixel that counts it is 0.
    """

    def __init__(self, target: TargetSpec, *, fraction: float = 0.1) -> None:
        super().__init__()
        if not 0 < fraction <= 1:
            raise UsageError(
                "creating the loss 'top-k'", expected="0 < fraction ≤ 1", found=f"{fraction}"
            )
        self.target, self.fraction = target, fraction

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """Logits (B, classes, H, W), label (B, H, W) → a number."""
        entropy, counted = pixel_cross_entropy(logits, label, self.target)
        number = max(1, int(self.fraction * int(counted.sum())))
        # Pixels that don't count are 0, so that they are taken only where all the rest is 0 too.
        loss: Tensor = entropy.flatten().topk(number).values.mean()
        return loss
