"""MSCA-Net: exchange between the scales of a ResNet-34 and fusion of the decoder's scales."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from segweave.author_weights import ReleasedNames, names_by_prefix
from segweave.backbones.deep_maps import FIVE_LEVELS, deep_maps
from segweave.blocks.conv_norm import ConvNorm, relu
from segweave.blocks.cross_scale import (
    AffinityAttention,
    CrossScaleBridge,
    ResidualGates,
    ScaleFusion,
)
from segweave.errors import UsageError
from segweave.networks.base import Decoded, Features, Output, SegmentationNetwork, Size
from segweave.registry import NetworkCard

CARD = NetworkCard(
    name="msca-net",
    title="MSCA-Net (ResNet-34, multi-scale contextual attention)",
    entry="MSCANet",
    paper="Sun et al., MSCA-Net: Multi-Scale Contextual Attention Network for Skin Lesion "
    "Segmentation, Pattern Recognition, 2023",
    licence="none stated for the network",
    divisor=1,
    smallest=32,
    positions={
        "skips": "the backbone's maps at strides 2, 4, 8 and 16, before the three deeper ones "
        "exchange what they hold",
        "bottleneck": "the backbone's map at stride 32, before its attention, which is multiplied "
        "by numbers that start at zero",
        "decoder": "the fused scales at a half of the image's size",
    },
    weights=(
        {
            "tag": "imagenet",
            "source": "resnet34",
            "licence": "Apache-2.0",
            "mean": (0.485, 0.456, 0.406),
            "sd": (0.229, 0.224, 0.225),
        },
    ),
    tiny_options={
        "width": 8,
        "encoder_options": {"layers": (1, 1, 1, 1), "channels": (4, 4, 8, 16)},
    },
)


class MSCANet(SegmentationNetwork):
    """A ResNet-34 gives maps at the strides 2 to 32. Those at 4, 8 and 16 exchange what they hold
    (`CrossScaleBridge`); the deepest one is the sum of itself and two attentions of it, with
    weights that start at zero. A U-Net's decoder follows; its four maps, resized to a half of the
    image's size, are fused from coarse to fine (`ScaleFusion`), and two convolutions at the
    image's size return the logits (Sun et al., Fig. 1).

    Any size from 32×32 on: maps are resized to the size of the skip (released: 224×320 alone).

    Args:
        in_channels: channels of an image.
        classes: channels of the logits.
        width: channels of keys and values of the exchange and of the fused maps (released: 64).
        encoder: a timm backbone with five levels (released: `resnet34`).
        encoder_options: further options of `timm.create_model`.

    Raises:
        MissingExtraError: timm is not installed.
        UsageError: a backbone without such maps, or a width below 2.
    """

    def __init__(
        self,
        in_channels: int = 3,
        classes: int = 1,
        *,
        width: int = 64,
        encoder: str = "resnet34",
        encoder_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if width < 2:
            raise UsageError(
                "creating an MSCA-Net", expected="a width of at least 2", found=f"width={width}"
            )
        self.encoder, widths = deep_maps(encoder, in_channels, encoder_options, levels=FIVE_LEVELS)
        *skips, deepest = widths
        self.in_channels, self.classes = in_channels, classes
        self.stride = self.smallest = 32
        self.backbones = {"encoder": encoder}
        self.channels = {
            "skips": tuple(skips),
            "bottleneck": (deepest,),
            "decoder": (width,),
            "output": (classes,),
        }
        self.bridge = CrossScaleBridge(skips[1:], width)
        self.affinity = AffinityAttention(deepest, max(1, deepest // 8))
        self.gates = ResidualGates(deepest)
        # Of the affinity attention, of the gates, and of the map itself.
        self.gammas = nn.ParameterList(nn.Parameter(torch.zeros(1)) for _ in range(3))
        # From coarse to fine, as they are run.
        outputs = list(reversed(skips))
        self.decoder = nn.ModuleList(
            _block(before + skip, skip)
            for before, skip in zip((deepest, *outputs), outputs, strict=False)
        )
        self.reduce = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in outputs)
        self.fusion = nn.ModuleList(ScaleFusion(width) for _ in outputs[1:])
        inner = width // 2
        self.last = nn.Sequential(
            ConvNorm(width, inner, 1, activation=relu), ConvNorm(inner, inner, 3, activation=relu)
        )
        self.classifier = nn.Conv2d(inner, classes, 1)

    def encode(self, x: Tensor, **inputs: Tensor) -> Features:
        """(B, C, H, W) → skips at strides 2, 4, 8 and 16, the bottleneck at 32."""
        self.check_image(x, **inputs)
        *skips, bottleneck = self.encoder(x)
        return Features(skips=tuple(skips), bottleneck=bottleneck, extra={})

    def decode(self, features: Features) -> Decoded:
        """Features → the fused map (B, width, H / 2, W / 2)."""
        fine, *deeper = features.skips
        skips = (fine, *self.bridge(deeper))
        x = features.bottleneck
        first, second, third = self.gammas
        x = first * self.affinity(x) + second * self.gates(x) + third * x
        maps = []
        for block, reduce, skip in zip(self.decoder, self.reduce, reversed(skips), strict=True):
            x = interpolate(x, size=skip.shape[-2:], mode="bilinear", align_corners=True)
            x = block(torch.cat([skip, x], dim=1))
            maps.append(reduce(x))
        fused, *finer = (
            interpolate(one, size=fine.shape[-2:], mode="bilinear", align_corners=False)
            for one in maps
        )
        for fusion, one in zip(self.fusion, finer, strict=True):
            fused = fusion(fused, one)
        return Decoded(map=fused, extra={})

    def head(self, decoded: Decoded, size: Size, auxiliary: bool) -> Output:
        """The fused map, resized to the image → logits (B, classes, H, W)."""
        x = interpolate(decoded.map, size=size, mode="bilinear", align_corners=True)
        return Output(logits=self.classifier(self.last(x)), auxiliary={})

    def released_names(self) -> ReleasedNames:
        """Names of the released code: backbone, bridge, affinity_attention, cbam, up1 …, dsv4 …,
        sw1 …, main_head. The ImageNet classifier and a second set of convolutions in each fusion
        are dead.
        """
        prefixes = {
            "encoder.": "backbone.",
            "affinity.": "affinity_attention.sab.",
            "affinity.channel_gamma": "affinity_attention.cab.gamma",
            "gates.channel.0.": "cbam.fc1.",
            "gates.channel.2.": "cbam.fc2.",
            "gates.spatial.": "cbam.conv_after_concat.",
            "classifier.": "main_head.conv_1x1_2.",
        }
        dead = ["backbone.fc.weight", "backbone.fc.bias"]
        for i in range(3):
            prefixes[f"gammas.{i}"] = f"gamma{i + 1}"
            for ours, theirs in (("keys", "qk"), ("values", "v"), ("out", "out")):
                prefixes[f"bridge.{ours}.{i}."] = f"bridge.conv_{theirs}{i + 1}."
            layers = ("conv1x1", "conv3x3_1", "conv3x3_2")
            for ours, theirs in zip(("first", "second", "third"), layers, strict=True):
                prefixes[f"fusion.{i}.{ours}."] = f"sw{i + 1}.{theirs}.0."
                dead += [f"sw{i + 1}.{theirs}.1.{leaf}" for leaf in ("weight", "bias")]
            norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
            dead.append(f"sw{i + 1}.conv_last.conv.weight")
            dead += [f"sw{i + 1}.conv_last.bn.{leaf}" for leaf in norm]
        for i in range(len(self.decoder)):
            prefixes[f"decoder.{i}."] = f"up{i + 1}.conv.double_conv."
            prefixes[f"reduce.{i}."] = f"dsv{4 - i}.dsv.0." if i < 3 else "dsv1."
        for i in range(len(self.last)):
            for layer, name in (("0", "conv"), ("1", "bn")):
                prefixes[f"last.{i}.{layer}."] = f"main_head.conv_1x1_3x3.{i}.{name}."
        return names_by_prefix(self, prefixes, dead=dead)


def _block(in_channels: int, out_channels: int) -> nn.Sequential:
    """Two 3×3 convolutions with batch norm and ReLU, half of the channels between them."""
    inner = in_channels // 2
    # Unpacked, so that the tensors have the names 0, 1, 3, 4 of the released code.
    return nn.Sequential(
        *ConvNorm(in_channels, inner, 3, bias=True, activation=relu),
        *ConvNorm(inner, out_channels, 3, bias=True, activation=relu),
    )
