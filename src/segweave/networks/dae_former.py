"""DAE-Former as its authors' code computes it: attention between positions and between channels,
both linear in the number of tokens, and cross attention in the skips.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from segweave.author_weights import ReleasedNames, names_by_prefix
from segweave.blocks.dual_attention import HEADS, CrossAttentionBlock, DualBlock
from segweave.blocks.patch_expansion import PatchExpansion
from segweave.blocks.token_blocks import (
    MIX_SKIP_FFN_DEAD,
    MIX_SKIP_FFN_NAMES,
    OverlappingPatches,
    to_map,
    to_tokens,
    xavier_start,
)
from segweave.errors import UsageError
from segweave.networks.base import Decoded, Features, Output, SegmentationNetwork, Size
from segweave.registry import NetworkCard

CARD = NetworkCard(
    name="dae-former",
    title="DAE-Former (dual attention-guided efficient transformer)",
    entry="DAEFormer",
    paper="Azad et al., DAE-Former: Dual Attention-guided Efficient Transformer for Medical Image "
    "Segmentation, Predictive Intelligence in Medicine 2023",
    licence="MIT",
    divisor=16,
    smallest=16,
    positions={
        "skips": "the encoder's maps at strides 4 and 8, which cross attention joins",
        "decoder": "the map at the size of the image, behind the last patch expansion",
    },
    tiny_options={"widths": (8, 16, 24)},
)


class DAEFormer(SegmentationNetwork):
    """Three encoder stages at strides 4, 8 and 16 with two dual blocks each, and two decoder stages
    with cross attention and two dual blocks each.

    An image with one channel is repeated to three. The released code takes 224×224 pixels only,
    since sizes are written in it; nothing in its arithmetic needs that.

    Args:
        in_channels: channels of an image.
        classes: channels of the logits.
        widths: channels of the stages (released: 128, 320, 512), three multiples of 8.

    Raises UsageError for other than three widths or one that 8 does not divide.
    """

    def __init__(
        self, in_channels: int = 3, classes: int = 1, *, widths: Sequence[int] = (128, 320, 512)
    ) -> None:
        super().__init__()
        if len(widths) != 3 or any(width < 1 or width % HEADS for width in widths):
            raise UsageError(
                "creating a DAE-Former",
                expected=f"three widths that {HEADS} divides",
                found=f"widths={tuple(widths)}",
            )
        self.in_channels, self.classes = in_channels, classes
        self.stride = self.divisor = self.smallest = 16
        self.channels = {
            "skips": tuple(widths[:-1]),
            "bottleneck": (widths[-1],),
            "decoder": (widths[0],),
            "output": (classes,),
        }
        first = 3 if in_channels == 1 else in_channels
        self.patches = nn.ModuleList(
            OverlappingPatches(before, after, 3 if i else 7, 2 if i else 4)
            for i, (before, after) in enumerate(pairwise([first, *widths]))
        )
        self.encoder = nn.ModuleList(_blocks(width) for width in widths)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in widths)
        deep_first = list(reversed(widths))
        self.expansions = nn.ModuleList(
            PatchExpansion(width, width // 2, 2) for width in deep_first[:-1]
        )
        self.projections = nn.ModuleList(
            nn.Linear(before // 2, after) for before, after in pairwise(deep_first)
        )
        self.cross_attention = nn.ModuleList(CrossAttentionBlock(w) for w in deep_first[1:])
        self.joins = nn.ModuleList(nn.Linear(2 * width, width) for width in deep_first[1:])
        self.decoder = nn.ModuleList(_blocks(width) for width in deep_first[1:])
        self.last_expansion = PatchExpansion(widths[0], widths[0], 4)
        self.classifier = nn.Conv2d(widths[0], classes, 1)
        for part in (
            self.expansions,
            self.projections,
            self.cross_attention,
            self.joins,
            self.decoder,
            self.last_expansion,
            self.classifier,
        ):
            part.apply(xavier_start)

    def encode(self, x: Tensor, **inputs: Tensor) -> Features:
        """(B, C, H, W) → skips at strides 4 and 8 and the bottleneck at 16. Raises UsageError for a
        wrong number of channels and for sides that are not multiples of 16.
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
        """Features → the map (B, widths[0], H, W) before the head."""
        x = to_tokens(features.bottleneck)
        for expand, project, cross, join, blocks, skip in zip(
            self.expansions,
            self.projections,
            self.cross_attention,
            self.joins,
            self.decoder,
            reversed(features.skips),
            strict=True,
        ):
            x = blocks(join(cross(project(expand(x)), to_tokens(skip))))
        return Decoded(map=to_map(self.last_expansion(x)), extra={})

    def head(self, decoded: Decoded, size: Size, auxiliary: bool) -> Output:
        """The last map, which has the image's size already → logits (B, classes, H, W)."""
        return Output(logits=self.classifier(decoded.map), auxiliary={})

    def released_names(self) -> ReleasedNames:
        """Names of the authors' code (mindflow-institue/DAEFormer)."""
        prefixes = {}
        blocks = {}
        ffns = {}
        for i in range(3):
            prefixes[f"patches.{i}."] = f"backbone.patch_embed{i + 1}."
            prefixes[f"norms.{i}."] = f"backbone.norm{i + 1}."
            for j in range(2):
                blocks[f"encoder.{i}.{j}."] = f"backbone.block{i + 1}.{j}."
        for i in range(2):
            released = f"decoder_{1 - i}."
            prefixes[f"expansions.{i}."] = f"decoder_{2 - i}.layer_up."
            prefixes[f"projections.{i}."] = f"{released}x1_linear."
            prefixes[f"joins.{i}."] = f"{released}concat_linear."
            cross, theirs = f"cross_attention.{i}.", f"{released}cross_attn."
            prefixes[cross] = theirs
            prefixes[f"{cross}reprojection."] = f"{theirs}attn.reprojection."
            prefixes[f"{cross}attention_norm."] = f"{theirs}attn.norm."
            ffns[f"{cross}ffn."] = f"{theirs}mlp."
            for j in range(2):
                blocks[f"decoder.{i}.{j}."] = f"{released}layer_former_{j + 1}."
        prefixes["last_expansion."] = "decoder_0.layer_up."
        prefixes["classifier."] = "decoder_0.last_layer."
        for ours, theirs in blocks.items():
            ffns |= {f"{ours}ffn{k}.": f"{theirs}mlp{k}." for k in (1, 2)}
        prefixes |= blocks
        for ours, theirs in ffns.items():
            prefixes |= {ours + a: theirs + b for a, b in MIX_SKIP_FFN_NAMES.items()}
        dead = {theirs + leaf for theirs in ffns.values() for leaf in MIX_SKIP_FFN_DEAD}
        return names_by_prefix(self, prefixes, dead=dead | set(_dead_decoder()))


def _blocks(channels: int) -> nn.Sequential:
    return nn.Sequential(*(DualBlock(channels) for _ in range(2)))


def _dead_decoder() -> list[str]:
    """What the released deepest decoder stage builds besides its patch expansion."""
    of_ffn = ("fc1", "dwconv.dwconv", "fc2", "norm1", "norm2", "norm3")
    cross = ["norm1", "attn.reprojection", "attn.norm", "norm2", *(f"mlp.{n}" for n in of_ffn)]
    dual = [f"norm{i}" for i in (1, 2, 3, 4)]
    dual += [f"attn.{n}" for n in ("keys", "queries", "values", "reprojection")]
    dual += [f"mlp{k}.{n}" for k in (1, 2) for n in of_ffn]
    dual += ["channel_attn.proj"]
    layers = ["x1_linear", "concat_linear", *(f"cross_attn.{n}" for n in cross)]
    names = []
    for block in ("layer_former_1", "layer_former_2"):
        layers += [f"{block}.{n}" for n in dual]
        names += [f"{block}.channel_attn.{n}" for n in ("temperature", "qkv.weight")]
    names += [f"{layer}.{leaf}" for layer in layers for leaf in ("weight", "bias")]
    return [f"decoder_2.{name}" for name in names]
