"""The bilateral spatial attention network: Swin blocks, channel weights, rendered boundaries."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from segweave.backbones.swin_stacks import SwinStacks
from segweave.blocks.bilateral_attention import FeatureSpaceAttention, ResNeXtBlock
from segweave.blocks.conv_norm import ConvNorm, relu
from segweave.blocks.point_rendering import PointRendering
from segweave.errors import UsageError
from segweave.networks.base import Decoded, Features, Output, SegmentationNetwork, Size
from segweave.registry import NetworkCard

CARD = NetworkCard(
    name="bsanet",
    title="Bilateral spatial attention network (Swin blocks, attention rendering)",
    entry="BSANet",
    paper="a bilateral spatial attention medical image segmentation network, Journal of Computer "
    "Science and Software Applications 4(6), 2024",
    forms=("paper",),
    divisor=1,
    smallest=32,
    positions={
        "skips": "the maps behind both attentions at strides 4, 8, 16 and 32",
        "bottleneck": "the map behind both attentions at stride 64",
        "decoder": "the last map at 1/4 of the image's size, from which the coarse logits and the "
        "points are predicted",
        "output": "the logits with the points predicted again",
    },
    weights=(
        {
            "tag": "imagenet",
            "source": "swin_tiny_patch4_window7_224.ms_in1k",
            "licence": "MIT",
            "mean": (0.485, 0.456, 0.406),
            "sd": (0.229, 0.224, 0.225),
        },
    ),
    tiny_options={"width": 8, "levels": 3, "blocks": 1, "swin_blocks": 2, "window": 2},
)

_DIVIDED = 4
"""Stride of the first level."""


class BSANet(SegmentationNetwork):
    """A 7×7 convolution and max poolings lead to `levels` levels at strides 4, 8, ... Each has
    ResNeXt blocks, image-space attention (six Swin blocks, a 3×3 convolution, plus its input) and
    feature-space attention. The decoder applies a 1×1 convolution, resizes (bilinear), joins the
    skip and applies two 3×3 convolutions. A 1×1 convolution of the last map gives coarse logits;
    the attention rendering module predicts uncertain pixels again, from that map and from the 7×7
    convolution's, which has half the image's size.

    No code was released, and the paper states neither widths nor levels: 96 channels on five
    levels meet its 6.36 M parameters and let every Swin block start from Swin-T's first stage
    (`docs/fidelity.md`).

    In training mode the logits are the coarse ones, resized; in eval mode they are rendered by
    subdivision. Auxiliary outputs, for the loss `rendered-points`: `rendered` (logits at sampled
    points) and `rendered-points` (where the points are).

    Args:
        in_channels: channels of an image.
        classes: channels of the logits.
        width: channels of every level.
        levels: number of levels, at least 2.
        blocks: ResNeXt blocks per level.
        swin_blocks: Swin blocks per image-space attention.
        window: side of the windows.
        image_attention: whether there is image-space attention.
        feature_attention: whether there is feature-space attention.
        rendering: whether there is the rendering module; without, the resized logits are the
            result.
        point_width: of the point-wise network's hidden layers.

    Raises UsageError for numbers that do not fit.
    """

    def __init__(
        self,
        in_channels: int = 3,
        classes: int = 1,
        *,
        width: int = 96,
        levels: int = 5,
        blocks: int = 2,
        swin_blocks: int = 6,
        window: int = 8,
        image_attention: bool = True,
        feature_attention: bool = True,
        rendering: bool = True,
        point_width: int = 256,
    ) -> None:
        super().__init__()
        unfit = width > 32 and width % 32 > 0
        if unfit or levels < 2 or min(width, blocks, swin_blocks, window) < 1:
            raise UsageError(
                "creating the network 'bsanet'",
                expected="two levels at least, a width up to 32 or a multiple of it",
                found=f"width={width}, levels={levels}, blocks={blocks}, "
                f"swin_blocks={swin_blocks}, window={window}",
            )
        self.in_channels, self.classes = in_channels, classes
        self.stride, self.smallest = _DIVIDED * 2 ** (levels - 1), 32
        self.stem = ConvNorm(in_channels, width, 7, stride=2, activation=relu)
        self.encoder = nn.ModuleList(
            nn.Sequential(*(ResNeXtBlock(width) for _ in range(blocks))) for _ in range(levels)
        )
        self.swin: SwinStacks | None = None
        if image_attention:
            self.swin = SwinStacks([width] * levels, depth=swin_blocks, window=window)
            self.backbones = {"swin": "swin_tiny_patch4_window7_224.ms_in1k"}
        self.mixing = nn.ModuleList(
            ConvNorm(width, width, 3, activation=relu) for _ in range(levels * image_attention)
        )
        self.feature_attention = nn.ModuleList(
            FeatureSpaceAttention(width) for _ in range(levels * feature_attention)
        )
        self.reductions = nn.ModuleList(
            ConvNorm(width, width, 1, activation=relu) for _ in range(levels - 1)
        )
        self.decoder = nn.ModuleList(
            nn.Sequential(
                *ConvNorm(2 * width, width, 3, activation=relu),
                *ConvNorm(width, width, 3, activation=relu),
            )
            for _ in range(levels - 1)
        )
        self.classifier = nn.Conv2d(width, classes, 1)
        self.rendering = (
            PointRendering(2 * width, classes, width=point_width) if rendering else None
        )
        self.channels = {
            "skips": (width,) * (levels - 1),
            "bottleneck": (width,),
            "decoder": (width,),
            "output": (classes,),
        }

    def encode(self, x: Tensor, **inputs: Tensor) -> Features:
        """(B, C, H, W) → the maps of the levels, and in `extra` the first convolution's. Raises
        UsageError for a wrong number of channels and for images below 32 pixels.
        """
        self.check_image(x, **inputs)
        fine = x = self.stem(x)
        maps = []
        for level, block in enumerate(self.encoder):
            # Rounded up, so that every size works.
            x = block(functional.max_pool2d(x, 2, ceil_mode=True))
            if self.swin is not None:
                read = self.swin.stacks[level](x.permute(0, 2, 3, 1))
                x = x + self.mixing[level](read.permute(0, 3, 1, 2))
            if self.feature_attention:
                x = self.feature_attention[level](x)
            maps.append(x)
        return Features(skips=tuple(maps[:-1]), bottleneck=maps[-1], extra={"fine": fine})

    def decode(self, features: Features) -> Decoded:
        """Features → the last map (B, width, H / 4, W / 4); the fine map is passed on."""
        x = features.bottleneck
        for reduction, block, skip in zip(
            self.reductions, self.decoder, reversed(features.skips), strict=True
        ):
            x = _resized(reduction(x), (skip.shape[-2], skip.shape[-1]))
            x = block(torch.cat([skip, x], 1))
        return Decoded(map=x, extra=features.extra)

    def head(self, decoded: Decoded, size: Size, auxiliary: bool) -> Output:
        """The last map → logits (B, classes, H, W) and, if asked for, the logits at the points."""
        coarse = self.classifier(decoded.map)
        maps = (decoded.extra["fine"], decoded.map)
        if self.rendering is None:
            return Output(logits=_resized(coarse, size), auxiliary={})
        outputs = {}
        if auxiliary:
            rendered, points = self.rendering.sampled(coarse, maps, size)
            outputs = {"rendered": rendered, "rendered-points": points}
        if self.training:
            return Output(logits=_resized(coarse, size), auxiliary=outputs)
        return Output(self.rendering.subdivided(coarse, maps, size), outputs)


def _resized(x: Tensor, size: Size) -> Tensor:
    return functional.interpolate(x, size=size, mode="bilinear", align_corners=False)
