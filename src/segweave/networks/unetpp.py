"""UNet++: nested blocks between encoder and decoder, with or without deep supervision."""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import torch
from torch import nn
from torch.nn.functional import interpolate

from segweave.author_weights import ReleasedNames, names_by_prefix
from segweave.blocks.conv_norm import DoubleConvolution
from segweave.errors import UsageError
from segweave.networks.base import Decoded, Features, Output, Size
from segweave.networks.unet import UShape
from segweave.registry import NetworkCard

LEVELS = 5

CARD = NetworkCard(
    name="unetpp",
    title="UNet++ (widths 32 to 512)",
    entry="UNetPlusPlus",
    paper="Zhou et al., UNet++: A Nested U-Net Architecture for Medical Image Segmentation, DLMIA "
    "2018; as in github.com/TomAndHelen/UNet_Family",
    licence="none stated",
    divisor=16,
    smallest=16,
    positions={
        "skips": "the encoder's maps X(0,0) to X(3,0), from which all nested blocks start",
        "decoder": "the map of the last nested block, X(0,4)",
    },
    tiny_options={"width": 4},
)


class UNetPlusPlus(UShape):
    """Block X(i, j) reads X(i, 0), …, X(i, j − 1) and the upsampled X(i + 1, j − 1) (Eq. 1). The
    blocks X(i, 0) are the encoder.

    `width` is the number of channels of the first level, each further level has twice as many
    (released: 32 to 512). With `deep_supervision` the maps X(0, 1) to X(0, 3) have heads too: the
    auxiliary outputs `node-1` to `node-3`, whose losses the released training averages with that of
    the logits. The released code ends in sigmoids; this one returns logits. Raises UsageError for a
    width below 1.
    """

    def __init__(
        self,
        in_channels: int = 3,
        classes: int = 1,
        *,
        width: int = 32,
        deep_supervision: bool = False,
    ) -> None:
        if width < 1:
            raise UsageError(
                "creating a UNet++", expected="width at least 1", found=f"width={width}"
            )
        widths = [width * 2**level for level in range(LEVELS)]
        super().__init__(in_channels, classes, widths, DoubleConvolution)
        # columns[j - 1][i] is X(i, j).
        self.columns = nn.ModuleList(
            nn.ModuleList(
                DoubleConvolution(column * here + deeper, here)
                for here, deeper in list(pairwise(widths))[: LEVELS - column]
            )
            for column in range(1, LEVELS)
        )
        self.deep_heads = nn.ModuleList(
            nn.Conv2d(width, classes, 1) for _ in range(LEVELS - 2 if deep_supervision else 0)
        )
        self.classifier = nn.Conv2d(width, classes, 1)

    def decode(self, features: Features) -> Decoded:
        """Features → X(0, 4), (B, width, H, W), and X(0, 1) to X(0, 3) for deep supervision."""
        rows = [[skip] for skip in (*features.skips, features.bottleneck)]
        for column in self.columns:
            # From the finest level on, so that the level below still ends with the column before.
            for level, block in enumerate(cast(nn.ModuleList, column)):
                up = interpolate(
                    rows[level + 1][-1], scale_factor=2, mode="bilinear", align_corners=True
                )
                rows[level].append(block(torch.cat([*rows[level], up], dim=1)))
        nodes = {f"node-{j}": rows[0][j] for j in range(1, len(self.deep_heads) + 1)}
        return Decoded(map=rows[0][-1], extra=nodes)

    def head(self, decoded: Decoded, size: Size, auxiliary: bool) -> Output:
        """The last map, which has the image's size already → logits (B, classes, H, W); with deep
        supervision the logits of the other columns as auxiliary outputs.
        """
        deep = zip(self.deep_heads, decoded.extra.items(), strict=True) if auxiliary else ()
        return Output(
            logits=self.classifier(decoded.map),
            auxiliary={name: head(node) for head, (name, node) in deep},
        )

    def released_names(self) -> ReleasedNames:
        """Names of UNet_Family: conv{i}_{j} for X(i, j); final, or final1 … final4."""
        prefixes = {f"encoder.{i}.": f"conv{i}_0.conv." for i in range(LEVELS)}
        for j in range(1, LEVELS):
            for i in range(LEVELS - j):
                prefixes[f"columns.{j - 1}.{i}."] = f"conv{i}_{j}.conv."
        deep = len(self.deep_heads)
        prefixes |= {f"deep_heads.{k}.": f"final{k + 1}." for k in range(deep)}
        return names_by_prefix(
            self, {**prefixes, "classifier.": f"final{deep + 1}." if deep else "final."}
        )
