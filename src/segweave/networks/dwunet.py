"""DWUNet: a UNet whose convolutions are depthwise separable."""

from __future__ import annotations

from torch import nn

from segweave.blocks.conv_norm import ConvNorm, relu
from segweave.networks.unet import PlainUNet
from segweave.registry import NetworkCard

CARD = NetworkCard(
    name="dwunet",
    title="UNet with depthwise separable convolutions (our definition; no released code)",
    entry="DWUNet",
    forms=("paper",),
    paper="the source papers name DWUNet and cite Chollet, Xception: Deep Learning with Depthwise "
    "Separable Convolutions, CVPR 2017; nothing public states its layers",
    divisor=16,
    smallest=16,
    tiny_options={"width": 4},
)


class SeparableDoubleConvolution(nn.Sequential):
    """Twice (3×3 depthwise, 1×1 pointwise, batch norm, ReLU), without an activation between the two
    convolutions, as in Xception (Section 3.2): (B, C_in, H, W) → (B, C_out, H, W).
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False),
            ConvNorm(in_channels, out_channels, 1, activation=relu),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, groups=out_channels, bias=False),
            ConvNorm(out_channels, out_channels, 1, activation=relu),
        )


class DWUNet(PlainUNet):
    """The UNet of the source papers' repository (`unet`) with each 3×3 convolution replaced by a
    depthwise separable one. Widths and levels are those of `unet`; no source states others.
    """

    block = SeparableDoubleConvolution
