"""A timm backbone as encoder, and a plain decoder that joins its maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from segweave.backbones.timm_features import timm_features
from segweave.blocks.conv_norm import ConvNorm, relu
from segweave.errors import UsageError
from segweave.networks.base import Decoded, Features, Output, SegmentationNetwork, Size
from segweave.registry import NetworkCard

CARD = NetworkCard(
    name="timm-unet",
    title="Any timm backbone (EfficientNet-Lite0) with a plain decoder",
    entry="TimmUNet",
    paper="the backbones of github.com/huggingface/pytorch-image-models",
    divisor=32,
    smallest=32,
    positions={
        "decoder": "the map at the size of the shallowest skip, which for most backbones is half "
        "of the image's; the logits are upsampled from there",
    },
    weights=(
        {
            "tag": "imagenet",
            "source": "tf_efficientnet_lite0",
            "licence": "Apache-2.0",
            "mean": (0.5, 0.5, 0.5),
            "sd": (0.5, 0.5, 0.5),
        },
        {
            "tag": "imagenet",
            "source": "efficientnet-lite0-57934424.pth",
            "sha256": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            "licence": "Apache-2.0",
            "mean": (0.498, 0.498, 0.498),
            "sd": (0.502, 0.502, 0.502),
        },
    ),
    tiny_options={"encoder": "test_efficientnet", "decoder_channels": (8, 8, 8, 8)},
)


class TimmUNet(SegmentationNetwork):
    """A timm backbone as encoder. The decoder upsamples to the next skip (bilinear), joins it, and
    runs one 3×3 convolution with batch norm and ReLU. A 1×1 convolution returns the logits, which
    are upsampled to the image (bilinear).

    Args:
        in_channels: channels of an image; timm adapts the first convolution.
        classes: channels of the logits.
        encoder: a timm name.
        decoder_channels: channels of the decoder from deep to shallow, one number per skip;
            default: those of the skips.
        encoder_options: further options of `timm.create_model`.

    Raises:
        MissingExtraError: timm is not installed.
        UsageError: a name that timm does not know, a backbone that returns fewer than two maps, or
            another number of `decoder_channels`.
    """

    def __init__(
        self,
        in_channels: int = 3,
        classes: int = 1,
        *,
        encoder: str = "tf_efficientnet_lite0",
        decoder_channels: Sequence[int] | None = None,
        encoder_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.encoder, self.fixed = timm_features(encoder, in_channels, dict(encoder_options or {}))
        levels: Any = self.encoder.feature_info
        widths = [int(width) for width in levels.channels()]
        if len(widths) < 2:
            raise UsageError(
                f"creating the backbone {encoder!r}",
                expected="feature maps at two levels at least",
                found=str(len(widths)),
                remedy="take a hierarchical backbone, such as resnet34 or pvt_v2_b2",
            )
        skips = tuple(widths[:-1])
        decoder = tuple(reversed(skips)) if decoder_channels is None else tuple(decoder_channels)
        if len(decoder) != len(skips):
            raise UsageError(
                f"creating the backbone {encoder!r}",
                expected=f"{len(skips)} decoder_channels, one number per skip",
                found=str(len(decoder)),
            )
        self.in_channels, self.classes = in_channels, classes
        self.stride = self.divisor = self.smallest = int(max(levels.reduction()))
        self.backbones = {"encoder": encoder}
        self.channels = {
            "skips": skips,
            "bottleneck": (widths[-1],),
            "decoder": (decoder[-1],),
            "output": (classes,),
        }
        self.decoder = nn.ModuleList(
            ConvNorm(below + skip, width, 3, activation=relu)
            for below, skip, width in zip(
                (widths[-1], *decoder), reversed(skips), decoder, strict=False
            )
        )
        self.classifier = nn.Conv2d(decoder[-1], classes, 1)

    def encode(self, x: Tensor, **inputs: Tensor) -> Features:
        """(B, C, H, W) → the backbone's maps; raises UsageError for a wrong size."""
        self.check_image(x, **inputs)
        maps = list(self.encoder(x))
        if str(getattr(self.encoder, "output_fmt", None)).endswith("NHWC"):
            maps = [one.permute(0, 3, 1, 2) for one in maps]
        return Features(skips=tuple(maps[:-1]), bottleneck=maps[-1], extra={})

    def decode(self, features: Features) -> Decoded:
        """Features → the map at the size of the shallowest skip."""
        x = features.bottleneck
        for block, skip in zip(self.decoder, reversed(features.skips), strict=True):
            x = functional.interpolate(
                x, size=skip.shape[-2:], mode="bilinear", align_corners=False
            )
            x = block(torch.cat([x, skip], 1))
        return Decoded(map=x, extra={})

    def head(self, decoded: Decoded, size: Size, auxiliary: bool) -> Output:
        """The last map → logits (B, classes, H, W) at the size of the image."""
        logits = functional.interpolate(
            self.classifier(decoded.map), size=size, mode="bilinear", align_corners=False
        )
        return Output(logits=logits, auxiliary={})
