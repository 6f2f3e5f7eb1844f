"""Weighted cross-entropy and weighted IoU, in which pixels near a boundary count more."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from segweave.data.specs import TargetSpec
from segweave.errors import UsageError
from segweave.registry import LossCard
from segweave.training.losses._targets import channel_targets, class_logits

CARD = LossCard(
    name="structure",
    title="Cross-entropy and IoU, both with weights that grow towards boundaries",
    entry="StructureLoss",
    paper="Wei et al., F3Net, AAAI 2020; Fan et al., PraNet, MICCAI 2020",
)


class StructureLoss(nn.Module):
    """For each image and channel Σ w·BCE / Σ w + 1 − (Σ w·p·t + 1) / (Σ w·(p + t − p·t) + 1), then
    the mean over images and channels.

    w = 1 + `emphasis` · |mean(t) − t| with the mean over `window` × `window` pixels; beyond the
    image's edge t is 0.

    Where classes exclude each other, each is taken against all the others. Pixels with the target's
    ignored label do not count.

    Args:
        target: what the classes are.
        window: an odd number of pixels; 31 in PraNet, 15 in ESFPNet.
        emphasis: 5 in both papers.
        released: the cross-entropy is the plain mean over the batch. PraNet's released code asks
            for `reduce='none'`, which PyTorch takes as "mean", so that the weights cancel; so do
            those of ESFPNet's code.
    """

    def __init__(
        self,
        target: TargetSpec,
        *,
        window: int = 31,
        emphasis: float = 5.0,
        released: bool = False,
    ) -> None:
        super().__init__()
        if window < 1 or window % 2 == 0 or emphasis < 0:
            raise UsageError(
                "creating the loss 'structure'",
                expected="an odd window and emphasis ≥ 0",
                found=f"window {window}, emphasis {emphasis}",
            )
        self.target, self.window = target, window
        self.emphasis, self.released = emphasis, released

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """Logits (B, classes, H, W), label (B, H, W) → a number."""
        truth, counted = channel_targets(logits, label, self.target)
        logits = class_logits(logits, self.target)
        mean = functional.avg_pool2d(truth, self.window, stride=1, padding=self.window // 2)
        weight = (1 + self.emphasis * (mean - truth).abs()) * counted
        entropy = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
        axes = (2, 3)
        if self.released:
            entropy = (entropy * counted).sum() / counted.sum().clamp(min=1)
        else:
            # No pixel weighs less than 1, so that the bound acts on empty sums only.
            entropy = (weight * entropy).sum(dim=axes) / weight.sum(dim=axes).clamp(min=1)
        p = logits.sigmoid()
        overlap = (p * truth * weight).sum(dim=axes)
        both = ((p + truth) * weight).sum(dim=axes)
        iou = (overlap + 1) / (both - overlap + 1)
        loss: Tensor = (entropy + 1 - iou).mean()
        return loss
