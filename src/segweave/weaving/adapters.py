"""Networks of other libraries, dressed as segmentation networks so that context modules can be
woven into them: `segmentation_models_pytorch` models and timm backbones.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segweave.errors import MissingExtraError, UsageError
from segweave.networks.base import Decoded, Features, Output, SegmentationNetwork, Size


def adapted(network: nn.Module) -> nn.Module:
    """`network` itself, or, for a model made like those of `segmentation_models_pytorch`, its
    adapter. The library need not be installed.
    """
    if hasattr(network, "encode") and hasattr(network, "decode"):
        return network
    parts = ("encoder", "decoder", "segmentation_head")
    if all(hasattr(network, part) for part in parts) and hasattr(network.encoder, "out_channels"):
        return SegmentationModel(network)
    return network


class SegmentationModel(SegmentationNetwork):
    """A model of `segmentation_models_pytorch` (Unet, UnetPlusPlus, FPN, DeepLabV3Plus, ...).

    `skips` are all feature maps of the encoder between image and bottleneck, shallow to deep; a
    decoder may use only some of them. A classification head, if there is one, gives the auxiliary
    output `labels`, from the features that the encoder gave. Raises UsageError for a model without
    a convolution in its segmentation head, or with an activation there.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        inner = cast(Any, model)
        heads = [m for m in inner.segmentation_head.modules() if isinstance(m, nn.Conv2d)]
        if not heads:
            raise UsageError(
                f"adapting {type(model).__name__}",
                expected="a segmentation head with a convolution",
                found=type(inner.segmentation_head).__name__,
            )
        if any(isinstance(m, nn.Sigmoid | nn.Softmax) for m in inner.segmentation_head.modules()):
            raise UsageError(
                f"adapting {type(model).__name__}",
                expected="a model that gives logits",
                found="an activation in its segmentation head",
                remedy="create the model with activation=None",
            )
        self.model = model
        widths = [int(width) for width in inner.encoder.out_channels]
        self.in_channels, self.classes = widths[0], heads[-1].out_channels
        self.stride = int(inner.encoder.output_stride)
        if inner.requires_divisible_input_shape:
            self.divisor = self.smallest = self.stride
        self.channels = {
            # Some encoders fill a level that they lack with a map of no channels.
            "skips": tuple(width for width in widths[1:-1] if width),
            "bottleneck": (widths[-1],),
            "decoder": (heads[0].in_channels,),
            "output": (self.classes,),
        }

    def encode(self, x: Tensor, **inputs: Tensor) -> Features:
        """(B, C, H, W) → features; raises UsageError for a size that the model cannot take."""
        self.check_image(x, **inputs)
        maps = list(cast(Any, self.model).encoder(x))
        extra = {f"level{i}": m for i, m in enumerate(maps[:-1]) if i == 0 or m.shape[1] == 0}
        if cast(Any, self.model).classification_head is not None:
            extra["encoded"] = maps[-1]
        skips = tuple(m for i, m in enumerate(maps[:-1]) if f"level{i}" not in extra)
        return Features(skips=skips, bottleneck=maps[-1], extra=extra)

    def decode(self, features: Features) -> Decoded:
        """Features → the map before the segmentation head."""
        skips = iter(features.skips)
        levels = len(features.skips) + sum(name.startswith("level") for name in features.extra)
        maps = [
            features.extra[f"level{i}"] if f"level{i}" in features.extra else next(skips)
            for i in range(levels)
        ]
        decoded = cast(Any, self.model).decoder([*maps, features.bottleneck])
        return Decoded(
            map=decoded, extra={k: v for k, v in features.extra.items() if k == "encoded"}
        )

    def head(self, decoded: Decoded, size: Size, auxiliary: bool) -> Output:
        """The last map → logits (B, classes, H, W), and `labels` of a classification head."""
        model = cast(Any, self.model)
        outputs = (
            {"labels": model.classification_head(decoded.extra["encoded"])}
            if auxiliary and "encoded" in decoded.extra
            else {}
        )
        return Output(logits=model.segmentation_head(decoded.map), auxiliary=outputs)


class BackboneNetwork(SegmentationNetwork):
    """A timm backbone as encoder, and a plain decoder: upsampling to the next skip, joining,
    convolution with batch norm and ReLU; the logits are upsampled to the image (bilinear).

    `backbone` is a timm name; `widths` are the decoder's channels from deep to shallow (one a
    skip; default: those of the skips). `options` go to `timm.create_model`. Raises
    MissingExtraError without timm, UsageError for a name that timm does not know or a backbone
    that gives fewer than two maps.
    """

    def __init__(
        self,
        backbone: str,
        in_channels: int = 3,
        classes: int = 1,
        *,
        pretrained: bool = False,
        widths: tuple[int, ...] | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        try:
            import timm
        except ImportError as error:
            raise MissingExtraError(
                f"creating the backbone {backbone!r}", library="timm", extra="zoo"
            ) from error
        if not timm.is_model(backbone):
            close = timm.list_models(f"*{backbone.split('_')[0]}*")[:5]
            raise UsageError(
                "creating a timm backbone",
                found=repr(backbone),
                remedy="did you mean " + ", ".join(close) + "?" if close else "see timm's list",
            )
        self.encoder = timm.create_model(
            backbone, features_only=True, in_chans=in_channels, pretrained=pretrained, **options
        )
        given = [int(width) for width in self.encoder.feature_info.channels()]
        if len(given) < 2:
            raise UsageError(
                "creating a timm backbone",
                expected="feature maps at two levels at least",
                found=f"{len(given)}",
            )
        widths = tuple(reversed(given[:-1])) if widths is None else widths
        if len(widths) != len(given) - 1:
            raise UsageError(
                "creating a timm backbone",
                expected=f"{len(given) - 1} widths, one a skip",
                found=str(len(widths)),
            )
        self.in_channels, self.classes = in_channels, classes
        self.stride = int(self.encoder.feature_info.reduction()[-1])
        self.smallest = self.stride
        self.channels = {
            "skips": tuple(given[:-1]),
            "bottleneck": (given[-1],),
            "decoder": (widths[-1],),
            "output": (classes,),
        }
        self.decoder = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(below + skip, width, 3, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
            )
            for below, skip, width in zip(
                (given[-1], *widths), reversed(given[:-1]), widths, strict=False
            )
        )
        self.classifier = nn.Conv2d(widths[-1], classes, 1)

    def encode(self, x: Tensor, **inputs: Tensor) -> Features:
        """(B, C, H, W) → the backbone's maps; raises UsageError for a wrong size."""
        self.check_image(x, **inputs)
        maps = self.encoder(x)
        return Features(skips=tuple(maps[:-1]), bottleneck=maps[-1], extra={})

    def decode(self, features: Features) -> Decoded:
        """Features → the map at the size of the shallowest skip."""
        x = features.bottleneck
        for block, skip in zip(self.decoder, reversed(features.skips), strict=True):
            x = F.interpolate(x, size=skip.shape[-2:], mode="bilinear", align_corners=False)
            x = block(torch.cat([x, skip], 1))
        return Decoded(map=x, extra={})

    def head(self, decoded: Decoded, size: Size, auxiliary: bool) -> Output:
        """The last map → logits (B, classes, H, W) at the size of the image."""
        logits = self.classifier(decoded.map)
        return Output(
            logits=F.interpolate(logits, size=size, mode="bilinear", align_corners=False),
            auxiliary={},
        )
