"""SANet: three maps of Res2Net-50, joined by products of deep and shallow ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from segweave.author_weights import ReleasedNames, names_by_prefix
from segweave.backbones.deep_maps import RES2NET, deep_maps
from segweave.blocks.conv_norm import ConvNorm, relu
from segweave.networks.base import Decoded, Features, Output, SegmentationNetwork, Size
from segweave.registry import NetworkCard

CARD = NetworkCard(
    name="sanet",
    title="SANet (Res2Net-50, shallow attention)",
    entry="SANet",
    paper="Wei et al., Shallow Attention Network for Polyp Segmentation, MICCAI 2021",
    licence="MIT",
    divisor=1,
    smallest=32,
    positions={
        "skips": "the backbone's maps at strides 8 and 16",
        "decoder": "the joined map (three times 64 channels) at an eighth of the image's size, "
        "before the last 1×1 convolution",
    },
    weights=(
        {
            "tag": "imagenet",
            "source": "res2net50d",
            "licence": "unknown (trained by the authors of Res2Net)",
            "mean": (0.485, 0.456, 0.406),
            "sd": (0.229, 0.224, 0.225),
        },
    ),
    tiny_options={
        "width": 8,
        "encoder_options": {"layers": (1, 2, 1, 1), "channels": (8, 8, 16, 16), "stem_width": 4},
    },
)


class SANet(SegmentationNetwork):
    """Each of the maps at strides 8, 16 and 32 goes through a 1×1 convolution with batch norm and
    ReLU and is resized to the finest: f3, f4, f5. The joined map is [f5, f4 · f5, f3 · f4 · f5]
    (Section 3.3), a 1×1 convolution returns the logits. Both resizings are bilinear with aligned
    corners. Any size from 32 pixels on.

    Args:
        in_channels: channels of an image; timm adapts the first convolution.
        classes: channels of the logits.
        width: channels of f3, f4 and f5 (released: 64).
        encoder: a timm name; the backbone has maps at the strides 8, 16 and 32.
        encoder_options: further options of `timm.create_model`.

    Raises:
        MissingExtraError: timm is not installed.
        UsageError: a name that timm does not know, or a backbone without such maps.
    """

    def __init__(
        self,
        in_channels: int = 3,
        classes: int = 1,
        *,
        width: int = 64,
        encoder: str = RES2NET,
        encoder_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.encoder, widths = deep_maps(encoder, in_channels, encoder_options)
        self.in_channels, self.classes = in_channels, classes
        self.stride = self.smallest = 32
        self.backbones = {"encoder": encoder}
        self.channels = {
            "skips": widths[:2],
            "bottleneck": widths[2:],
            "decoder": (3 * width,),
            "output": (classes,),
        }
        self.reduce = nn.ModuleList(
            ConvNorm(channels, width, 1, bias=True, activation=relu) for channels in widths
        )
        self.classifier = nn.Conv2d(3 * width, classes, 1)
        for layer in (*self.reduce.modules(), self.classifier):
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)

    def encode(self, x: Tensor, **inputs: Tensor) -> Features:
        """(B, C, H, W) → skips at strides 8 and 16, the bottleneck at 32."""
        self.check_image(x, **inputs)
        fine, middle, coarse = self.encoder(x)
        return Features(skips=(fine, middle), bottleneck=coarse, extra={})

    def decode(self, features: Features) -> Decoded:
        """Features → the joined map (B, 3 · width, H / 8, W / 8)."""
        maps = (*features.skips, features.bottleneck)
        f3, f4, f5 = (layer(one) for layer, one in zip(self.reduce, maps, strict=True))
        f4, f5 = _resized(f4, f3.shape[-2:]), _resized(f5, f3.shape[-2:])
        deep = f4 * f5
        return Decoded(map=torch.cat([f5, deep, f3 * deep], dim=1), extra={})

    def head(self, decoded: Decoded, size: Size, auxiliary: bool) -> Output:
        """The joined map → logits (B, classes, H, W), resized to the image."""
        return Output(logits=_resized(self.classifier(decoded.map), size), auxiliary={})

    def released_names(self) -> ReleasedNames:
        """Names of the released code: bkbone, linear3 … 5, predict."""
        prefixes = {"encoder.": "bkbone.", "classifier.": "predict."}
        prefixes |= {f"reduce.{i}.": f"linear{i + 3}." for i in range(3)}
        return names_by_prefix(self, prefixes)


def _resized(x: Tensor, size: torch.Size | Size) -> Tensor:
    return interpolate(x, size=size, mode="bilinear", align_corners=True)
