"""DCSAU-Net: primary feature conservation, and stages of compact split attention."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm, interpolate, pad

from segweave.author_weights import ReleasedNames, names_by_prefix
from segweave.blocks.conv_norm import ConvNorm, relu
from segweave.errors import UsageError
from segweave.networks.base import Decoded, Features, Output, SegmentationNetwork, Size
from segweave.registry import NetworkCard

EXPANSION = 4
LEVELS = 4

CARD = NetworkCard(
    name="dcsau-net",
    title="DCSAU-Net",
    entry="DCSAUNet",
    paper="Xu et al., DCSAU-Net: A Deeper and More Compact Split-Attention U-Net for Medical "
    "Image Segmentation, Computers in Biology and Medicine 154, 2023",
    licence="Apache-2.0",
    divisor=1,
    smallest=16,
    unfolded=(
        3,
        "in the primary feature conservation a ReLU is between convolution and batch norm",
    ),
    tiny_options={"width": 8},
)


class FeatureConservation(nn.Module):
    """Primary feature conservation (Section 3.1): 7×7 convolution, then a 7×7 depthwise one with a
    shortcut, then 1×1; each followed by ReLU and batch norm, in this order in the released code.
    (B, C_in, H, W) → (B, C_out, H, W).
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()

        def layer(before: int, kernel: int, groups: int = 1) -> nn.Sequential:
            return nn.Sequential(
                nn.Conv2d(before, out_channels, kernel, padding=kernel // 2, groups=groups),
                relu(),
                nn.BatchNorm2d(out_channels),
            )

        self.embed = layer(in_channels, 7)
        self.depthwise = layer(out_channels, 7, groups=out_channels)
        self.pointwise = layer(out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) → (B, C_out, H, W)."""
        x = self.embed(x)
        return cast(Tensor, self.pointwise(x + self.depthwise(x)))


class SplitAttention(nn.Module):
    """Compact split attention (Section 3.2): two branches a and b of `width` channels, b computed
    again from a + b, and weights of the two for each channel from the mean over space of their sum:
    (B, width, H, W) → the same. Softmax over the two branches.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = max(width // 2, 32)
        self.split = ConvNorm(width, 2 * width, 3, groups=2, activation=relu)
        self.again = ConvNorm(width, width, 3, groups=2, activation=relu)
        self.squeeze = ConvNorm(width, hidden, 1, bias=True, activation=relu)
        self.excite = nn.Conv2d(hidden, 2 * width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, H, W) → the same."""
        a, b = self.split(x).chunk(2, dim=1)
        b = self.again(a + b)
        pooled = (a + b).mean(dim=(2, 3), keepdim=True)
        weights = self.excite(self._squeezed(pooled))
        ours, theirs = weights.unflatten(1, (2, -1)).softmax(dim=1).unbind(1)
        return cast(Tensor, ours * a + theirs * b)

    def _squeezed(self, pooled: Tensor) -> Tensor:
        convolution, norm, activation = self.squeeze
        # Folded, the norm is another module, which computes nothing.
        if not isinstance(norm, nn.BatchNorm2d) or not norm.training or len(pooled) > 1:
            return cast(Tensor, self.squeeze(pooled))
        # One value per channel has no variance, and torch refuses it.
        normed = batch_norm(
            convolution(pooled),
            norm.running_mean,
            norm.running_var,
            norm.weight,
            norm.bias,
            eps=norm.eps,
        )
        return cast(Tensor, activation(normed))


class SplitBottleneck(nn.Module):
    """1×1, split attention, 3×3 mean (stride 1) in the first block of stages 2 to 7, 1×1 to four
    times the width; plus a shortcut; ReLU. (B, C_in, H, W) → (B, 4 · width, H, W).
    """

    def __init__(self, in_channels: int, width: int, *, first: bool, smooth: bool) -> None:
        super().__init__()
        out_channels = EXPANSION * width
        self.reduce = ConvNorm(in_channels, width, 1, activation=relu)
        self.attention = SplitAttention(width)
        self.smooth = nn.AvgPool2d(3, stride=1, padding=1) if first and smooth else nn.Identity()
        self.expand = ConvNorm(width, out_channels, 1)
        self.shortcut = (
            nn.Identity() if in_channels == out_channels else ConvNorm(in_channels, out_channels, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) → (B, 4 · width, H, W)."""
        body = self.expand(self.smooth(self.attention(self.reduce(x))))
        return cast(Tensor, (body + self.shortcut(x)).relu())


class DCSAUNet(SegmentationNetwork):
    """Primary feature conservation at the image's size, four stages down, four up, bilinear
    upsampling and joined skips. `width` is the number of channels of the first map (released: 64).
    Any size from 16 pixels on: where a map is a pixel smaller than its skip it is padded with
    zeros.

    In training mode the batch norm in the attention sees one value per image. For a batch of one
    image, such as the last of an epoch, it uses its running statistics and leaves them as they are;
    the released code fails there. Raises UsageError for a width that 8 does not divide.
    """

    def __init__(self, in_channels: int = 3, classes: int = 1, *, width: int = 64) -> None:
        super().__init__()
        if width < 8 or width % 8:
            raise UsageError(
                "creating a DCSAU-Net",
                expected="a width that 8 divides: the last stages have a quarter of it, in two "
                "groups",
                found=f"width={width}",
            )
        down = [width // 2, width, 2 * width, 2 * width]
        up = [width, width // 2, width // 4, width // 4]
        maps = [width, *(EXPANSION * w for w in down)]
        self.in_channels, self.classes = in_channels, classes
        self.stride = self.smallest = 2**LEVELS
        self.channels = {
            "skips": tuple(maps[:-1]),
            "bottleneck": (maps[-1],),
            "decoder": (EXPANSION * up[-1],),
            "output": (classes,),
        }
        self.conservation = FeatureConservation(in_channels, width)
        self.pool = nn.MaxPool2d(2)
        self.encoder = nn.ModuleList(
            _stage(before, inner, smooth=level > 0)
            for level, (before, inner) in enumerate(zip(maps, down, strict=False))
        )
        deeper = [maps[-1], *(EXPANSION * w for w in up)]
        self.decoder = nn.ModuleList(
            _stage(below + skip, inner, smooth=level < LEVELS - 1)
            for level, (below, skip, inner) in enumerate(
                zip(deeper, reversed(maps[:-1]), up, strict=False)
            )
        )
        self.classifier = nn.Conv2d(EXPANSION * up[-1], classes, 1)

    def encode(self, x: Tensor, **inputs: Tensor) -> Features:
        """(B, C, H, W) → skips at strides 1 to 8 and the bottleneck at 16."""
        self.check_image(x, **inputs)
        maps = [self.conservation(x)]
        for stage in self.encoder:
            maps.append(stage(self.pool(maps[-1])))
        return Features(skips=tuple(maps[:-1]), bottleneck=maps[-1], extra={})

    def decode(self, features: Features) -> Decoded:
        """Features → the map (B, width, H, W) before the head."""
        x = features.bottleneck
        for stage, skip in zip(self.decoder, reversed(features.skips), strict=True):
            x = interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
            rows, columns = skip.shape[2] - x.shape[2], skip.shape[3] - x.shape[3]
            if rows or columns:  # at most one of each, at the bottom and at the right
                x = pad(x, [0, columns, 0, rows])
            x = stage(torch.cat([skip, x], dim=1))
        return Decoded(map=x, extra={})

    def head(self, decoded: Decoded, size: Size, auxiliary: bool) -> Output:
        """The last map, which has the image's size already → logits (B, classes, H, W)."""
        return Output(logits=self.classifier(decoded.map), auxiliary={})

    def released_names(self) -> ReleasedNames:
        """Names of the released code: pfc, down1 … 4, up1 … 4, out_conv."""
        prefixes = {"classifier.": "out_conv."}
        for ours, theirs in (
            ("embed", "input_layer"),
            ("depthwise", "depthwise"),
            ("pointwise", "pointwise"),
        ):
            prefixes[f"conservation.{ours}."] = f"pfc.{theirs}."
        layers = {
            "reduce.0": "conv1",
            "reduce.1": "bn1",
            "attention.split.0": "conv2.conv",
            "attention.split.1": "conv2.bn0",
            "attention.again.0": "conv2.conv2",
            "attention.again.1": "conv2.bn2",
            "attention.squeeze.0": "conv2.fc1",
            "attention.squeeze.1": "conv2.bn1",
            "attention.excite": "conv2.fc2",
            "expand.0": "conv3",
            "expand.1": "bn3",
            "shortcut.0": "downsample.1",
            "shortcut.1": "downsample.2",
        }
        for path, name in (("encoder", "down"), ("decoder", "up")):
            for level in range(LEVELS):
                for block in range(2):
                    for ours, theirs in layers.items():
                        prefixes[f"{path}.{level}.{block}.{ours}."] = (
                            f"{name}{level + 1}.{block}.{theirs}."
                        )
        return names_by_prefix(self, prefixes)


def _stage(in_channels: int, width: int, *, smooth: bool) -> nn.Sequential:
    """Two blocks; their convolutions start from a normal distribution, sd √(2 / (k² · C_out))."""
    stage = nn.Sequential(
        SplitBottleneck(in_channels, width, first=True, smooth=smooth),
        SplitBottleneck(EXPANSION * width, width, first=False, smooth=False),
    )
    for layer in stage.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(
                layer.weight, 0, math.sqrt(2 / (layer.kernel_size[0] ** 2 * layer.out_channels))
            )
    return stage
