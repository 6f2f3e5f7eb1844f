"""Models of `segmentation_models_pytorch`, wrapped as segmentation networks so that context modules
can be woven into them.
"""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn

from segweave.errors import UsageError
from segweave.networks.base import Decoded, Features, Output, SegmentationNetwork, Size


class SegmentationModel(SegmentationNetwork):
    """A model of `segmentation_models_pytorch` (Unet, UnetPlusPlus, FPN, DeepLabV3Plus, ...).

    `skips` are all feature maps of the encoder between image and bottleneck, shallow to deep; a
    decoder may use only some of them. A classification head, if there is one, computes the
    auxiliary output `labels` from the features of the encoder. Raises UsageError for a model
    without a convolution in its segmentation head, or with an activation there.
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
                expected="a model that returns logits",
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
