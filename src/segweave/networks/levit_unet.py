"""LeViT-UNet: LeViT as encoder, its stages joined with the stem's last map, and a decoder of plain
convolutions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from segweave.author_weights import ReleasedNames
from segweave.backbones.levit import STRIDE, LeViT
from segweave.blocks.conv_norm import ConvNorm, relu
from segweave.errors import UsageError
from segweave.networks.base import Decoded, Features, Output, SegmentationNetwork, Size
from segweave.registry import NetworkCard

_PAPER = (
    "Xu et al., LeViT-UNet: Make Faster Encoders with Transformer for Medical Image Segmentation, "
    "PRCV 2023 (arXiv 2107.08623)"
)
_DECODER = (
    "the map of the last decoder block joined with the stem's first map, at half of the image's "
    "size; the logits are computed there and upsampled"
)
_BOTTLENECK = "the stem's last map and the three stages of attention, joined at 1/16"

_TINY = {
    "widths": (16, 24, 32),
    "heads": (2, 2, 2),
    "depths": (1, 1, 1),
    "key_width": 4,
    "decoder_widths": (16, 12, 8),
}

CARDS = (
    NetworkCard(
        name="levit-unet-128",
        title="LeViT-UNet (LeViT-128s)",
        entry="LeViTUNet",
        paper=_PAPER,
        licence="MIT",
        options={
            "widths": (128, 256, 384),
            "heads": (4, 6, 8),
            "depths": (2, 3, 4),
            "key_width": 16,
            "drop_path": 0.0,
        },
        divisor=16,
        smallest=16,
        positions={"bottleneck": _BOTTLENECK, "decoder": _DECODER},
        weights=(
            {
                "tag": "imagenet",
                "source": "levit_128s.fb_dist_in1k",
                "licence": "Apache-2.0",
                "mean": (0.485, 0.456, 0.406),
                "sd": (0.229, 0.224, 0.225),
            },
        ),
        tiny_options=_TINY,
    ),
    NetworkCard(
        name="levit-unet-192",
        title="LeViT-UNet (LeViT-192)",
        entry="LeViTUNet",
        paper=_PAPER,
        licence="MIT",
        options={
            "widths": (192, 288, 384),
            "heads": (3, 5, 6),
            "depths": (4, 4, 4),
            "key_width": 32,
            "drop_path": 0.0,
        },
        divisor=16,
        smallest=16,
        positions={"bottleneck": _BOTTLENECK, "decoder": _DECODER},
        weights=(
            {
                "tag": "imagenet",
                "source": "levit_192.fb_dist_in1k",
                "licence": "Apache-2.0",
                "mean": (0.485, 0.456, 0.406),
                "sd": (0.229, 0.224, 0.225),
            },
        ),
        tiny_options=_TINY,
    ),
    NetworkCard(
        name="levit-unet-384",
        title="LeViT-UNet (LeViT-384)",
        entry="LeViTUNet",
        paper=_PAPER,
        licence="MIT",
        options={
            "widths": (384, 512, 768),
            "heads": (6, 9, 12),
            "depths": (4, 4, 4),
            "key_width": 32,
            "drop_path": 0.1,
        },
        divisor=16,
        smallest=16,
        positions={"bottleneck": _BOTTLENECK, "decoder": _DECODER},
        weights=(
            {
                "tag": "imagenet",
                "source": "levit_384.fb_dist_in1k",
                "licence": "Apache-2.0",
                "mean": (0.485, 0.456, 0.406),
                "sd": (0.229, 0.224, 0.225),
            },
        ),
        tiny_options=_TINY,
    ),
)

_BACKBONES = {128: "levit_128s", 192: "levit_192", 384: "levit_384"}
"""Width of the first stage → the timm model that it belongs to."""


class LeViTUNet(SegmentationNetwork):
    """LeViT and a decoder that joins the stem's maps behind its blocks (Xu et al. 2021, Section 3).

    The maps of the three stages are upsampled to 1/16 and joined with the stem's last map. Three
    times the decoder upsamples (bilinear, aligned corners), runs two 3×3 convolutions with batch
    norm and ReLU, and joins the stem's map of that size. A 3×3 convolution at half size returns the
    logits, which are upsampled.

    Args:
        in_channels: channels of an image (released: 1).
        classes: channels of the logits.
        widths: channels of LeViT's three stages; the first one is divisible by 8, and the first two
            by `key_width`.
        heads: heads of the attention in the stages.
        depths: number of blocks in the stages.
        key_width: channels of a query or key per head.
        drop_path: rate of the stochastic depth.
        decoder_widths: channels of the decoder's blocks from deep to shallow.
        image_size: side, or height and width, for which the tables of the attention's biases are
            kept; for images of another size they are interpolated.

    Raises:
        UsageError: options that do not fit.
    """

    def __init__(
        self,
        in_channels: int = 1,
        classes: int = 1,
        *,
        widths: Sequence[int] = (384, 512, 768),
        heads: Sequence[int] = (6, 9, 12),
        depths: Sequence[int] = (4, 4, 4),
        key_width: int = 32,
        drop_path: float = 0.1,
        decoder_widths: Sequence[int] = (512, 256, 128),
        image_size: int | Size = 224,
    ) -> None:
        super().__init__()
        size = (image_size, image_size) if isinstance(image_size, int) else image_size
        _check_options(widths, heads, depths, key_width, decoder_widths, size)
        self.in_channels, self.classes, self.depths = in_channels, classes, tuple(depths)
        self.stride = self.divisor = self.smallest = STRIDE
        self.backbones = {"encoder": _BACKBONES.get(widths[0])}
        stem = tuple(widths[0] // n for n in (8, 4, 2))
        self.channels = {
            "skips": stem,
            "bottleneck": (widths[0] + sum(widths),),
            "decoder": (decoder_widths[-1] + stem[0],),
            "output": (classes,),
        }
        self.encoder = LeViT(
            in_channels,
            widths,
            heads,
            depths,
            key_width=key_width,
            drop_path=drop_path,
            image_size=size,
        )
        self.decoder = nn.ModuleList()
        before = widths[0] + sum(widths)
        for width, skip in zip(decoder_widths, reversed(stem), strict=True):
            self.decoder.append(
                nn.Sequential(
                    ConvNorm(before, width, 3, activation=relu),
                    ConvNorm(width, width, 3, activation=relu),
                )
            )
            before = width + skip
        self.classifier = nn.Conv2d(before, classes, 3, padding=1)

    def encode(self, x: Tensor, **inputs: Tensor) -> Features:
        """(B, C, H, W) → the stem's maps at strides 2, 4, 8 and the joined map at 16. Raises
        UsageError for a wrong number of channels and for sides that are not multiples of 16.
        """
        self.check_image(x, **inputs)
        stem, stages = self.encoder(x)
        last = stem[-1]
        size = (last.shape[-2], last.shape[-1])
        joined = [last, stages[0]]
        for doublings, map in enumerate(stages[1:], start=1):
            for _ in range(doublings):
                map = _doubled(map)
            # The grid is rounded up where it is halved, so that a map may be larger by then.
            joined.append(map if map.shape[-2:] == size else _resized(map, size))
        return Features(skips=tuple(stem[:-1]), bottleneck=torch.cat(joined, 1), extra={})

    def decode(self, features: Features) -> Decoded:
        """Features → the map at half of the image's size, joined with the stem's first map."""
        x = features.bottleneck
        for block, skip in zip(self.decoder, reversed(features.skips), strict=True):
            x = torch.cat([block(_doubled(x)), skip], 1)
        return Decoded(map=x, extra={})

    def head(self, decoded: Decoded, size: Size, auxiliary: bool) -> Output:
        """The last map → logits (B, classes, H, W)."""
        return Output(logits=_resized(self.classifier(decoded.map), size), auxiliary={})

    def released_names(self) -> ReleasedNames:
        """Names of apple1986/LeViT-UNet. Its tables of indices are computed anew."""
        prefixes = {"classifier.": "segmentation_head.0."}
        for i in range(4):
            prefixes |= _below(f"encoder.stem.{i}.", f"cnn_b{i + 1}.0.", _NORM)
        for i in range(3):
            for j in range(2):
                prefixes[f"decoder.{i}.{j}."] = f"decoderBlock_{i + 1}.conv{j + 1}."
        number = 0
        fixed = set()
        for i, depth in enumerate(self.depths):
            ours, theirs = f"encoder.stages.{i}.", f"block_{i + 1}."
            if i > 0:
                prefixes |= _below(f"{ours}downsample.", f"{theirs}{number}.", _SHRINKING)
                prefixes |= _below(f"{ours}downsample.mlp.", f"{theirs}{number + 1}.m.", _MLP)
                fixed.add(f"{theirs}{number}.attention_bias_idxs")
                number += 2
            for j in range(depth):
                block = f"{ours}blocks.{j}."
                prefixes |= _below(f"{block}attention.", f"{theirs}{number}.m.", _ATTENTION)
                prefixes |= _below(f"{block}mlp.", f"{theirs}{number + 1}.m.", _MLP)
                fixed.add(f"{theirs}{number}.m.attention_bias_idxs")
                number += 2
        tensors = {
            name: theirs + name.removeprefix(ours)
            for name in self.state_dict()
            for ours, theirs in prefixes.items()
            if name.startswith(ours)
        }
        return ReleasedNames(tensors=tensors, fixed=frozenset(fixed))


_NORM = {"0.": "c.", "1.": "bn."}


def _below(ours: str, theirs: str, names: dict[str, str]) -> dict[str, str]:
    return {ours + leaf: theirs + released for leaf, released in names.items()}


_MLP = _below("0.", "0.", _NORM) | _below("2.", "2.", _NORM)
_OUTPUT = {"biases": "attention_biases"} | _below("output.", "proj.1.", _NORM)
_ATTENTION = _OUTPUT | _below("query_key_value.", "qkv.", _NORM)
_SHRINKING = _OUTPUT | _below("key_value.", "kv.", _NORM) | _below("query.", "q.1.", _NORM)


def _doubled(x: Tensor) -> Tensor:
    return _resized(x, (2 * x.shape[-2], 2 * x.shape[-1]))


def _resized(x: Tensor, size: Size) -> Tensor:
    return functional.interpolate(x, size=size, mode="bilinear", align_corners=True)


def _check_options(
    widths: Sequence[int],
    heads: Sequence[int],
    depths: Sequence[int],
    key_width: int,
    decoder_widths: Sequence[int],
    size: Size,
) -> None:
    doing = "creating a LeViT-UNet"
    options = {"widths": widths, "heads": heads, "depths": depths, "decoder_widths": decoder_widths}
    for name, values in options.items():
        if len(values) != 3 or min(values) < (0 if name == "depths" else 1):
            raise UsageError(doing, expected=f"three numbers in {name}", found=f"{tuple(values)}")
    if key_width < 1 or widths[0] % 8 or any(width % key_width for width in widths[:2]):
        raise UsageError(
            doing,
            expected="a first width divisible by 8, and the first two by key_width",
            found=f"widths={tuple(widths)}, key_width={key_width}",
        )
    if min(size) < STRIDE:
        raise UsageError(doing, expected=f"an image_size of at least {STRIDE}", found=f"{size}")
