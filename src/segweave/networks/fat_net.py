"""FAT-Net: a ResNet and a vision transformer without positions, joined at the bottleneck; feature
adaptation on the skips.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from segweave.author_weights import ReleasedNames, names_by_prefix
from segweave.backbones.plain_vit import PATCH, PlainViT
from segweave.backbones.resnet import RESNET34, resnet_stages
from segweave.blocks.link import RELEASED_LINK, LinkBlock, LinkHead
from segweave.blocks.squeeze_excitation import SqueezeExcitation
from segweave.networks.base import Decoded, Features, Output, SegmentationNetwork, Size
from segweave.registry import NetworkCard

DEIT_TINY = "deit_tiny_distilled_patch16_224"
REPEATS = (6, 4, 2)
"""How often a skip passes its feature adaptation, from shallow to deep."""
REDUCTION = 16
"""Channels divided by those of the hidden layer of squeeze and excitation."""

CARD = NetworkCard(
    name="fat-net",
    title="FAT-Net (ResNet-34 and DeiT-Ti, feature adaptation)",
    entry="FATNet",
    paper="Wu et al., FAT-Net: Feature Adaptive Transformers for Automated Skin Lesion "
    "Segmentation, Medical Image Analysis 76, 2022",
    licence="none stated",
    divisor=16,
    smallest=16,
    positions={
        "skips": "the ResNet's maps at strides 2, 4 and 8, before the feature adaptation",
        "bottleneck": "the joined map of both encoders at stride 16",
        "decoder": "the map at half of the image's size",
    },
    weights=(
        {
            "tag": "imagenet",
            "backbone": "transformer",
            "source": "deit_tiny_distilled_patch16_224",
            "licence": "Apache-2.0",
            "mean": (0.485, 0.456, 0.406),
            "sd": (0.229, 0.224, 0.225),
        },
        {
            "tag": "imagenet",
            "backbone": "convolutional",
            "source": "resnet34.tv_in1k",
            "licence": "BSD-3-Clause",
            "mean": (0.485, 0.456, 0.406),
            "sd": (0.229, 0.224, 0.225),
        },
    ),
    tiny_options={"encoder": "test_resnet", "hidden": 8, "layers": 1, "heads": 2, "head_width": 4},
)


class FeatureAdaptation(nn.Module):
    """Feature adaptation (FAM): ReLU(3×3 convolution) + ReLU(1×1 convolution), (B, C, H, W) → the
    same, `repeats` times with the same weights.
    """

    def __init__(self, channels: int, repeats: int) -> None:
        super().__init__()
        self.repeats = repeats
        self.conv3 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv1 = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → the same."""
        for _ in range(self.repeats):
            x = self.conv3(x).relu_() + self.conv1(x).relu_()
        return x


class FATNet(SegmentationNetwork):
    """A ResNet without its max pooling, so that its last map is at stride 16, and a vision
    transformer on 16×16 patches without positions, class token or last norm. Their maps are joined,
    weighted by squeeze and excitation, and brought to the ResNet's channels. LinkNet's decoder adds
    the skips, each behind its feature adaptation.

    Args:
        in_channels: channels of an image.
        classes: channels of the logits.
        encoder: a timm name of a ResNet.
        encoder_options: further options of `timm.create_model`.
        hidden: channels of a token (released: 192).
        layers: number of transformer blocks (released: 12).
        heads: heads of the attention, a divisor of `hidden`.
        head_width: channels of the two inner maps of the head (released: 32).

    Raises:
        MissingExtraError: timm is not installed.
        UsageError: a backbone that is not a ResNet, or heads that do not divide.
    """

    def __init__(
        self,
        in_channels: int = 3,
        classes: int = 1,
        *,
        encoder: str = RESNET34,
        encoder_options: Mapping[str, Any] | None = None,
        hidden: int = 192,
        layers: int = 12,
        heads: int = 3,
        head_width: int = 32,
    ) -> None:
        super().__init__()
        self.convolutional, widths = resnet_stages(
            encoder, in_channels, encoder_options, levels=(1, 2, 3, 4), pooling=False
        )
        self.transformer = PlainViT(
            in_channels, width=hidden, depth=layers, heads=heads, norm=False
        )
        deep = widths[-1]
        self.in_channels, self.classes = in_channels, classes
        self.stride = self.divisor = self.smallest = PATCH
        self.backbones = {"convolutional": encoder, "transformer": DEIT_TINY}
        self.channels = {
            "skips": widths[:-1],
            "bottleneck": (deep,),
            "decoder": (widths[0],),
            "output": (classes,),
        }
        self.widen = nn.Conv2d(hidden, deep, 1)
        self.excitation = SqueezeExcitation(2 * deep, max(1, 2 * deep // REDUCTION))
        self.join = nn.Conv2d(2 * deep, deep, 1)
        self.adaptations = nn.ModuleList(
            FeatureAdaptation(width, repeats)
            for width, repeats in zip(widths[:-1], REPEATS, strict=True)
        )
        self.decoder = nn.ModuleList(
            LinkBlock(before, after) for before, after in pairwise(reversed(widths))
        )
        self.classifier = LinkHead(widths[0], head_width, classes)

    def encode(self, x: Tensor, **inputs: Tensor) -> Features:
        """(B, C, H, W) → skips at strides 2, 4, 8 and the joined map at 16."""
        self.check_image(x, **inputs)
        *skips, deep = self.convolutional(x)
        joined = torch.cat([deep, self.widen(self.transformer(x))], dim=1)
        bottleneck = self.join(self.excitation(joined))
        return Features(skips=tuple(skips), bottleneck=bottleneck, extra={})

    def decode(self, features: Features) -> Decoded:
        """Features → the map (B, C, H / 2, W / 2) before the head."""
        x = features.bottleneck
        for block, adaptation, skip in zip(
            self.decoder, reversed(self.adaptations), reversed(features.skips), strict=True
        ):
            x = block(x) + adaptation(skip)
        return Decoded(map=x, extra={})

    def head(self, decoded: Decoded, size: Size, auxiliary: bool) -> Output:
        """The last map, doubled by a transposed convolution → logits (B, classes, H, W)."""
        return Output(logits=self.classifier(decoded.map), auxiliary={})

    def released_names(self) -> ReleasedNames:
        """Names of the authors' code (SZUcsh/FAT-Net). A feature adaptation has one name per
        repetition and one more, of which the last one counts; a decoder block for the image's size
        is built there and never called.
        """
        prefixes = {
            "convolutional.conv1.": "firstconv.",
            "convolutional.bn1.": "firstbn.",
            "transformer.patch_embed.": "patch_embed.",
            "transformer.blocks.": "transformers.",
            "widen.": "conv_seq_img.",
            "excitation.": "se.",
            "join.": "conv2d.",
        }
        prefixes |= {f"convolutional.layer{i}.": f"encoder{i}." for i in range(1, 5)}
        for k in range(3):
            prefixes[f"classifier.{2 * k}."] = f"final_conv{k + 1}."
        for i in range(len(self.decoder)):
            ours, theirs = f"decoder.{i}.", f"decoder{4 - i}."
            prefixes[f"{ours}1."] = f"{theirs}up."
            prefixes |= {f"{ours}{k}.": f"{theirs}{name}." for k, name in RELEASED_LINK.items()}
        again = []
        for i, repeats in enumerate(REPEATS):
            prefixes[f"adaptations.{i}."] = f"FAM{i + 1}.{repeats - 1}."
            again.append(f"FAMBlock{i + 1}")
            again += [f"FAM{i + 1}.{k}" for k in range(repeats - 1)]
        names = names_by_prefix(self, prefixes, dead=_unused())
        fixed = {
            f"{block}.{layer}.{leaf}"
            for block in again
            for layer in ("conv1", "conv3")
            for leaf in ("weight", "bias")
        }
        return ReleasedNames(names.tensors, fixed=frozenset(fixed), dead=names.dead)


def _unused() -> list[str]:
    """Names of the decoder block that the released code never calls."""
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    names = []
    for convolution, other in (("conv1", "norm1"), ("up.0", "up.1"), ("conv3", "norm3")):
        names += [f"decoder1.{convolution}.{leaf}" for leaf in norm[:2]]
        names += [f"decoder1.{other}.{leaf}" for leaf in norm]
    return names
