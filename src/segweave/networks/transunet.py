"""TransUNet as its authors' code computes it: a ResNet, a vision transformer on its last map, and a
decoder of convolutions.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from segweave.author_weights import ReleasedNames, names_by_prefix
from segweave.backbones.hybrid_vit import GROUPS, STRIDE, HybridViT
from segweave.blocks.conv_norm import ConvNorm, relu
from segweave.errors import UsageError
from segweave.networks.base import Decoded, Features, Output, SegmentationNetwork, Size
from segweave.registry import NetworkCard

BACKBONE = "vit_base_r50_s16_224"

CARD = NetworkCard(
    name="transunet",
    title="TransUNet (R50-ViT-B/16)",
    entry="TransUNet",
    paper="Chen et al., TransUNet: Transformers Make Strong Encoders for Medical Image "
    "Segmentation, arXiv 2102.04306, 2021",
    divisor=16,
    smallest=32,
    positions={
        "bottleneck": "the transformer's tokens as a map",
        "skips": "the ResNet's maps at strides 2, 4 and 8",
    },
    weights=(
        {
            "tag": "imagenet",
            "source": BACKBONE,
            "licence": "Apache-2.0",
            "mean": (0.5, 0.5, 0.5),
            "sd": (0.5, 0.5, 0.5),
        },
    ),
    tiny_options={
        "width": 32,
        "units": (1, 1, 1),
        "hidden": 12,
        "layers": 1,
        "heads": 2,
        "decoder_channels": (8, 8, 8, 8, 4),
    },
)


class TransUNet(SegmentationNetwork):
    """ResNet to stride 16, transformer on the tokens of that map, and a decoder that doubles the
    map four times (bilinear, aligned corners), joins a skip three times, and has two convolutions
    per step.

    An image with one channel is repeated to three. Training starts from ImageNet-21k weights in the
    authors' recipe.

    Args:
        in_channels: channels of an image.
        classes: channels of the logits.
        width: channels of the first convolution (released: 64), a multiple of 32.
        units: number of residual units at strides 4, 8 and 16.
        hidden: channels of a token.
        layers: number of transformer blocks.
        heads: heads of the attention, a divisor of `hidden`.
        dropout: rate of the transformer's dropout.
        decoder_channels: channels at strides 16, 8, 4, 2 and 1.
        image_size: side, or height and width, of the image for which the position table is kept; it
            is interpolated for other sizes.

    Raises UsageError for options that do not fit.
    """

    def __init__(
        self,
        in_channels: int = 3,
        classes: int = 1,
        *,
        width: int = 64,
        units: Sequence[int] = (3, 4, 9),
        hidden: int = 768,
        layers: int = 12,
        heads: int = 12,
        dropout: float = 0.1,
        decoder_channels: Sequence[int] = (512, 256, 128, 64, 16),
        image_size: int | Size = 224,
    ) -> None:
        super().__init__()
        height, columns = (image_size, image_size) if isinstance(image_size, int) else image_size
        _check_options(width, units, hidden, heads, decoder_channels, (height, columns))
        skips = (width, 4 * width, 8 * width)
        self.in_channels, self.classes = in_channels, classes
        self.stride = self.divisor = STRIDE
        # At 16×16 each channel of the last stage has one value, which cannot be normalised.
        self.smallest = 2 * STRIDE
        self.backbones = {"encoder": BACKBONE}
        self.channels = {
            "skips": skips,
            "bottleneck": (hidden,),
            "decoder": (decoder_channels[-1],),
            "output": (classes,),
        }
        self.encoder = HybridViT(
            3 if in_channels == 1 else in_channels,
            width=width,
            units=units,
            hidden=hidden,
            layers=layers,
            heads=heads,
            dropout=dropout,
            grid=(height // STRIDE, columns // STRIDE),
        )
        self.reduction = ConvNorm(hidden, decoder_channels[0], 3, activation=relu)
        self.decoder = nn.ModuleList(
            nn.Sequential(
                ConvNorm(before + skip, after, 3, activation=relu),
                ConvNorm(after, after, 3, activation=relu),
            )
            for (before, after), skip in zip(
                pairwise(decoder_channels), (*reversed(skips), 0), strict=True
            )
        )
        self.classifier = nn.Conv2d(decoder_channels[-1], classes, 3, padding=1)

    def encode(self, x: Tensor, **inputs: Tensor) -> Features:
        """(B, C, H, W) → skips at strides 2, 4, 8 and the bottleneck at 16. Raises UsageError for a
        wrong number of channels and for sides that are not multiples of 16 or below 32.
        """
        self.check_image(x, **inputs)
        if self.in_channels == 1:
            x = x.expand(-1, 3, -1, -1)
        *skips, x = self.encoder(x)
        return Features(skips=tuple(skips), bottleneck=x, extra={})

    def decode(self, features: Features) -> Decoded:
        """Features → the map (B, C, H, W) before the head."""
        x = self.reduction(features.bottleneck)
        for block, skip in zip(self.decoder, (*reversed(features.skips), None), strict=True):
            x = functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
            x = block(x if skip is None else torch.cat([x, skip], dim=1))
        return Decoded(map=x, extra={})

    def head(self, decoded: Decoded, size: Size, auxiliary: bool) -> Output:
        """The last map, which has the image's size already → logits (B, classes, H, W)."""
        return Output(logits=self.classifier(decoded.map), auxiliary={})

    def released_names(self) -> ReleasedNames:
        """Names of the authors' code (Beckschen/TransUNet)."""
        embeddings, layer = "transformer.embeddings.", "transformer.encoder.layer."
        prefixes = {
            "encoder.positions": f"{embeddings}position_embeddings",
            "encoder.patches.": f"{embeddings}patch_embeddings.",
            "encoder.root.conv.": f"{embeddings}hybrid_model.root.conv.",
            "encoder.root.norm.": f"{embeddings}hybrid_model.root.gn.",
            "encoder.norm.": "transformer.encoder.encoder_norm.",
            "reduction.": "decoder.conv_more.",
            "classifier.": "segmentation_head.0.",
        }
        for i, count in enumerate(self.encoder.units):
            for j in range(count):
                ours = f"encoder.stages.{i}.{j}."
                theirs = f"{embeddings}hybrid_model.body.block{i + 1}.unit{j + 1}."
                prefixes[ours] = theirs
                prefixes[f"{ours}norm"] = f"{theirs}gn"
                prefixes[f"{ours}downsample_norm."] = f"{theirs}gn_proj."
        for i in range(len(self.encoder.blocks)):
            ours = f"encoder.blocks.{i}."
            prefixes[f"{ours}norm1."] = f"{layer}{i}.attention_norm."
            prefixes[f"{ours}norm2."] = f"{layer}{i}.ffn_norm."
            prefixes[f"{ours}output."] = f"{layer}{i}.attn.out."
            prefixes |= {f"{ours}{n}.": f"{layer}{i}.attn.{n}." for n in ("query", "key", "value")}
            prefixes |= {f"{ours}{n}.": f"{layer}{i}.ffn.{n}." for n in ("fc1", "fc2")}
        for i in range(len(self.decoder)):
            prefixes |= {f"decoder.{i}.{j}.": f"decoder.blocks.{i}.conv{j + 1}." for j in (0, 1)}
        return names_by_prefix(self, prefixes)


def _check_options(
    width: int,
    units: Sequence[int],
    hidden: int,
    heads: int,
    decoder_channels: Sequence[int],
    image_size: Size,
) -> None:
    doing = "creating a TransUNet"
    if width < GROUPS or width % GROUPS:
        raise UsageError(doing, expected=f"a width that {GROUPS} divides", found=f"width={width}")
    if len(units) != 3 or min(units) < 1:
        raise UsageError(
            doing, expected="three numbers of units, each at least 1", found=f"units={tuple(units)}"
        )
    if heads < 1 or hidden % heads:
        raise UsageError(
            doing,
            expected="a number of heads that divides hidden",
            found=f"hidden={hidden}, heads={heads}",
        )
    if len(decoder_channels) != 5:
        raise UsageError(
            doing,
            expected="five decoder_channels, for strides 16, 8, 4, 2 and 1",
            found=str(len(decoder_channels)),
        )
    if any(side < STRIDE or side % STRIDE for side in image_size):
        raise UsageError(
            doing,
            expected=f"an image_size that {STRIDE} divides",
            found=f"image_size={image_size}",
        )
