"""Errors of a predicted image: the mean of absolute or squared differences."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from segweave.data.specs import TargetSpec
from segweave.errors import UsageError
from segweave.registry import LossCard

CARDS = (
    LossCard(
        name="l1",
        title="Mean absolute difference of a predicted image",
        entry="ImageError",
        task="image",
        options={"power": 1},
    ),
    LossCard(
        name="mse",
        title="Mean squared difference of a predicted image",
        entry="ImageError",
        task="image",
        options={"power": 2},
    ),
)


class ImageError(nn.Module):
    """mean |prediction − true image|^`power` over pixels and channels, both as the network's input
    is normalised. Raises UsageError for a power other than 1 and 2.
    """

    def __init__(self, target: TargetSpec, *, power: int) -> None:
        super().__init__()
        if power not in (1, 2):
            raise UsageError("creating a loss of images", expected="power 1 or 2", found=f"{power}")
        self.power = power

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """Predicted and true image (B, channels, H, W) → a number."""
        if logits.shape != label.shape:
            raise UsageError(
                "computing the loss",
                expected=f"an output of the true image's shape {tuple(label.shape)}",
                found=f"shape {tuple(logits.shape)}",
                remedy="the target's channels are those of the input: check input.channels",
            )
        compare = functional.l1_loss if self.power == 1 else functional.mse_loss
        loss: Tensor = compare(logits, label.to(logits.dtype))
        return loss
