"""DANIE: self-attention in one stream, channel and spatial attention in the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from segweave.backbones.maxvit import STRIDE, MaxViT
from segweave.blocks.hierarchical_attention import (
    ORDERS,
    HierarchicalAttention,
    HierarchicalStream,
    convolutions,
)
from segweave.blocks.joint_preservation import FUSIONS, StreamFusion
from segweave.blocks.summed_outputs import summed_outputs
from segweave.errors import UsageError, nearest
from segweave.networks.base import Decoded, Features, Output, SegmentationNetwork, Size
from segweave.registry import NetworkCard

PAPER = (
    "Li et al., Dual Attention Encoder with Joint Preservation for Medical Image Segmentation, "
    "ECAI 2024"
)
POSITIONS = {
    "encoder": "beside both streams",
    "skips": "the joined maps of both streams at strides 4, 8 and 16",
    "bottleneck": "the joined map of both streams at stride 32",
    "decoder": "the last map at 1/4 of the image's size, from which the finest of the four summed "
    "predictions is made",
    "output": "the sum of the four predictions",
}
MEAN = (0.5, 0.5, 0.5)
UNFOLDED = (4, "MaxViT's blocks begin with a batch norm, which no convolution precedes")
TINY = {
    "widths": (8, 8, 16, 16),
    "backbone_options": {
        "stem_width": (8, 8),
        "depths": (1, 1, 1, 1),
        "transformer_dim_head": 8,
        "transformer_rel_pos_dim": 16,
    },
}
TINY_MAXVIT = "maxvit_rmlp_tiny_rw_256"
SMALL_MAXVIT = "maxvit_rmlp_small_rw_224"

CARDS = (
    NetworkCard(
        name="danie-s",
        title="DANIE-S (MaxViT-tiny and hierarchical attention)",
        entry="DANIE",
        paper=PAPER,
        forms=("paper", "literal"),
        options={"backbone": TINY_MAXVIT, "widths": (64, 128, 256, 512)},
        divisor=32,
        smallest=32,
        positions=POSITIONS,
        weights=(
            {
                "tag": "imagenet",
                "source": "maxvit_rmlp_tiny_rw_256.sw_in1k",
                "licence": "Apache-2.0",
                "mean": MEAN,
                "sd": MEAN,
            },
        ),
        unfolded=UNFOLDED,
        tiny_options=TINY,
    ),
    NetworkCard(
        name="danie-l",
        title="DANIE-L (MaxViT-small and hierarchical attention)",
        entry="DANIE",
        paper=PAPER,
        forms=("paper", "literal"),
        options={"backbone": SMALL_MAXVIT, "widths": (96, 192, 384, 768)},
        divisor=32,
        smallest=32,
        positions=POSITIONS,
        weights=(
            {
                "tag": "imagenet",
                "source": "maxvit_rmlp_small_rw_224.sw_in1k",
                "licence": "Apache-2.0",
                "mean": MEAN,
                "sd": MEAN,
            },
        ),
        unfolded=UNFOLDED,
        tiny_options=TINY,
    ),
)

OUTPUTS = ("p4", "p3", "p2", "p1")
"""The auxiliary outputs, from the deepest map to the finest."""


class DANIE(SegmentationNetwork):
    """Two streams see the image: MaxViT, and convolutions with channel and spatial attention (Eq. 2
    to 5). The maps of a stage are enhanced and added (Eq. 6 to 10). From the deepest to the finest,
    two 3×3 convolutions read the joined map and the resized map of the stage below (Eq. 11). Each
    stage gives a prediction by a 1×1 convolution; the logits are their sum (Eq. 12).

    No code was released. Form `paper`, the default, is the reading that fits every printed cost: a
    3×3 convolution is in front of each stage of the second stream, and layers leave together with
    an attention that is switched off. Form `literal` has stages as in Eq. 2 to 5 and nothing else
    (`docs/fidelity.md`). The ablations: A.1 `hierarchical_attention=False`, A.2
    `self_attention=False`, A.3 `spatial_attention=False`, A.4 `channel_attention=False`; B.1
    and B.2 `order="spatial-channel"`, B.1 and B.3 `calibration=False`; A, B and C.2
    `fusion="add"`, C.1 "concatenate", C.3 "eh", C.4 "es", C.5 "joint-preservation".

    Args:
        in_channels: channels of an image.
        classes: channels of the logits.
        form: "paper" or "literal".
        backbone: a timm name, `maxvit_rmlp_*`.
        widths: channels of the four stages of both streams.
        self_attention: whether there is the MaxViT.
        hierarchical_attention: whether there is the other stream.
        channel_attention: whether that stream weighs channels.
        spatial_attention: whether that stream weighs positions.
        order: "channel-spatial" or "spatial-channel".
        calibration: whether that stream has dynamic calibration.
        fusion: one of `FUSIONS`.
        embedding: 3×3 convolutions at half the image's size in front of that stream.
        backbone_options: further options of `timm.create_model`, such as `drop_path_rate`.

    Raises:
        MissingExtraError: timm is not installed.
        UsageError: an unknown form, order or fusion, widths that are not four, or no stream at all.
    """

    def __init__(
        self,
        in_channels: int = 3,
        classes: int = 1,
        *,
        form: str = "paper",
        backbone: str = TINY_MAXVIT,
        widths: Sequence[int] = (64, 128, 256, 512),
        self_attention: bool = True,
        hierarchical_attention: bool = True,
        channel_attention: bool = True,
        spatial_attention: bool = True,
        order: str = ORDERS[0],
        calibration: bool = True,
        fusion: str = FUSIONS[0],
        embedding: int = 2,
        backbone_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        for name, value, known in (
            ("form", form, ("paper", "literal")),
            ("order", order, ORDERS),
            ("fusion", fusion, FUSIONS),
        ):
            if value not in known:
                raise UsageError(
                    "creating DANIE", found=f"{name}={value!r}", remedy=nearest(value, known)
                )
        hierarchical = hierarchical_attention and (channel_attention or spatial_attention)
        if not (self_attention or hierarchical) or len(widths) != 4 or min(widths) < 1:
            raise UsageError(
                "creating DANIE",
                expected="four widths and at least one of the two streams",
                found=f"widths={tuple(widths)}, self_attention={self_attention}, "
                f"hierarchical_attention={hierarchical}",
            )
        self.in_channels, self.classes = in_channels, classes
        self.stride = self.divisor = self.smallest = STRIDE
        self.attention = self.hierarchical = None
        if self_attention:
            self.attention = MaxViT(
                backbone, in_channels, embed_dim=tuple(widths), **(backbone_options or {})
            )
            self.backbones = {"attention": f"{backbone}.sw_in1k"}
        if hierarchical:
            stage = partial(
                HierarchicalAttention,
                channel_attention=channel_attention,
                spatial_attention=spatial_attention,
                order=order,
                calibration=calibration,
                front=form == "paper",
            )
            self.hierarchical = HierarchicalStream(
                in_channels, tuple(widths), embedding=embedding, stage=stage
            )
        self.fusions = nn.ModuleList(
            StreamFusion(width, fusion, attention=self_attention, hierarchical=hierarchical)
            for width in widths
        )
        fine_last = list(reversed(widths))
        self.decoder = nn.ModuleList(
            convolutions(below + width, width)
            for below, width in zip([0, *fine_last], fine_last, strict=False)
        )
        self.classifiers = nn.ModuleList(nn.Conv2d(width, classes, 1) for width in fine_last)
        self.channels = {
            "skips": tuple(widths[:-1]),
            "bottleneck": (widths[-1],),
            "decoder": (widths[0],),
            "output": (classes,),
        }

    def encode(self, x: Tensor, **inputs: Tensor) -> Features:
        """(B, C, H, W) → the joined maps e at strides 4, 8, 16 and 32. Raises UsageError for a
        wrong number of channels and for sides that are not multiples of 32.
        """
        self.check_image(x, **inputs)
        none = [None] * len(self.fusions)
        one = none if self.attention is None else self.attention(x)
        other = none if self.hierarchical is None else self.hierarchical(x)
        *skips, bottleneck = (
            fusion(s, h) for fusion, s, h in zip(self.fusions, one, other, strict=True)
        )
        return Features(skips=tuple(skips), bottleneck=bottleneck, extra={})

    def decode(self, features: Features) -> Decoded:
        """Features → the last map j (B, C, H / 4, W / 4); the three deeper ones are in `extra`."""
        first, *others = self.decoder
        maps = [first(features.bottleneck)]
        for block, skip in zip(others, reversed(features.skips), strict=True):
            below = _resized(maps[-1], (skip.shape[-2], skip.shape[-1]))
            maps.append(block(torch.cat([skip, below], 1)))
        return Decoded(map=maps[-1], extra=dict(zip(OUTPUTS, maps[:-1], strict=False)))

    def head(self, decoded: Decoded, size: Size, auxiliary: bool) -> Output:
        """The maps → logits (B, classes, H, W), and as auxiliary outputs the four that they are the
        sum of.
        """
        maps = {**decoded.extra, OUTPUTS[-1]: decoded.map}
        classifiers = dict(zip(OUTPUTS, self.classifiers, strict=True))
        logits, outputs = summed_outputs(maps, classifiers, size)
        return Output(logits, outputs if auxiliary else {})


def _resized(x: Tensor, size: Size) -> Tensor:
    return functional.interpolate(x, size=size, mode="bilinear", align_corners=False)
