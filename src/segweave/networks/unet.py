"""UNet as the source papers' baseline computes it: five levels of double convolutions, transposed
convolutions, logits out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from segweave.author_weights import ReleasedNames, names_by_prefix
from segweave.blocks.conv_norm import DoubleConvolution
from segweave.errors import UsageError
from segweave.networks.base import Decoded, Features, Output, SegmentationNetwork, Size
from segweave.registry import NetworkCard

CARD = NetworkCard(
    name="unet",
    title="UNet (widths 32 to 512)",
    entry="UNet",
    paper="Ronneberger et al., U-Net, MICCAI 2015; as in github.com/TomAndHelen/UNet_Family",
    divisor=16,
    smallest=16,
    tiny_options={"width": 4},
)


class UShape(SegmentationNetwork):
    """An encoder of blocks with pooling between them, and a 1×1 convolution as head.

    A subclass adds the way up, `decode`, and last the head: `self.classifier`, a module from
    `widths[0]` channels to the logits.

    Args:
        in_channels: channels of an image.
        classes: channels of the logits.
        widths: channels of each level, from fine to coarse. Height and width of an image must be
            divisible by 2^(levels - 1).
        block: channels before and after → the block of a level.
    """

    classifier: nn.Module

    def __init__(
        self,
        in_channels: int,
        classes: int,
        widths: Sequence[int],
        block: Callable[[int, int], nn.Module],
    ) -> None:
        super().__init__()
        self.in_channels, self.classes = in_channels, classes
        self.stride = self.divisor = self.smallest = 2 ** (len(widths) - 1)
        self.channels = {
            "skips": tuple(widths[:-1]),
            "bottleneck": (widths[-1],),
            "decoder": (widths[0],),
            "output": (classes,),
        }
        self.encoder = nn.ModuleList(
            block(before, after)
            for before, after in zip([in_channels, *widths], widths, strict=False)
        )
        self.pool = nn.MaxPool2d(2)

    def encode(self, x: Tensor, **inputs: Tensor) -> Features:
        """(B, C, H, W) → skips at strides 1, 2, 4, ... and the bottleneck at `stride`. Raises
        UsageError for a wrong number of channels or a size that is not divisible by `divisor`.
        """
        self.check_image(x, **inputs)
        maps = []
        for level, block in enumerate(self.encoder):
            x = block(self.pool(x) if level else x)
            maps.append(x)
        return Features(skips=tuple(maps[:-1]), bottleneck=maps[-1], extra={})

    def head(self, decoded: Decoded, size: Size, auxiliary: bool) -> Output:
        """The last map, which has the image's size already → logits (B, classes, H, W)."""
        return Output(logits=self.classifier(decoded.map), auxiliary={})


class PlainUNet(UShape):
    """Double convolutions, pooling down, transposed convolutions up, skips joined.

    `width` is the number of channels of the first level; each further level has twice as many.
    `levels` counts the double convolutions of the encoder; height and width of an image must be
    divisible by 2^(levels - 1). A subclass may take another block of two convolutions. Raises
    UsageError for a width below 1 or fewer than two levels.
    """

    block: Callable[[int, int], nn.Module] = DoubleConvolution

    def __init__(
        self, in_channels: int = 3, classes: int = 1, *, width: int = 32, levels: int = 5
    ) -> None:
        if width < 1 or levels < 2:
            raise UsageError(
                f"creating a {type(self).__name__}",
                expected="width at least 1 and levels at least 2",
                found=f"width={width}, levels={levels}",
            )
        widths = [width * 2**level for level in range(levels)]
        block = type(self).block
        super().__init__(in_channels, classes, widths, block)
        self.upsampling = nn.ModuleList(
            nn.ConvTranspose2d(2 * after, after, 2, stride=2) for after in reversed(widths[:-1])
        )
        self.decoder = nn.ModuleList(block(2 * after, after) for after in reversed(widths[:-1]))
        self.classifier = nn.Conv2d(width, classes, 1)

    def decode(self, features: Features) -> Decoded:
        """Features → the map (B, width, H, W) before the head."""
        x = features.bottleneck
        for up, block, skip in zip(
            self.upsampling, self.decoder, reversed(features.skips), strict=True
        ):
            x = block(torch.cat([up(x), skip], dim=1))
        return Decoded(map=x, extra={})


class UNet(PlainUNet):
    """Ronneberger's UNet with batch norm and padded convolutions; see `PlainUNet`. The released
    widths are 32 to 512. The released code ends in a sigmoid; this one returns logits.
    """

    def released_names(self) -> ReleasedNames:
        """Names of UNet_Family: conv1 … conv5 down, up6 and conv6 … up9 and conv9 up, conv10."""
        levels = len(self.encoder)
        prefixes = {f"encoder.{i}.": f"conv{i + 1}.conv." for i in range(levels)}
        for i in range(levels - 1):
            prefixes[f"upsampling.{i}."] = f"up{levels + 1 + i}."
            prefixes[f"decoder.{i}."] = f"conv{levels + 1 + i}.conv."
        return names_by_prefix(self, {**prefixes, "classifier.": f"conv{2 * levels}."})
