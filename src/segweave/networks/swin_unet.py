"""Swin-Unet as its authors' code computes it: Swin transformer stages down and up again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from segweave.author_weights import ReleasedNames, names_by_prefix
from segweave.backbones.swin import SwinBlock, SwinStages
from segweave.blocks.mlp import start_linear
from segweave.blocks.patch_expansion import PatchExpansion
from segweave.blocks.token_blocks import to_map, to_tokens
from segweave.errors import UsageError
from segweave.networks.base import Decoded, Features, Output, SegmentationNetwork, Size
from segweave.registry import NetworkCard

BACKBONE = "swin_tiny_patch4_window7_224"

CARD = NetworkCard(
    name="swin-unet",
    title="Swin-Unet",
    entry="SwinUNet",
    paper="Cao et al., Swin-Unet: Unet-like Pure Transformer for Medical Image Segmentation, ECCV "
    "Workshops 2022",
    divisor=32,
    smallest=32,
    positions={
        "skips": "the tokens before each of the first three stages (patches, then merged patches) "
        "at strides 4, 8 and 16",
        "decoder": "the map at the size of the image, behind the last patch expansion",
    },
    weights=(
        {
            "tag": "imagenet",
            "backbone": "encoder",
            "source": BACKBONE,
            "licence": "MIT",
            "mean": (0.485, 0.456, 0.406),
            "sd": (0.229, 0.224, 0.225),
        },
        {
            "tag": "imagenet",
            "backbone": "decoder",
            "source": BACKBONE,
            "licence": "MIT",
            "mean": (0.485, 0.456, 0.406),
            "sd": (0.229, 0.224, 0.225),
        },
    ),
    tiny_options={"width": 6},
)

HEADS = (3, 6, 12, 24)
"""Heads of the attention in the stages."""
PATCH = 4
"""Side of a patch in pixels, the stride of the first stage."""


class SwinUNet(SegmentationNetwork):
    """4×4 patches, four Swin stages with patch merging between them, and three stages with patch
    expansion back.

    An image with one channel is repeated to three. The released code takes 224×224 pixels; here
    maps whose sides are not multiples of a window (7) are padded, and nothing attends to the rest.
    ImageNet weights fill the encoder, and the decoder's blocks from the encoder's stage of the same
    stride, as the authors start.

    Args:
        in_channels: channels of an image.
        classes: channels of the logits.
        width: channels of the first stage (released: 96), a multiple of 3.
        depths: number of blocks in the stages; the decoder has those of the first three.
        drop_path: stochastic depth of the deepest block, which rises linearly from 0.

    Raises UsageError for a width that is not a multiple of 3 and for other than four depths.
    """

    def __init__(
        self,
        in_channels: int = 3,
        classes: int = 1,
        *,
        width: int = 96,
        depths: Sequence[int] = (2, 2, 2, 2),
        drop_path: float = 0.2,
    ) -> None:
        super().__init__()
        if width < 3 or width % HEADS[0] or len(depths) != len(HEADS) or min(depths) < 1:
            raise UsageError(
                "creating a Swin-Unet",
                expected="a width that is a multiple of 3, and four depths of at least 1",
                found=f"width={width}, depths={tuple(depths)}",
            )
        rates = torch.linspace(0, drop_path, sum(depths), device="cpu").tolist()
        widths = [width * 2**stage for stage in range(len(depths))]
        self.in_channels, self.classes = in_channels, classes
        self.stride = self.divisor = self.smallest = PATCH * 2 ** (len(depths) - 1)
        self.backbones = {"encoder": BACKBONE, "decoder": BACKBONE}
        self.channels = {
            "skips": tuple(widths[:-1]),
            "bottleneck": (widths[-1],),
            "decoder": (width,),
            "output": (classes,),
        }
        self.encoder = Encoder(3 if in_channels == 1 else in_channels, width, depths, rates)
        self.expansions = nn.ModuleList(PatchExpansion(2 * c, c, 2) for c in reversed(widths[:-1]))
        self.joins = nn.ModuleList(nn.Linear(2 * c, c) for c in reversed(widths[:-1]))
        self.decoder = DecoderBlocks(widths[:-1], depths[:-1], rates)
        self.norm = nn.LayerNorm(width)
        self.last_expansion = PatchExpansion(width, width, PATCH)
        self.classifier = nn.Conv2d(width, classes, 1, bias=False)
        self.apply(start_linear)

    def encode(self, x: Tensor, **inputs: Tensor) -> Features:
        """(B, C, H, W) → skips at strides 4, 8, 16 and the bottleneck at 32. Raises UsageError for
        a wrong number of channels and for sides that are not multiples of 32.
        """
        self.check_image(x, **inputs)
        if self.in_channels == 1:
            x = x.expand(-1, 3, -1, -1)
        *skips, x = self.encoder(x)
        return Features(skips=tuple(to_map(s) for s in skips), bottleneck=to_map(x), extra={})

    def decode(self, features: Features) -> Decoded:
        """Features → the map (B, width, H, W) before the head."""
        x = to_tokens(features.bottleneck)
        for expand, join, stage, skip in zip(
            self.expansions, self.joins, self.decoder, reversed(features.skips), strict=True
        ):
            x = stage(join(torch.cat([expand(x), to_tokens(skip)], dim=-1)))
        return Decoded(map=to_map(self.last_expansion(self.norm(x))), extra={})

    def head(self, decoded: Decoded, size: Size, auxiliary: bool) -> Output:
        """The last map, which has the image's size already → logits (B, classes, H, W)."""
        return Output(logits=self.classifier(decoded.map), auxiliary={})

    def released_names(self) -> ReleasedNames:
        """Names of the authors' code (HuCaoFighting/Swin-Unet), where `layers_up.0` is the first
        patch expansion and a patch merging or expansion belongs to the stage before it.
        """
        up = len(self.joins)
        prefixes = {
            "encoder.patch_embed.": "patch_embed.",
            "encoder.norm.": "norm.",
            "expansions.0.": "layers_up.0.",
            "norm.": "norm_up.",
            "last_expansion.": "up.",
            "classifier.": "output.",
        }
        for i in range(up + 1):
            prefixes[f"encoder.layers.{i}.blocks."] = f"layers.{i}.blocks."
            prefixes[f"encoder.layers.{i}.downsample."] = f"layers.{i - 1}.downsample."
        for i in range(up):
            prefixes[f"decoder.{i}."] = f"layers_up.{i + 1}.blocks."
            prefixes[f"joins.{i}."] = f"concat_back_dim.{i + 1}."
            if i > 0:
                prefixes[f"expansions.{i}."] = f"layers_up.{i}.upsample."
        prefixes = {ours: "swin_unet." + theirs for ours, theirs in prefixes.items()}
        tensors = names_by_prefix(self, prefixes).tensors
        blocks = [
            name.removesuffix("relative_position_bias_table")
            for name in tensors.values()
            if name.endswith("relative_position_bias_table")
        ]
        fixed = {f"{block}relative_position_index" for block in blocks}
        # Masks belong to shifted blocks: every second one.
        fixed |= {block.removesuffix("attn.") + "attn_mask" for block in blocks}
        return ReleasedNames(tensors, fixed=frozenset(fixed))


class Encoder(SwinStages):
    """Patches and Swin stages: (B, C, H, W) → the tokens before each stage, (B, h, w, C_i), and in
    the place of those before the last one its output behind a layer norm.
    """

    def __init__(
        self, in_channels: int, width: int, depths: Sequence[int], rates: Sequence[float]
    ) -> None:
        super().__init__(width, depths, HEADS, rates)
        self.patch_embed = Patches(in_channels, width)
        self.norm = nn.LayerNorm(width * 2 ** (len(depths) - 1))

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, C, H, W) → the skips from shallow to deep and the bottleneck, channels last."""
        x = self.patch_embed(x)
        maps = []
        layer: Any
        for layer in self.layers:
            # The released code joins the input of a stage, not its output.
            if layer.downsample is not None:
                x = layer.downsample(x)
            maps.append(x)
            x = layer.blocks(x)
        return [*maps[:-1], self.norm(x)]


class Patches(nn.Module):
    """A linear map of each 4×4 patch, and a layer norm: (B, C, H, W) → (B, H/4, W/4, width)."""

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, width, PATCH, stride=PATCH)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, H/4, W/4, width)."""
        tokens: Tensor = self.norm(to_tokens(self.proj(x)))
        return tokens


class DecoderBlocks(nn.ModuleList):
    """The decoder's blocks, from deep to shallow one sequence per stage. The released names are
    those of the encoder's stage at the same stride in timm, whose weights these blocks start from.
    """

    def __init__(
        self, widths: Sequence[int], depths: Sequence[int], rates: Sequence[float]
    ) -> None:
        stages = []
        for i in reversed(range(len(widths))):
            first = sum(depths[:i])
            stages.append(
                nn.Sequential(
                    *(
                        SwinBlock(
                            widths[i], HEADS[i], shifted=bool(j % 2), drop_path=rates[first + j]
                        )
                        for j in range(depths[i])
                    )
                )
            )
        super().__init__(stages)

    def released_names(self) -> ReleasedNames:
        """Names of timm's `swin_*` models."""
        names = {}
        for name in self.state_dict():
            stage, _, leaf = name.partition(".")
            names[name] = f"layers.{len(self) - 1 - int(stage)}.blocks.{leaf}"
        return ReleasedNames(names)
