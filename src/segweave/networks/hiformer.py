"""HiFormer: a ResNet and the stages of a Swin transformer that meet at three scales."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from segweave.author_weights import ReleasedNames
from segweave.backbones.swin import SwinStages
from segweave.backbones.timm_features import timm_features
from segweave.blocks.double_level import DoubleLevelFusion, released_fusion_names
from segweave.errors import UsageError
from segweave.networks.base import Decoded, Features, Output, SegmentationNetwork, Size
from segweave.registry import NetworkCard

_PAPER = (
    "Heidari et al., HiFormer: Hierarchical Multi-scale Representations Using Transformers for "
    "Medical Image Segmentation, WACV 2023 (arXiv 2207.08518)"
)
_SKIPS = "the tokens of the first level as a map at 1/4 of the image's size"
_BOTTLENECK = "the tokens of the third level as a map at 1/16; levels 1 and 3 are what is decoded"

_RESNET34_WEIGHTS = {
    "tag": "imagenet",
    "backbone": "cnn",
    "source": "resnet34.tv_in1k",
    "licence": "BSD-3-Clause",
    "mean": (0.485, 0.456, 0.406),
    "sd": (0.229, 0.224, 0.225),
}
_SWIN_WEIGHTS = {
    "tag": "imagenet",
    "backbone": "swin",
    "source": "swin_tiny_patch4_window7_224.ms_in1k",
    "licence": "MIT",
    "mean": (0.485, 0.456, 0.406),
    "sd": (0.229, 0.224, 0.225),
}
_TINY = {
    "cnn": "test_resnet",
    "width": 12,
    "swin_depths": (2, 1, 1),
    "swin_heads": (1, 2, 3),
    "decoder_width": 32,
    "image_size": 32,
}

CARDS = (
    NetworkCard(
        name="hiformer-s",
        title="HiFormer-S",
        entry="HiFormer",
        paper=_PAPER,
        licence="MIT",
        forms=("paper", "released"),
        options={"cnn": "resnet34", "heads": (3, 3), "depths": (1, 1), "ratio": 1},
        divisor=16,
        smallest=32,
        positions={"skips": _SKIPS, "bottleneck": _BOTTLENECK},
        weights=(
            _RESNET34_WEIGHTS,
            _SWIN_WEIGHTS,
        ),
        tiny_options={
            "cnn": "test_resnet",
            "width": 6,
            "swin_depths": (2, 1, 1),
            "swin_heads": (1, 2, 3),
            "decoder_width": 32,
            "image_size": 32,
        },
    ),
    NetworkCard(
        name="hiformer-b",
        title="HiFormer-B",
        entry="HiFormer",
        paper=_PAPER,
        licence="MIT",
        forms=("paper", "released"),
        options={"cnn": "resnet50", "heads": (6, 12), "depths": (1, 2), "ratio": 2},
        divisor=16,
        smallest=32,
        positions={"skips": _SKIPS, "bottleneck": _BOTTLENECK},
        weights=(
            {
                "tag": "imagenet",
                "backbone": "cnn",
                "source": "resnet50.tv_in1k",
                "licence": "BSD-3-Clause",
                "mean": (0.485, 0.456, 0.406),
                "sd": (0.229, 0.224, 0.225),
            },
            _SWIN_WEIGHTS,
        ),
        tiny_options=_TINY,
    ),
    NetworkCard(
        name="hiformer-l",
        title="HiFormer-L",
        entry="HiFormer",
        paper=_PAPER,
        licence="MIT",
        forms=("paper", "released"),
        options={"cnn": "resnet34", "heads": (6, 6), "depths": (1, 4), "ratio": 4},
        divisor=16,
        smallest=32,
        positions={"skips": _SKIPS, "bottleneck": _BOTTLENECK},
        weights=(
            _RESNET34_WEIGHTS,
            _SWIN_WEIGHTS,
        ),
        tiny_options=_TINY,
    ),
)

STRIDE = 16
"""Stride of the third level; the first one has 4."""
_SWIN = "swin_tiny_patch4_window7_224.ms_in1k"
_CLASSIFIER_WIDTH = 16


class HiFormer(SegmentationNetwork):
    """A ResNet's maps at 1/4, 1/8 and 1/16 are the input of three Swin stages and are added to
    their output. The first and the third level get position tables and are decoded.

    Form `paper` runs the double-level fusion between the two levels. Form `released` leaves it out:
    the released code discards its result (see `docs/fidelity.md`). An image with one channel is
    repeated to three.

    Args:
        in_channels: channels of an image.
        classes: channels of the logits.
        form: "paper" or "released".
        cnn: timm name of the ResNet.
        width: channels of the first level; the third one has four times as many.
        swin_depths: number of blocks in the three Swin stages.
        swin_heads: heads of the attention in the Swin stages.
        drop_path: rate of the stochastic depth at the end of a Swin-T; it rises from 0.
        heads: heads of the attention of the two levels in the fusion.
        depths: number of transformer blocks of the two levels in the fusion.
        ratio: hidden channels of an MLP of the fusion divided by the level's.
        decoder_width: channels of the decoder, a multiple of 32.
        image_size: side, or height and width, for which the position tables are kept; for images of
            another size they are interpolated (bilinear).

    Raises:
        MissingExtraError: timm is not installed.
        UsageError: options that do not fit.
    """

    def __init__(
        self,
        in_channels: int = 3,
        classes: int = 1,
        *,
        form: str = "released",
        cnn: str = "resnet50",
        width: int = 96,
        swin_depths: Sequence[int] = (2, 2, 6),
        swin_heads: Sequence[int] = (3, 6, 12),
        drop_path: float = 0.2,
        heads: Sequence[int] = (6, 12),
        depths: Sequence[int] = (1, 2),
        ratio: int = 2,
        decoder_width: int = 128,
        image_size: int | Size = 224,
    ) -> None:
        super().__init__()
        size = (image_size, image_size) if isinstance(image_size, int) else image_size
        _check_options(form, width, swin_depths, swin_heads, heads, depths, decoder_width, size)
        self.in_channels, self.classes = in_channels, classes
        self.stride = self.divisor = STRIDE
        # A group norm refuses a single value.
        self.smallest = 2 * STRIDE
        self.swin_depths, self.fusion_depths = tuple(swin_depths), tuple(depths)
        self.backbones = {
            "cnn": f"{cnn}.tv_in1k" if cnn in ("resnet34", "resnet50") else cnn,
            "swin": _SWIN,
        }
        widths = [width, 2 * width, 4 * width]
        levels = (widths[0], widths[2])
        self.channels = {
            "skips": levels[:1],
            "bottleneck": levels[1:],
            "decoder": (_CLASSIFIER_WIDTH,),
            "output": (classes,),
        }
        first = 3 if in_channels == 1 else in_channels
        self.cnn, _ = timm_features(cnn, first, {"out_indices": (1, 2, 3)})
        info: Any = self.cnn.feature_info
        self.embedding = nn.ModuleList(
            nn.Conv2d(before, after, 1)
            for before, after in zip(info.channels(), widths, strict=True)
        )
        rates = torch.linspace(0, drop_path, max(sum(swin_depths) + 2, 12), device="cpu").tolist()
        self.swin = SwinStages(width, swin_depths, swin_heads, rates)
        self.grids = tuple((size[0] // stride, size[1] // stride) for stride in (4, STRIDE))
        # The first row of a table belongs to the class token.
        self.positions = nn.ParameterList(
            nn.Parameter(torch.zeros(1, 1 + rows * columns, channels))
            for (rows, columns), channels in zip(self.grids, levels, strict=True)
        )
        for table in self.positions:
            nn.init.trunc_normal_(table, std=0.02)
        self.fusion = DoubleLevelFusion(levels, heads, depths, ratio) if form == "paper" else None
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for channels in levels)
        self.decoder = nn.ModuleList(
            [
                _convolution(levels[0], decoder_width),
                _convolution(levels[1], decoder_width),
                _convolution(decoder_width, decoder_width),
            ]
        )
        self.join = nn.Conv2d(decoder_width, _CLASSIFIER_WIDTH, 1)
        self.classifier = nn.Conv2d(_CLASSIFIER_WIDTH, classes, 3, padding=1)

    def encode(self, x: Tensor, **inputs: Tensor) -> Features:
        """(B, C, H, W) → the first level at stride 4 and the third one at 16. Raises UsageError for
        a wrong number of channels and for sides that are not multiples of 16 or
        below 32.
        """
        self.check_image(x, **inputs)
        if self.in_channels == 1:
            x = x.expand(-1, 3, -1, -1)
        level: Tensor | None = None
        levels = []
        for map, embedding, stage in zip(
            self.cnn(x), self.embedding, self.swin.layers, strict=True
        ):
            tokens = embedding(map).permute(0, 2, 3, 1)
            level = tokens + stage(tokens if level is None else level)
            levels.append(level)
        first, last = self._tokens([levels[0], levels[2]])
        return Features(skips=(first,), bottleneck=last, extra={})

    def _tokens(self, levels: list[Tensor]) -> list[Tensor]:
        # Two levels (B, H, W, C) → maps (B, C, H, W) with positions, normed.
        tables = [
            _resized(table, home, (level.shape[1], level.shape[2]))
            for table, home, level in zip(self.positions, self.grids, levels, strict=True)
        ]
        sets = [level.flatten(1, 2) for level in levels]
        if self.fusion is None:
            sets = [tokens + table[:, 1:] for tokens, table in zip(sets, tables, strict=True)]
        else:
            sets = self.fusion(sets, tables)
        return [
            norm(tokens).transpose(1, 2).reshape(level.shape[0], -1, *level.shape[1:3])
            for tokens, norm, level in zip(sets, self.norms, levels, strict=True)
        ]

    def decode(self, features: Features) -> Decoded:
        """Features → the map (B, 16, H, W) before the head."""
        deep = features.bottleneck
        for block in self.decoder[1:]:
            deep = _scaled(block(deep), 2)
        x = self.join(self.decoder[0](features.skips[0]) + deep)
        return Decoded(map=_scaled(functional.relu(x, inplace=True), 4), extra={})

    def head(self, decoded: Decoded, size: Size, auxiliary: bool) -> Output:
        """The last map, which has the image's size already → logits (B, classes, H, W)."""
        return Output(logits=self.classifier(decoded.map), auxiliary={})

    def released_names(self) -> ReleasedNames:
        """Names of amirhossein-kz/HiFormer. What belongs to its fusion reaches no output there and
        is used in form `paper` alone; shared layers have two names in its files.
        """
        top = "All2Cross."
        pyramid = f"{top}pyramid."
        prefixes = {
            "cnn.conv1.": f"{pyramid}resnet_layers.0.",
            "cnn.bn1.": f"{pyramid}resnet_layers.1.",
            "cnn.layer1.": f"{pyramid}resnet_layers.4.",
            # The released code runs these two under both names; the later one wins.
            "cnn.layer2.": f"{pyramid}p2.",
            "cnn.layer3.": f"{pyramid}p3.",
            "join.": "conv_pred.0.",
            "classifier.": "segmentation_head.0.",
        }
        for i in range(3):
            prefixes[f"embedding.{i}."] = f"{pyramid}p{i + 1}_ch."
            prefixes[f"swin.layers.{i}.blocks."] = f"{pyramid}swin_transformer.layers.{i}.blocks."
            prefixes[f"swin.layers.{i}.downsample."] = f"{pyramid}p{i}_pm."
        for i in range(2):
            prefixes[f"positions.{i}"] = f"{top}pos_embed.{i}"
            prefixes[f"norms.{i}."] = f"{top}norm.{i}."
        towers = {"decoder.0.": "ConvUp_l.{}.0.", "decoder.1.": "ConvUp_s.{}.0."}
        towers["decoder.2."] = "ConvUp_s.{}.4."
        for ours, theirs in towers.items():
            norm = theirs[:-2] + str(int(theirs[-2]) + 1) + "."
            prefixes |= {
                f"{ours}0.": theirs.format("convs_level"),
                f"{ours}1.": norm.format("convs_level"),
            }
        tensors = _renamed(list(self.state_dict()), prefixes)
        fusion = released_fusion_names(self.fusion_depths)
        if self.fusion is not None:
            tensors |= fusion
        twice = {
            theirs.replace(later, earlier)
            for theirs in tensors.values()
            for earlier, later in _TWICE
            if later in theirs
        }
        tables = {
            f"{pyramid}swin_transformer.layers.{i}.blocks.{j}.{table}"
            for i, depth in enumerate(self.swin_depths)
            for j in range(depth)
            for table in ("attn.relative_position_index", "attn_mask")
        }
        return ReleasedNames(
            tensors=tensors,
            fixed=frozenset(twice | tables),
            dead=frozenset(fusion.values()) if self.fusion is None else frozenset(),
        )


_TWICE = (
    ("resnet_layers.5.", "p2."),
    ("resnet_layers.6.", "p3."),
    ("conv_tower.", "convs_level."),
)


def _renamed(names: list[str], prefixes: dict[str, str]) -> dict[str, str]:
    return {
        name: theirs + name.removeprefix(ours)
        for name in names
        for ours, theirs in prefixes.items()
        if name.startswith(ours)
    }


def _convolution(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, padding=1, bias=False),
        nn.GroupNorm(32, after),
        nn.ReLU(inplace=True),
    )


def _scaled(x: Tensor, factor: int) -> Tensor:
    size = (factor * x.shape[-2], factor * x.shape[-1])
    return functional.interpolate(x, size=size, mode="bilinear", align_corners=False)


def _resized(table: Tensor, home: Size, grid: Size) -> Tensor:
    # (1, 1 + positions, C): the class token's row stays, the others are a map.
    if grid == home:
        return table
    map = table[:, 1:].transpose(1, 2).reshape(1, -1, *home)
    map = functional.interpolate(map, size=grid, mode="bilinear", align_corners=False)
    return torch.cat([table[:, :1], map.flatten(2).transpose(1, 2)], 1)


def _check_options(
    form: str,
    width: int,
    swin_depths: Sequence[int],
    swin_heads: Sequence[int],
    heads: Sequence[int],
    depths: Sequence[int],
    decoder_width: int,
    size: Size,
) -> None:
    doing = "creating a HiFormer"
    if form not in ("paper", "released"):
        raise UsageError(doing, expected='form "paper" or "released"', found=repr(form))
    if len(swin_depths) != 3 or len(swin_heads) != 3 or len(heads) != 2 or len(depths) != 2:
        raise UsageError(
            doing,
            expected="three swin_depths and swin_heads, two heads and depths",
            found=f"{tuple(swin_depths)}, {tuple(swin_heads)}, {tuple(heads)}, {tuple(depths)}",
        )
    widths = (width, 2 * width, 4 * width)
    pairs = [*zip(widths, swin_heads, strict=True), *zip(widths[::2], heads, strict=True)]
    if width < 1 or any(count < 1 or channels % count for channels, count in pairs):
        raise UsageError(
            doing,
            expected="channels that the heads divide",
            found=f"levels of {widths} channels, swin_heads={tuple(swin_heads)}, "
            f"heads={tuple(heads)}",
        )
    if decoder_width < 1 or decoder_width % 32:
        raise UsageError(
            doing,
            expected="a decoder_width that 32 divides, the groups of its norms",
            found=str(decoder_width),
        )
    if min(size) < STRIDE:
        raise UsageError(doing, expected=f"an image_size of at least {STRIDE}", found=f"{size}")
