"""The left side of a UNet and its head, which several networks share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from segweave.networks.base import Decoded, Features, Output, SegmentationNetwork, Size


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
