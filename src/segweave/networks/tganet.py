"""TGANet: attention to words that describe how many objects an image has and how large they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from segweave.author_weights import ReleasedNames, names_by_prefix
from segweave.backbones.deep_maps import deep_maps
from segweave.blocks.conv_norm import ConvNorm, relu
from segweave.blocks.pooled_gates import ChannelGate, SpatialGate
from segweave.blocks.text_guidance import (
    AttributeClassifier,
    LabelAttention,
    TextFeature,
    word_vectors,
)
from segweave.errors import UsageError
from segweave.networks.base import Decoded, Features, Output, SegmentationNetwork, Size
from segweave.registry import NetworkCard

DILATIONS = (6, 12, 18)
RATIO = 16
"""Channels divided by those inside of the channel attention."""

CARD = NetworkCard(
    name="tganet",
    title="TGANet (ResNet-50, text-guided attention)",
    entry="TGANet",
    paper="Tomar et al., TGANet: Text-Guided Attention for Improved Polyp Segmentation, MICCAI "
    "2022",
    licence="none stated; the readme allows research and education, and asks for permission for "
    "commercial use",
    divisor=1,
    smallest=16,
    positions={
        "skips": "the backbone's maps at strides 2, 4 and 8, before they are enhanced",
        "bottleneck": "the backbone's map at stride 16, of which number and size of the objects "
        "are predicted too",
        "decoder": "the three decoded maps joined, at a half of the image's size",
    },
    weights=(
        {
            "tag": "imagenet",
            "source": "resnet50",
            "licence": "Apache-2.0",
            "mean": (0.485, 0.456, 0.406),
            "sd": (0.229, 0.224, 0.225),
        },
    ),
    tiny_options={
        "width": 8,
        "encoder_options": {"layers": (1, 1, 1, 1), "channels": (4, 4, 8, 8)},
    },
)


class Enhancement(nn.Module):
    """A 1×1 convolution and 3×3 ones with dilation 6, 12 and 18, each with batch norm, ReLU and
    channel attention, joined by a 3×3 convolution; plus a 1×1 shortcut; ReLU; spatial attention.
    (B, C_in, H, W) → (B, C_out, H, W).
    """

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(
                ConvNorm(in_channels, width, kernel, dilation=dilation, activation=relu),
                _channel_gate(width),
            )
            for kernel, dilation in ((1, 1), *((3, dilation) for dilation in DILATIONS))
        )
        self.join = ConvNorm(len(self.branches) * width, width, 3)
        self.shortcut = ConvNorm(in_channels, width, 1)
        self.spatial = SpatialGate()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) → (B, C_out, H, W)."""
        joined = self.join(torch.cat([branch(x) for branch in self.branches], dim=1))
        return cast(Tensor, self.spatial((joined + self.shortcut(x)).relu_()))


class DenseSums(nn.Module):
    """A 1×1 convolution, then `steps` further ones with batch norm, behind each of which all
    earlier results are added before the ReLU: (B, C_in, H, W) → (B, C_out, H, W).

    Args:
        in_channels: channels of the input.
        width: channels of the output.
        kernels: kernel size of each step.
    """

    def __init__(self, in_channels: int, width: int, kernels: Sequence[int]) -> None:
        super().__init__()
        self.first = ConvNorm(in_channels, width, 1, activation=relu)
        self.steps = nn.ModuleList(ConvNorm(width, width, kernel) for kernel in kernels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) → (B, C_out, H, W)."""
        x = total = self.first(x)
        for step in self.steps:
            x = (step(x) + total).relu()
            total = total + x
        return x


class TGANet(SegmentationNetwork):
    """The maps of a ResNet-50 up to its third layer are enhanced to `width` channels. Number and
    size of the objects are predicted from the deepest map; their probabilities weight the vectors
    of five words, and the result is what three decoder blocks attend to. Their maps are joined at
    a half of the image's size, and a 1×1 convolution returns the logits (Tomar et al., Fig. 1).

    Auxiliary outputs: `number`, logits (B, 2) for one and several objects; `size`, logits (B, 3)
    for small, medium and large ones. The loss `object-words` trains them.

    The words are the same for every image, so their vectors belong to the network: the buffer
    `embeddings`, which is saved with the weights. By default they are fixed numbers, with which the
    network can learn the same functions. For the authors' weights give their vectors (BPEmb,
    English, 100,000 units, 300 numbers), read by
    `segweave.blocks.text_guidance.read_word_vectors`.

    Any size from 16×16 on: maps are resized to the size of the skip (released: multiples of 16).

    Args:
        in_channels: channels of an image.
        classes: channels of the logits.
        width: channels of each map of the decoder (released: 128).
        embeddings: the vectors of one, multiple, small, medium, large, five rows of equal length
            (released: 300 numbers each); None for fixed numbers.
        encoder: a timm backbone with levels at the strides 2, 4, 8 and 16.
        encoder_options: further options of `timm.create_model`.

    Raises:
        MissingExtraError: timm is not installed.
        UsageError: a backbone without such maps, an impossible width, other than five vectors.
    """

    embeddings: Tensor

    def __init__(
        self,
        in_channels: int = 3,
        classes: int = 1,
        *,
        width: int = 128,
        embeddings: Sequence[Sequence[float]] | None = None,
        encoder: str = "resnet50",
        encoder_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if width < 1:
            raise UsageError(
                "creating a TGANet", expected="a width of at least 1", found=f"width={width}"
            )
        self.register_buffer("embeddings", word_vectors(embeddings))
        self.encoder, widths = deep_maps(encoder, in_channels, encoder_options, levels=(0, 1, 2, 3))
        self.in_channels, self.classes = in_channels, classes
        self.stride = self.smallest = 16
        self.backbones = {"encoder": encoder}
        self.channels = {
            "skips": widths[:-1],
            "bottleneck": widths[-1:],
            "decoder": (width,),
            "output": (classes,),
        }
        self.attributes = AttributeClassifier(widths[-1], width)
        self.text = TextFeature(self.embeddings.shape[-1], width)
        self.enhance = nn.ModuleList(Enhancement(channels, width) for channels in widths)
        # From coarse to fine, as they are run.
        self.decoder = nn.ModuleList(
            nn.Sequential(
                DenseSums(2 * width, width, (3, 3, 1)), _channel_gate(width), SpatialGate()
            )
            for _ in widths[:-1]
        )
        self.attention = nn.ModuleList(LabelAttention(width) for _ in self.decoder)
        self.collect = nn.ModuleList(
            ConvNorm(width, width, 1, activation=relu) for _ in self.decoder
        )
        self.join = DenseSums(len(self.decoder) * width, width, (3, 3))
        self.classifier = nn.Conv2d(width, classes, 1)

    def encode(self, x: Tensor, **inputs: Tensor) -> Features:
        """(B, C, H, W) → skips at strides 2, 4 and 8, the bottleneck at 16."""
        self.check_image(x, **inputs)
        *skips, bottleneck = self.encoder(x)
        return Features(skips=tuple(skips), bottleneck=bottleneck, extra={})

    def decode(self, features: Features) -> Decoded:
        """Features → the joined map (B, width, H / 2, W / 2), and in `extra` the logits of number
        and size.
        """
        number, size = self.attributes(features.bottleneck)
        feature = self.text(number, size, self.embeddings)
        maps = (*features.skips, features.bottleneck)
        *skips, x = (layer(one) for layer, one in zip(self.enhance, maps, strict=True))
        decoded = []
        for block, attend, skip in zip(self.decoder, self.attention, reversed(skips), strict=True):
            x, vector = attend(block(torch.cat([_resized(x, skip), skip], dim=1)), feature)
            feature = feature + vector
            decoded.append(x)
        collected = [
            layer(_resized(one, x)) for layer, one in zip(self.collect, decoded, strict=True)
        ]
        joined = self.join(torch.cat(collected, dim=1))
        return Decoded(map=joined, extra={"number": number, "size": size})

    def head(self, decoded: Decoded, size: Size, auxiliary: bool) -> Output:
        """The joined map → logits (B, classes, H, W). The 1×1 convolution runs before the resizing,
        with which it commutes.
        """
        logits = self.classifier(decoded.map)
        return Output(
            logits=interpolate(logits, size=size, mode="bilinear", align_corners=True),
            auxiliary=dict(decoded.extra) if auxiliary else {},
        )

    def released_names(self) -> ReleasedNames:
        """Names of the released code: layer0 … layer3, text_classifier, label_fc, s1 … s4, d1 …
        d3, a1 … a3, ag, y1. It holds no vectors of words.
        """
        prefixes = {
            "embeddings": "",
            "encoder.conv1.": "layer0.0.",
            "encoder.bn1.": "layer0.1.",
            "encoder.layer1.": "layer1.1.",
            "encoder.layer2.": "layer2.",
            "encoder.layer3.": "layer3.",
            "attributes.number.": "text_classifier.fc1.",
            "attributes.size.": "text_classifier.fc2.",
            "text.layers.": "label_fc.fc.",
            "join.first.": "ag.c14.conv.",
            "classifier.": "y1.c1.",
        }
        gates = (("0.", "fc1."), ("2.", "fc2."))
        for i in range(len(self.enhance)):
            ours, theirs = f"enhance.{i}.", f"s{i + 1}."
            for k in range(1 + len(DILATIONS)):
                prefixes[f"{ours}branches.{k}.0."] = f"{theirs}c{k + 1}.0.conv."
                for layer, name in gates:
                    prefixes[f"{ours}branches.{k}.1.{layer}"] = f"{theirs}c{k + 1}.1.{name}"
            prefixes[f"{ours}join."] = f"{theirs}c5.conv."
            prefixes[f"{ours}shortcut."] = f"{theirs}c6.conv."
            prefixes[f"{ours}spatial."] = f"{theirs}sa.conv1."
        for i in range(len(self.decoder)):
            ours, theirs = f"decoder.{i}.", f"d{i + 1}."
            prefixes[f"{ours}0.first."] = f"{theirs}c1.conv."
            for k in range(3):
                prefixes[f"{ours}0.steps.{k}."] = f"{theirs}c{k + 2}.conv."
            for layer, name in gates:
                prefixes[f"{ours}1.{layer}"] = f"{theirs}ca.{name}"
            prefixes[f"{ours}2."] = f"{theirs}sa.conv1."
            prefixes[f"attention.{i}.layers."] = f"a{i + 1}.c1."
            prefixes[f"collect.{i}."] = f"ag.c1{i + 1}.conv."
        for k in range(2):
            prefixes[f"join.steps.{k}."] = f"ag.c{k + 2}.conv."
        names = dict(names_by_prefix(self, prefixes).tensors)
        del names["embeddings"]
        return ReleasedNames(names)


def _channel_gate(channels: int) -> ChannelGate:
    return ChannelGate(channels, max(1, channels // RATIO))


def _resized(x: Tensor, target: Tensor) -> Tensor:
    return interpolate(x, size=target.shape[-2:], mode="bilinear", align_corners=True)
