"""ColonSegNet: two encoder blocks and a shallow decoder at a half of the image's size and more."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from segweave.author_weights import ReleasedNames, names_by_prefix
from segweave.blocks.conv_norm import ConvNorm, relu
from segweave.blocks.excited_residual import RELEASED_LAYERS, ExcitedResidualBlock
from segweave.errors import UsageError
from segweave.networks.base import Decoded, Features, Output, SegmentationNetwork, Size
from segweave.registry import NetworkCard

RATIO = 16
"""Channels of a block divided by the hidden units of its squeeze and excitation."""

CARD = NetworkCard(
    name="colonsegnet",
    title="ColonSegNet",
    entry="ColonSegNet",
    paper="Jha et al., Real-Time Polyp Detection, Localization and Segmentation in Colonoscopy "
    "Using Deep Learning, IEEE Access, 2021",
    licence="none stated",
    divisor=8,
    smallest=8,
    positions={
        "skips": "the encoder's maps at strides 1, 2 and 4; the second one is joined twice",
        "bottleneck": "the last map of the second encoder block, at an eighth of the image's size; "
        "no pooling follows",
    },
    tiny_options={"width": 8},
)


class EncoderBlock(nn.Module):
    """A residual block, a 3×3 convolution with stride 2, and a second residual block: (B, C_in, H,
    W) → the maps (B, C_out, H, W) and (B, C_out, H / 2, W / 2).
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.first = _block(in_channels, out_channels)
        self.down = ConvNorm(out_channels, out_channels, 3, bias=True, activation=relu, stride=2)
        self.second = _block(out_channels, out_channels)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C_in, H, W) → the maps behind the two residual blocks, the finer one first."""
        fine = self.first(x)
        return fine, self.second(self.down(fine))


class ColonSegNet(SegmentationNetwork):
    """Two encoder blocks with a pooling between them give maps at the strides 1, 2, 4 and 8. The
    two coarse ones are upsampled by transposed convolutions to stride 2, the result and the map at
    stride 2 to stride 1. After each upsampling one further map is joined, and a residual block
    follows. A 1×1 convolution returns the logits.

    Args:
        in_channels: channels of an image.
        classes: channels of the logits.
        width: channels of the first encoder block, an even number (released: 64). The second block
            has four times as many.

    Raises:
        UsageError: another width.
    """

    def __init__(self, in_channels: int = 3, classes: int = 1, *, width: int = 64) -> None:
        super().__init__()
        if width < 2 or width % 2:
            raise UsageError(
                "creating the network 'colonsegnet'",
                expected="an even width of at least 2",
                found=f"width={width}",
            )
        self.in_channels, self.classes = in_channels, classes
        self.stride = self.divisor = self.smallest = 8
        deep, middle = 4 * width, 2 * width
        self.channels = {
            "skips": (width, width, deep),
            "bottleneck": (deep,),
            "decoder": (width // 2,),
            "output": (classes,),
        }
        self.encoder = nn.ModuleList([EncoderBlock(in_channels, width), EncoderBlock(width, deep)])
        self.upsampling = nn.ModuleList(
            [
                nn.ConvTranspose2d(deep, middle, 4, stride=4),
                nn.ConvTranspose2d(deep, middle, 4, stride=2, padding=1),
                nn.ConvTranspose2d(middle, width, 4, stride=2, padding=1),
                nn.ConvTranspose2d(width, width // 2, 4, stride=2, padding=1),
            ]
        )
        self.decoder = nn.ModuleList(
            [
                _block(middle + width, middle),
                _block(middle + middle, middle),
                _block(width + width, width),
                _block(width + width // 2, width // 2),
            ]
        )
        self.classifier = nn.Conv2d(width // 2, classes, 1)

    def encode(self, x: Tensor, **inputs: Tensor) -> Features:
        """(B, C, H, W) → skips at strides 1, 2 and 4, the bottleneck at 8."""
        self.check_image(x, **inputs)
        first, second = self.encoder
        whole, half = first(x)
        quarter, eighth = second(max_pool2d(half, 2))
        return Features(skips=(whole, half, quarter), bottleneck=eighth, extra={})

    def decode(self, features: Features) -> Decoded:
        """Features → the map (B, width / 2, H, W) before the head."""
        whole, half, quarter = features.skips
        up, block = self.upsampling, self.decoder
        x = block[0](torch.cat([up[0](features.bottleneck), half], dim=1))
        x = block[1](torch.cat([x, up[1](quarter)], dim=1))
        x = block[2](torch.cat([up[2](x), whole], dim=1))
        x = block[3](torch.cat([x, up[3](half)], dim=1))
        return Decoded(map=x, extra={})

    def head(self, decoded: Decoded, size: Size, auxiliary: bool) -> Output:
        """The last map, which has the image's size already → logits (B, classes, H, W)."""
        return Output(logits=self.classifier(decoded.map), auxiliary={})

    def released_names(self) -> ReleasedNames:
        """Names of the released code: e1, e2, t1 … t4, r1 … r4, output."""
        prefixes = {"classifier.": "output."}
        blocks = {f"decoder.{i}": f"r{i + 1}" for i in range(len(self.decoder))}
        for i in range(len(self.encoder)):
            for layer, theirs in (("0", "conv"), ("1", "bn")):
                prefixes[f"encoder.{i}.down.{layer}."] = f"e{i + 1}.strided_conv.{theirs}."
            blocks[f"encoder.{i}.first"] = f"e{i + 1}.residual_block1"
            blocks[f"encoder.{i}.second"] = f"e{i + 1}.residual_block2"
        for i in range(len(self.upsampling)):
            prefixes[f"upsampling.{i}."] = f"t{i + 1}."
        for block, theirs in blocks.items():
            for layer, released in RELEASED_LAYERS.items():
                prefixes[f"{block}.{layer}."] = f"{theirs}.{released}."
        return names_by_prefix(self, prefixes)


def _block(in_channels: int, out_channels: int) -> ExcitedResidualBlock:
    return ExcitedResidualBlock(in_channels, out_channels, max(1, out_channels // RATIO))
