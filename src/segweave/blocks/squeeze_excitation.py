"""Weights of channels, from their means over space."""

from __future__ import annotations

from torch import Tensor, nn

from segweave.blocks.conv_norm import relu


class SqueezeExcitation(nn.Module):
    """x · sigmoid(W2 ReLU(W1 mean(x))), one weight per channel: (B, C, H, W) → the same. Neither
    linear map has a bias (Hu et al., Squeeze-and-Excitation Networks, CVPR 2018).

    Args:
        channels: channels of the map.
        hidden: length of W1 mean(x).
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc = nn.Sequential(
            nn.Linear(channels, hidden, bias=False),
            relu(),
            nn.Linear(hidden, channels, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → the same."""
        return x * self.weights(x)

    def weights(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → the weights (B, C, 1, 1)."""
        weights: Tensor = self.fc(x.mean(dim=(2, 3)))
        return weights[:, :, None, None]
