"""Parts of LinkNet's decoder (Chaurasia and Culurciello, LinkNet, VCIP 2017)."""

from __future__ import annotations

from torch import nn

from segweave.blocks.conv_norm import ConvNorm, relu

RELEASED_LINK = {
    "0.0": "conv1",
    "0.1": "norm1",
    "2.0": "conv3",
    "2.1": "norm3",
}
"""Names inside of a `LinkBlock` → the released ones, the transposed convolution's apart."""


class LinkBlock(nn.Sequential):
    """LinkNet's decoder block: 1×1 to a quarter, 3×3 transposed with stride 2, 1×1, each with batch
    norm and ReLU: (B, C_in, H, W) → (B, C_out, 2H, 2W).
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        inner = in_channels // 4
        super().__init__(
            ConvNorm(in_channels, inner, 1, bias=True, activation=relu),
            ConvNorm(
                inner,
                inner,
                3,
                transposed=True,
                bias=True,
                activation=relu,
                padding=1,
                stride=2,
                output_padding=1,
            ),
            ConvNorm(inner, out_channels, 1, bias=True, activation=relu),
        )


class LinkHead(nn.Sequential):
    """LinkNet's last layers: 4×4 transposed with stride 2 to `width` channels, ReLU, 3×3, ReLU, 3×3
    to the classes: (B, C_in, H, W) → logits (B, classes, 2H, 2W).
    """

    def __init__(self, in_channels: int, width: int, classes: int) -> None:
        super().__init__(
            nn.ConvTranspose2d(in_channels, width, 4, stride=2, padding=1),
            relu(),
            nn.Conv2d(width, width, 3, padding=1),
            relu(),
            nn.Conv2d(width, classes, 3, padding=1),
        )
