"""A residual block whose shortcut passes squeeze and excitation, of FANet and ColonSegNet."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from segweave.blocks.conv_norm import ConvNorm, relu
from segweave.blocks.squeeze_excitation import SqueezeExcitation

RELEASED_LAYERS = {
    "body.0.0": "conv1",
    "body.0.1": "bn1",
    "body.1.0": "conv2",
    "body.1.1": "bn2",
    "shortcut.0": "conv3",
    "shortcut.1": "bn3",
    "excitation": "se",
}
"""Our names of the block's layers → the released ones, the same in both networks."""


class ExcitedResidualBlock(nn.Module):
    """Two 3×3 convolutions with batch norm, plus a 1×1 shortcut with batch norm whose channels are
    weighted by squeeze and excitation; ReLU. (B, C_in, H, W) → (B, C_out, H, W).

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        hidden: length of the hidden layer of squeeze and excitation.
    """

    def __init__(self, in_channels: int, out_channels: int, hidden: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            ConvNorm(in_channels, out_channels, 3, bias=True, activation=relu),
            ConvNorm(out_channels, out_channels, 3, bias=True),
        )
        self.shortcut = ConvNorm(in_channels, out_channels, 1, bias=True)
        self.excitation = SqueezeExcitation(out_channels, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) → (B, C_out, H, W)."""
        return cast(Tensor, (self.body(x) + self.excitation(self.shortcut(x))).relu_())
