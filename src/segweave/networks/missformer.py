"""MISSFormer as its authors' code computes it: a transformer encoder, a bridge between the tokens
of all scales, and a transformer decoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from segweave.author_weights import ReleasedNames, names_by_prefix
from segweave.blocks.patch_expansion import PatchExpansion
from segweave.blocks.token_blocks import (
    MIX_SKIP_FFN_DEAD,
    MIX_SKIP_FFN_NAMES,
    MixSkipFFN,
    OverlappingPatches,
    ReducedAttention,
    to_map,
    to_tokens,
    xavier_start,
)
from segweave.blocks.token_bridge import BridgeLayer
from segweave.errors import UsageError
from segweave.networks.base import Decoded, Features, Output, SegmentationNetwork, Size
from segweave.registry import NetworkCard

CARD = NetworkCard(
    name="missformer",
    title="MISSFormer",
    entry="MISSFormer",
    paper="Huang et al., MISSFormer: An Effective Medical Image Segmentation Transformer, arXiv "
    "2109.07162 (IEEE Transactions on Medical Imaging 2023)",
    divisor=32,
    smallest=32,
    positions={
        "bottleneck": "the encoder's deepest map before the bridge, which carries what the module "
        "adds to all scales",
        "skips": "the encoder's maps at strides 4, 8 and 16 before the bridge",
        "decoder": "the map at the size of the image, behind the last patch expansion",
    },
    tiny_options={"width": 4, "bridge_layers": 1},
)

HEADS = (1, 2, 5, 8)
"""Heads of the attention in the stages; the channels are `width` times these."""
REDUCTIONS = (8, 4, 2, 1)
"""Side of the squares that become one key, in the stages."""


class MISSFormer(SegmentationNetwork):
    """Four encoder stages at strides 4, 8, 16 and 32 with two blocks each, four bridge layers, and
    a decoder of three stages with two blocks each.

    An image with one channel is repeated to three. The released code takes 224×224 pixels only,
    since the bridge's numbers of tokens are written in it; nothing in its arithmetic needs that.

    Args:
        in_channels: channels of an image.
        classes: channels of the logits.
        width: channels of the first stage and of a token of the bridge (released: 64).
        bridge_layers: number of layers of the bridge (released: 4).

    Raises UsageError for an odd width and for fewer than one bridge layer.
    """

    def __init__(
        self,
        in_channels: int = 3,
        classes: int = 1,
        *,
        width: int = 64,
        bridge_layers: int = 4,
    ) -> None:
        super().__init__()
        if width < 2 or width % 2 or bridge_layers < 1:
            raise UsageError(
                "creating a MISSFormer",
                expected="an even width and at least one bridge layer",
                found=f"width={width}, bridge_layers={bridge_layers}",
            )
        widths = [width * heads for heads in HEADS]
        self.in_channels, self.classes = in_channels, classes
        self.stride = self.divisor = self.smallest = 32
        self.channels = {
            "skips": tuple(widths[:-1]),
            "bottleneck": (widths[-1],),
            "decoder": (width,),
            "output": (classes,),
        }
        first = 3 if in_channels == 1 else in_channels
        self.patches = nn.ModuleList(
            OverlappingPatches(before, after, 3 if i else 7, 2 if i else 4)
            for i, (before, after) in enumerate(pairwise([first, *widths]))
        )
        self.encoder = nn.ModuleList(
            _blocks(*settings) for settings in zip(widths, HEADS, REDUCTIONS, strict=True)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(c) for c in widths)
        self.bridge = nn.ModuleList(
            BridgeLayer(width, widths, REDUCTIONS) for _ in range(bridge_layers)
        )
        self.expansions = nn.ModuleList(PatchExpansion(c, c // 2, 2) for c in reversed(widths[1:]))
        self.joins = nn.ModuleList(
            nn.Linear(before // 2 + c, c) for before, c in pairwise(reversed(widths))
        )
        self.decoder = nn.ModuleList(
            _blocks(widths[i], HEADS[i], REDUCTIONS[i]) for i in reversed(range(3))
        )
        self.last_expansion = PatchExpansion(width, width, 4)
        self.classifier = nn.Conv2d(width, classes, 1)
        for part in (self.expansions, self.joins, self.decoder, self.last_expansion):
            part.apply(xavier_start)
        self.classifier.apply(xavier_start)

    def encode(self, x: Tensor, **inputs: Tensor) -> Features:
        """(B, C, H, W) → skips at strides 4, 8, 16 and the bottleneck at 32. Raises UsageError for
        a wrong number of channels and for sides that are not multiples of 32.
        """
        self.check_image(x, **inputs)
        if self.in_channels == 1:
            x = x.expand(-1, 3, -1, -1)
        maps = []
        for patches, blocks, norm in zip(self.patches, self.encoder, self.norms, strict=True):
            x = to_map(norm(blocks(patches(x))))
            maps.append(x)
        return Features(skips=tuple(maps[:-1]), bottleneck=maps[-1], extra={})

    def decode(self, features: Features) -> Decoded:
        """Features → the map (B, width, H, W) before the head. The bridge is here, so that
        neighbours of a slice do not pay for it.
        """
        scales = [to_tokens(one) for one in (*features.skips, features.bottleneck)]
        for layer in self.bridge:
            scales = layer(scales)
        *skips, x = scales
        for expand, join, blocks, skip in zip(
            self.expansions, self.joins, self.decoder, reversed(skips), strict=True
        ):
            x = blocks(join(torch.cat([expand(x), skip], dim=-1)))
        return Decoded(map=to_map(self.last_expansion(x)), extra={})

    def head(self, decoded: Decoded, size: Size, auxiliary: bool) -> Output:
        """The last map, which has the image's size already → logits (B, classes, H, W)."""
        return Output(logits=self.classifier(decoded.map), auxiliary={})

    def released_names(self) -> ReleasedNames:
        """Names of the authors' code (ZhifangDeng/MISSFormer)."""
        prefixes = {
            "last_expansion.": "decoder_0.layer_up.",
            "classifier.": "decoder_0.last_layer.",
        }
        ffns = {}
        for i in range(len(HEADS)):
            prefixes[f"patches.{i}."] = f"backbone.patch_embed{i + 1}."
            prefixes[f"norms.{i}."] = f"backbone.norm{i + 1}."
            for j in range(2):
                prefixes[f"encoder.{i}.{j}."] = f"backbone.block{i + 1}.{j}."
                ffns[f"encoder.{i}.{j}.ffn."] = f"backbone.block{i + 1}.{j}.mlp."
        for i in range(len(self.bridge)):
            released = f"bridge.bridge_layer{i + 1}."
            prefixes[f"bridge.{i}."] = released
            prefixes[f"bridge.{i}.attn.norm."] = f"{released}attn.scale_reduce.norm."
            for j in range(len(HEADS)):
                prefixes[f"bridge.{i}.attn.reduce.{j}."] = f"{released}attn.scale_reduce.sr{j}."
                ffns[f"bridge.{i}.ffns.{j}."] = f"{released}mixffn{j + 1}."
        for i in range(3):
            prefixes[f"expansions.{i}."] = f"decoder_{3 - i}.layer_up."
            prefixes[f"joins.{i}."] = f"decoder_{2 - i}.concat_linear."
            for j in range(2):
                released = f"decoder_{2 - i}.layer_former_{j + 1}."
                prefixes[f"decoder.{i}.{j}."] = released
                ffns[f"decoder.{i}.{j}.ffn."] = f"{released}mlp."
        for ours, theirs in ffns.items():
            prefixes |= {ours + a: theirs + b for a, b in MIX_SKIP_FFN_NAMES.items()}
        dead = {theirs + leaf for theirs in ffns.values() for leaf in MIX_SKIP_FFN_DEAD}
        return names_by_prefix(self, prefixes, dead=dead | set(_dead_decoder()))


class Block(nn.Module):
    """x + attention of LN(x), then that plus a feed-forward part of another LN: (B, H, W, C) → the
    same.
    """

    def __init__(self, channels: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn = ReducedAttention(channels, heads, reduction)
        self.norm2 = nn.LayerNorm(channels)
        self.ffn = MixSkipFFN(channels, 4 * channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → (B, H, W, C)."""
        x = x + self.attn(self.norm1(x))
        x = x + self.ffn(self.norm2(x))
        return x


def _blocks(channels: int, heads: int, reduction: int) -> nn.Sequential:
    return nn.Sequential(*(Block(channels, heads, reduction) for _ in range(2)))


def _dead_decoder() -> Sequence[str]:
    """What the released deepest decoder stage builds besides its patch expansion."""
    layers = ["concat_linear"]
    for block in ("layer_former_1", "layer_former_2"):
        inner = ("norm1", "attn.q", "attn.kv", "attn.proj", "norm2")
        of_ffn = ("fc1", "dwconv.dwconv", "fc2", "norm1", "norm2", "norm3")
        layers += [f"{block}.{layer}" for layer in inner]
        layers += [f"{block}.mlp.{layer}" for layer in of_ffn]
    return [f"decoder_3.{layer}.{leaf}" for layer in layers for leaf in ("weight", "bias")]
