"""ResNeXt blocks and feature-space attention, of the bilateral spatial attention network."""

from __future__ import annotations

from torch import Tensor, nn

from segweave.blocks.conv_norm import ConvNorm, relu

_CARDINALITY = 32
_REDUCTION = 4


class ResNeXtBlock(nn.Module):
    """ReLU(x + 1×1(grouped 3×3(1×1(x)))), each with batch norm: (B, C, H, W) → the same.

    Xie et al., ResNeXt, CVPR 2017. Half the channels are between the 1×1 convolutions, in at most
    32 groups.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(1, channels // 2)
        groups = max(n for n in range(1, _CARDINALITY + 1) if inner % n == 0)
        self.body = nn.Sequential(
            *ConvNorm(channels, inner, 1, activation=relu),
            *ConvNorm(inner, inner, 3, groups=groups, activation=relu),
            *ConvNorm(inner, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C, H, W)."""
        return (x + self.body(x)).relu()


class FeatureSpaceAttention(nn.Module):
    """FSAM: a ⊙ f + Conv(f) with a = σ(FC(GAP(g)) + FC(GMP(g))), g = DConv(Conv(f)), (B, C, H, W) →
    the same.

    GAP and GMP are the mean and the maximum over the positions; a is one weight per channel, not
    normalised. DConv has dilation 2; both fully connected layers serve both poolings. The Conv of
    the residual has separate weights.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(1, channels // _REDUCTION)
        self.body = nn.Sequential(
            *ConvNorm(channels, channels, 3, activation=relu),
            *ConvNorm(channels, channels, 3, dilation=2, activation=relu),
        )
        self.connected = nn.Sequential(
            nn.Linear(channels, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, channels)
        )
        self.residual = ConvNorm(channels, channels, 3, activation=relu)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C, H, W)."""
        g = self.body(x)
        weights = self.connected(g.mean((2, 3))) + self.connected(g.amax((2, 3)))
        result: Tensor = x * weights.sigmoid()[..., None, None] + self.residual(x)
        return result
