"""ResUNet in two forms: the deep residual U-Net that the name stands for, and what the repository
that the source papers name has in its place, a ResNet-34 encoder with a LinkNet decoder.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from segweave.author_weights import ReleasedNames, names_by_prefix
from segweave.backbones.resnet import RESNET34
from segweave.backbones.timm_features import timm_features
from segweave.blocks.conv_norm import ConvNorm, relu
from segweave.blocks.link import LinkBlock, LinkHead
from segweave.errors import UsageError
from segweave.networks.base import Decoded, Features, Output, SegmentationNetwork, Size
from segweave.registry import NetworkCard

CARD = NetworkCard(
    name="resunet",
    title="ResUNet: ResNet-34 with a LinkNet decoder (released), or the residual U-Net (paper)",
    entry="create",
    forms=("paper", "released"),
    paper="Zhang et al., Road Extraction by Deep Residual U-Net, IEEE GRSL 2018; released: "
    "Chaurasia and Culurciello, LinkNet, VCIP 2017, as in "
    "github.com/TomAndHelen/UNet_Family",
    licence="none stated",
    divisor=32,
    smallest=32,
    positions={
        "skips": "released: the three maps that the decoder adds; paper: those that it joins",
        "decoder": "released: the map at half the image's size, before the last transposed "
        "convolution; paper: the map at the image's size",
    },
    weights=(
        {
            "tag": "imagenet",
            "source": "resnet34.tv_in1k",
            "licence": "BSD-3-Clause",
            "mean": (0.485, 0.456, 0.406),
            "sd": (0.229, 0.224, 0.225),
        },
    ),
    tiny_options={"encoder": "test_resnet"},
)


def create(
    in_channels: int = 3,
    classes: int = 1,
    *,
    form: str = "released",
    encoder: str | None = None,
    width: int | None = None,
) -> SegmentationNetwork:
    """The network in one of its forms.

    Args:
        in_channels: channels of an image.
        classes: channels of the logits.
        form: "paper" or "released".
        encoder: form released: the timm name of a ResNet with five levels; by default torchvision's
            ResNet-34, resnet34.tv_in1k.
        width: form paper: channels of the first level, by default 64.

    Raises:
        UsageError: another form, an option of the other form, a backbone without five levels, or a
            width below 1.
        MissingExtraError: form released without timm.
    """
    doing = "creating the network 'resunet'"
    if form not in ("paper", "released"):
        raise UsageError(doing, expected="form paper or released", found=repr(form))
    foreign = {"encoder": encoder} if form == "paper" else {"width": width}
    for option, value in foreign.items():
        if value is not None:
            raise UsageError(
                doing,
                expected=f"options of form {form}",
                found=f"{option}={value!r}",
                remedy=f"omit {option}, or use form={'released' if form == 'paper' else 'paper'!r}",
            )
    if form == "paper":
        return ResidualUNet(in_channels, classes, width=64 if width is None else width)
    return ResNetLinkNet(in_channels, classes, encoder=encoder or RESNET34)


class ResNetLinkNet(SegmentationNetwork):
    """Form released: torchvision's ResNet-34 as encoder, LinkNet's decoder, whose skips are added.
    The released code ends in a sigmoid; this one returns logits.
    """

    def __init__(self, in_channels: int = 3, classes: int = 1, *, encoder: str = RESNET34) -> None:
        super().__init__()
        self.encoder, _ = timm_features(encoder, in_channels)
        levels: Any = self.encoder.feature_info
        if list(levels.reduction()) != [2, 4, 8, 16, 32]:
            raise UsageError(
                f"creating the backbone {encoder!r}",
                expected="a ResNet with maps at the strides 2, 4, 8, 16 and 32",
                found=f"strides {levels.reduction()}",
            )
        _, first, *deeper = map(int, levels.channels())
        widths = [first, *deeper]
        self.in_channels, self.classes = in_channels, classes
        self.stride = self.divisor = self.smallest = 32
        self.backbones = {"encoder": encoder}
        self.channels = {
            "skips": tuple(widths[:-1]),
            "bottleneck": (widths[-1],),
            "decoder": (first,),
            "output": (classes,),
        }
        upward = [*reversed(widths), first]
        self.decoder = nn.ModuleList(
            LinkBlock(before, after) for before, after in itertools.pairwise(upward)
        )
        self.classifier = LinkHead(first, first // 2, classes)

    def encode(self, x: Tensor, **inputs: Tensor) -> Features:
        """(B, C, H, W) → skips at strides 4, 8, 16 and the bottleneck at 32."""
        self.check_image(x, **inputs)
        _, *maps = self.encoder(x)
        return Features(skips=tuple(maps[:-1]), bottleneck=maps[-1], extra={})

    def decode(self, features: Features) -> Decoded:
        """Features → the map (B, C, H / 2, W / 2) before the head."""
        x = features.bottleneck
        *blocks, last = self.decoder
        for block, skip in zip(blocks, reversed(features.skips), strict=True):
            x = block(x) + skip
        return Decoded(map=last(x), extra={})

    def head(self, decoded: Decoded, size: Size, auxiliary: bool) -> Output:
        """The last map, upsampled by a transposed convolution → logits (B, classes, H, W)."""
        return Output(logits=self.classifier(decoded.map), auxiliary={})

    def released_names(self) -> ReleasedNames:
        """Names of UNet_Family: firstconv, encoder1 … 4, decoder4 … 1, finaldeconv1, finalconv2,
        finalconv3.
        """
        prefixes = {"encoder.conv1.": "firstconv.", "encoder.bn1.": "firstbn."}
        prefixes |= {f"encoder.layer{i}.": f"encoder{i}." for i in range(1, 5)}
        for i, number in enumerate(range(4, 0, -1)):
            for k, name in enumerate(("conv1", "deconv2", "conv3")):
                prefixes[f"decoder.{i}.{k}.0."] = f"decoder{number}.{name}."
                prefixes[f"decoder.{i}.{k}.1."] = f"decoder{number}.norm{k + 1}."
        for k, name in ((0, "finaldeconv1"), (2, "finalconv2"), (4, "finalconv3")):
            prefixes[f"classifier.{k}."] = f"{name}."
        return names_by_prefix(self, prefixes)


class ResidualUnit(nn.Module):
    """Residual unit with full pre-activation (Zhang et al., Fig. 1b): batch norm, ReLU, 3×3
    convolution, twice, plus a 1×1 shortcut with batch norm; `stride` in the first convolution. In
    the first unit of the network only a 3×3 convolution comes before the second half (Fig. 2).
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, stride: int = 1, first: bool = False
    ) -> None:
        super().__init__()
        before = [] if first else [nn.BatchNorm2d(in_channels), relu()]
        # Unpacked, so that the first convolution and the batch norm behind it are neighbours.
        self.body = nn.Sequential(
            *before,
            *ConvNorm(in_channels, out_channels, 3, stride=stride, bias=True, activation=relu),
            nn.Conv2d(out_channels, out_channels, 3, padding=1),
        )
        self.shortcut = ConvNorm(in_channels, out_channels, 1, stride=stride, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) → (B, C_out, H / stride, W / stride)."""
        # The body begins with a ReLU in place behind its batch norm, which leaves x alone.
        return self.shortcut(x) + self.body(x)


class ResidualUNet(SegmentationNetwork):
    """Form paper (Zhang et al., Section II and Table I): three residual units down with strides 1,
    2 and 2, a bridge with stride 2, three up behind bilinear upsampling and joined skips, a 1×1
    convolution. `width` is the number of channels of the first level (paper: 64, up to 512). The
    paper leaves the interpolation and a batch norm in the shortcuts open: bilinear by pixel
    centres, and with one. Raises UsageError for a width below 1.
    """

    def __init__(self, in_channels: int = 3, classes: int = 1, *, width: int = 64) -> None:
        super().__init__()
        if width < 1:
            raise UsageError(
                "creating a residual U-Net", expected="width at least 1", found=f"width={width}"
            )
        widths = [width, 2 * width, 4 * width, 8 * width]
        self.in_channels, self.classes = in_channels, classes
        self.stride = self.divisor = self.smallest = 8
        self.channels = {
            "skips": tuple(widths[:-1]),
            "bottleneck": (widths[-1],),
            "decoder": (width,),
            "output": (classes,),
        }
        self.encoder = nn.ModuleList(
            ResidualUnit(before, after, stride=2 if level else 1, first=level == 0)
            for level, (before, after) in enumerate(
                zip([in_channels, *widths], widths, strict=False)
            )
        )
        self.decoder = nn.ModuleList(
            ResidualUnit(3 * after, after) for after in reversed(widths[:-1])
        )
        self.classifier = nn.Conv2d(width, classes, 1)

    def encode(self, x: Tensor, **inputs: Tensor) -> Features:
        """(B, C, H, W) → skips at strides 1, 2, 4 and the bottleneck at 8."""
        self.check_image(x, **inputs)
        maps = []
        for unit in self.encoder:
            x = unit(x)
            maps.append(x)
        return Features(skips=tuple(maps[:-1]), bottleneck=maps[-1], extra={})

    def decode(self, features: Features) -> Decoded:
        """Features → the map (B, width, H, W) before the head."""
        x = features.bottleneck
        for unit, skip in zip(self.decoder, reversed(features.skips), strict=True):
            up = interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = unit(torch.cat([up, skip], dim=1))
        return Decoded(map=x, extra={})

    def head(self, decoded: Decoded, size: Size, auxiliary: bool) -> Output:
        """The last map, which has the image's size already → logits (B, classes, H, W)."""
        return Output(logits=self.classifier(decoded.map), auxiliary={})
