"""ESFPNet: a mix transformer with an efficient stage-wise feature pyramid."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from segweave.author_weights import ReleasedNames, names_by_prefix
from segweave.backbones.pyramid_vision import PyramidVision
from segweave.blocks.fusion import LateFusion, PixelLinear
from segweave.networks.base import Decoded, Features, Output, SegmentationNetwork, Size
from segweave.registry import NetworkCard

PAPER = (
    "Chang et al., ESFPNet: Efficient Deep Learning Architecture for Real-time Lesion Segmentation "
    "in Autofluorescence Bronchoscopic Video, SPIE Medical Imaging 2023"
)
DECODER = (
    "the joined maps of the pyramid at a quarter of the image's size; the logits are upsampled "
    "from there"
)

CARDS = (
    NetworkCard(
        name="esfpnet-t",
        title="ESFPNet on MiT-B0",
        entry="ESFPNet",
        paper=PAPER,
        licence="none stated",
        options={"backbone": "mit_b0"},
        weights=(
            {
                "tag": "imagenet",
                "source": "github.com/NVlabs/SegFormer/mit_b0.pth",
                "licence": "NVIDIA Source Code License, not for commercial use",
                "mean": (0.485, 0.456, 0.406),
                "sd": (0.229, 0.224, 0.225),
            },
        ),
        divisor=32,
        smallest=32,
        positions={"decoder": DECODER},
        tiny_options={"backbone": "tiny"},
    ),
    NetworkCard(
        name="esfpnet-s",
        title="ESFPNet on MiT-B2",
        entry="ESFPNet",
        paper=PAPER,
        licence="none stated",
        options={"backbone": "mit_b2"},
        weights=(
            {
                "tag": "imagenet",
                "source": "github.com/NVlabs/SegFormer/mit_b2.pth",
                "licence": "NVIDIA Source Code License, not for commercial use",
                "mean": (0.485, 0.456, 0.406),
                "sd": (0.229, 0.224, 0.225),
            },
        ),
        divisor=32,
        smallest=32,
        positions={"decoder": DECODER},
        tiny_options={"backbone": "tiny"},
    ),
    NetworkCard(
        name="esfpnet-l",
        title="ESFPNet on MiT-B4",
        entry="ESFPNet",
        paper=PAPER,
        licence="none stated",
        options={"backbone": "mit_b4"},
        weights=(
            {
                "tag": "imagenet",
                "source": "github.com/NVlabs/SegFormer/mit_b4.pth",
                "licence": "NVIDIA Source Code License, not for commercial use",
                "mean": (0.485, 0.456, 0.406),
                "sd": (0.229, 0.224, 0.225),
            },
        ),
        divisor=32,
        smallest=32,
        positions={"decoder": DECODER},
        tiny_options={"backbone": "tiny"},
    ),
)


class ESFPNet(SegmentationNetwork):
    """Each map of the backbone passes a linear layer; from deep to shallow it is joined with the
    next one (1×1 convolution, batch norm, ReLU, linear layer). The four results, resized to a
    quarter of the image, give the logits through one 1×1 convolution (Chang et al., Fig. 2).

    Args:
        in_channels: channels of an image.
        classes: channels of the logits.
        backbone: `mit_b0` (T), `mit_b2` (S), `mit_b4` (L) or another `PyramidVision`.
    """

    def __init__(self, in_channels: int = 3, classes: int = 1, *, backbone: str = "mit_b0") -> None:
        super().__init__()
        self.backbone = PyramidVision(backbone, in_channels, drop_path=0.1)
        widths = self.backbone.widths
        self.in_channels, self.classes = in_channels, classes
        self.stride = self.divisor = self.smallest = 32
        self.backbones = {"backbone": self.backbone.timm_name}
        self.channels = {
            "skips": widths[:-1],
            "bottleneck": (widths[-1],),
            "decoder": (sum(widths),),
            "output": (classes,),
        }
        self.linear = nn.ModuleList(PixelLinear(width, width) for width in widths)
        pairs = list(itertools.pairwise(widths))
        self.fusions = nn.ModuleList(LateFusion(pair, pair[0]) for pair in reversed(pairs))
        self.fused_linear = nn.ModuleList(PixelLinear(width, width) for width, _ in reversed(pairs))
        self.classifier = nn.Conv2d(sum(widths), classes, 1)

    def encode(self, x: Tensor, **inputs: Tensor) -> Features:
        """(B, C, H, W) → skips at strides 4, 8, 16 and the bottleneck at 32."""
        self.check_image(x, **inputs)
        *skips, bottleneck = self.backbone(x)
        return Features(skips=tuple(skips), bottleneck=bottleneck, extra={})

    def decode(self, features: Features) -> Decoded:
        """Features → the joined pyramid (B, ΣC, H / 4, W / 4)."""
        maps = [
            layer(one)
            for layer, one in zip(self.linear, (*features.skips, features.bottleneck), strict=True)
        ]
        x = maps.pop()
        pyramid = [x]
        for fusion, layer in zip(self.fusions, self.fused_linear, strict=True):
            skip = maps.pop()
            x = layer(fusion([skip, x], _size(skip)))
            pyramid.append(x)
        size = _size(x)
        joined = [
            one
            if _size(one) == size
            else interpolate(one, size=size, mode="bilinear", align_corners=False)
            for one in reversed(pyramid)
        ]
        return Decoded(map=torch.cat(joined, dim=1), extra={})

    def head(self, decoded: Decoded, size: Size, auxiliary: bool) -> Output:
        """The pyramid → logits (B, classes, H, W), resized (bilinear) from a quarter of that."""
        logits = self.classifier(decoded.map)
        return Output(
            logits=interpolate(logits, size=size, mode="bilinear", align_corners=False),
            auxiliary={},
        )

    def released_names(self) -> ReleasedNames:
        """Names of the released notebooks: backbone, LP_1 … 4, linear_fuse34 …, linear_pred."""
        prefixes = {
            f"backbone.{ours}": f"backbone.{theirs}"
            for ours, theirs in self.backbone.prefixes().items()
        }
        for index in range(4):
            prefixes[f"linear.{index}."] = f"LP_{index + 1}.proj."
        for index, pair in enumerate(("34", "23", "12")):
            prefixes[f"fusions.{index}.layer.0."] = f"linear_fuse{pair}.conv."
            prefixes[f"fusions.{index}.layer.1."] = f"linear_fuse{pair}.bn."
            prefixes[f"fused_linear.{index}."] = f"LP_{pair}.proj."
        return names_by_prefix(self, {**prefixes, "classifier.": "linear_pred."})


def _size(x: Tensor) -> Size:
    return int(x.shape[-2]), int(x.shape[-1])
