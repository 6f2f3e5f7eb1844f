"""The Dice loss with plain denominators, every image and class as one region."""

from __future__ import annotations

from torch import Tensor, nn

from segweave.data.specs import TargetSpec
from segweave.errors import UsageError
from segweave.registry import LossCard
from segweave.training.losses._targets import channel_targets, probabilities

CARD = LossCard(
    name="image-dice",
    title="Dice loss, plain denominators, image by image",
    entry="ImageDiceLoss",
    paper="as in the released training of FCBFormer (Sanderson and Matuszewski, MIUA 2022) and "
    "SANet (Wei et al., MICCAI 2021)",
)


class ImageDiceLoss(nn.Module):
    """1 − (2·Σ p·t + a) / (Σ p + Σ t + b) for each image and class, background included, then the
    mean.

    p is the softmax (one sigmoid per channel where the target is binary or overlapping), t the
    truth. Pixels with the target's ignored label do not count.

    Args:
        target: what the classes are.
        above: a ≥ 0. FCBFormer's code has 2, so that an image without foreground, predicted
            without error, gives −1 and every perfect map less than 0; SANet's has 0.
        below: b > 0, which keeps the loss defined where an image lacks the class; 1 in both.
    """

    def __init__(self, target: TargetSpec, *, above: float = 1.0, below: float = 1.0) -> None:
        super().__init__()
        if above < 0 or below <= 0:
            raise UsageError(
                "creating the loss 'image-dice'",
                expected="above ≥ 0 and below > 0",
                found=f"above {above}, below {below}",
            )
        self.target, self.above, self.below = target, above, below

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """Logits (B, classes, H, W), label (B, H, W) → a number."""
        truth, counted = channel_targets(logits, label, self.target)
        p = probabilities(logits, self.target) * counted
        truth = truth * counted
        axes = (2, 3)
        overlap = (p * truth).sum(dim=axes)
        size = p.sum(dim=axes) + truth.sum(dim=axes)
        loss: Tensor = (1 - (2 * overlap + self.above) / (size + self.below)).mean()
        return loss
