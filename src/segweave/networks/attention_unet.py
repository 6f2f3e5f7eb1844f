"""Attention U-Net: a UNet whose skips pass through gates that the decoder's map opens."""

from __future__ import annotations

import torch
from torch import nn

from segweave.author_weights import ReleasedNames, names_by_prefix
from segweave.blocks.attention_gate import AttentionGate
from segweave.blocks.conv_norm import DoubleConvolution
from segweave.blocks.upsampling import NearestConvolution
from segweave.errors import UsageError
from segweave.networks.base import Decoded, Features
from segweave.networks.unet import UShape
from segweave.registry import NetworkCard

LEVELS = 5

CARD = NetworkCard(
    name="attention-unet",
    title="Attention U-Net (widths 64 to 1024)",
    entry="AttentionUNet",
    paper="Oktay et al., Attention U-Net: Learning Where to Look for the Pancreas, MIDL 2018; as "
    "in github.com/TomAndHelen/UNet_Family",
    licence="none stated",
    divisor=16,
    smallest=16,
    positions={"skips": "each map of the encoder, before its gate"},
    tiny_options={"width": 8},
)


class AttentionUNet(UShape):
    """UNet with five levels, nearest-neighbour upsampling and gated skips. `width` is the number of
    channels of the first level, each further level has twice as many (released: 64 to 1024). The
    released code ends in a sigmoid; this one returns logits. Raises UsageError for a width below 2,
    since a gate works with half of the channels.
    """

    def __init__(self, in_channels: int = 3, classes: int = 1, *, width: int = 64) -> None:
        if width < 2:
            raise UsageError(
                "creating an Attention U-Net", expected="width at least 2", found=f"width={width}"
            )
        widths = [width * 2**level for level in range(LEVELS)]
        super().__init__(in_channels, classes, widths, DoubleConvolution)
        upward = list(reversed(widths[:-1]))
        self.upsampling = nn.ModuleList(NearestConvolution(2 * after, after) for after in upward)
        self.gates = nn.ModuleList(AttentionGate(after, after, after // 2) for after in upward)
        self.decoder = nn.ModuleList(DoubleConvolution(2 * after, after) for after in upward)
        self.classifier = nn.Conv2d(width, classes, 1)

    def decode(self, features: Features) -> Decoded:
        """Features → the map (B, width, H, W) before the head."""
        x = features.bottleneck
        for up, gate, block, skip in zip(
            self.upsampling, self.gates, self.decoder, reversed(features.skips), strict=True
        ):
            x = up(x)
            x = block(torch.cat([gate(x, skip), x], dim=1))
        return Decoded(map=x, extra={})

    def released_names(self) -> ReleasedNames:
        """Names of UNet_Family: Conv1 … Conv5 down; Up, Att, Up_conv 5 … 2 up; Conv_1x1."""
        prefixes = {f"encoder.{i}.": f"Conv{i + 1}.conv." for i in range(LEVELS)}
        for i, number in enumerate(range(LEVELS, 1, -1)):
            prefixes[f"upsampling.{i}.0."] = f"Up{number}.up.1."
            prefixes[f"upsampling.{i}.1."] = f"Up{number}.up.2."
            prefixes[f"gates.{i}.signal."] = f"Att{number}.W_g."
            prefixes[f"gates.{i}.skip."] = f"Att{number}.W_x."
            prefixes[f"gates.{i}.score."] = f"Att{number}.psi."
            prefixes[f"decoder.{i}."] = f"Up_conv{number}.conv."
        return names_by_prefix(self, {**prefixes, "classifier.": "Conv_1x1."})
