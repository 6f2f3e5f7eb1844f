"""An attention network that removes the noise of low-dose CT: residual groups of Swin blocks."""

from __future__ import annotations

from torch import Tensor, nn

from segweave.backbones.swin_stacks import SwinStacks
from segweave.blocks.image_residual import image_of, start_near_image, with_image
from segweave.errors import UsageError
from segweave.networks.base import Decoded, Features, Output, SegmentationNetwork, Size
from segweave.registry import NetworkCard

CARD = NetworkCard(
    name="swin-denoiser",
    title="Residual groups of Swin blocks for denoising",
    entry="SwinDenoiser",
    paper="built as Liang et al., SwinIR: Image restoration using Swin transformer, ICCV "
    "Workshops 2021",
    forms=("paper",),
    positions={
        "skips": "the map of the first convolution, which is added behind the groups",
        "bottleneck": "the map behind the groups of Swin blocks, of the image's size",
        "decoder": "the map before the last convolution",
        "output": "the predicted image",
    },
    weights=(
        {
            "tag": "imagenet",
            "source": "swin_tiny_patch4_window7_224.ms_in1k",
            "licence": "MIT",
            "mean": (0.485, 0.456, 0.406),
            "sd": (0.229, 0.224, 0.225),
        },
    ),
    tiny_options={"width": 8, "groups": 2, "blocks": 2, "window": 2},
)


class SwinDenoiser(SegmentationNetwork):
    """A 3×3 convolution; `groups` groups, each of `blocks` Swin blocks (every second one shifted)
    and a 3×3 convolution, plus the group's input; layer norm, a 3×3 convolution, plus the map of
    the first one; a last 3×3 convolution. All at the image's own resolution. The image is added to
    the result, so that the network learns what is to be taken away.

    With 96 channels every group starts from the first stage of Swin-T
    (`network.pretrained: imagenet`), as the attention of `bsanet` does. Where the number of
    `classes` is not that of the image's channels, the image is not added.

    Args:
        in_channels: channels of an image.
        classes: channels of the result; those of the image for a network that predicts an image.
        width: channels of every map.
        groups: number of groups.
        blocks: Swin blocks per group.
        window: side of the windows.

    Raises UsageError for numbers that do not fit.
    """

    def __init__(
        self,
        in_channels: int = 3,
        classes: int = 1,
        *,
        width: int = 96,
        groups: int = 4,
        blocks: int = 6,
        window: int = 8,
    ) -> None:
        super().__init__()
        unfit = width > 32 and width % 32 > 0
        if unfit or min(width, groups, blocks, window) < 1:
            raise UsageError(
                "creating the network 'swin-denoiser'",
                expected="one group, block and pixel at least, a width up to 32 or a multiple of "
                "it",
                found=f"width={width}, groups={groups}, blocks={blocks}, window={window}",
            )
        self.in_channels, self.classes = in_channels, classes
        self.stride = 1
        self.stem = nn.Conv2d(in_channels, width, 3, padding=1)
        self.swin = SwinStacks([width] * groups, depth=blocks, window=window)
        self.backbones = {"swin": "swin_tiny_patch4_window7_224.ms_in1k"}
        self.mixing = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(groups))
        self.norm = nn.LayerNorm(width)
        self.joining = nn.Conv2d(width, width, 3, padding=1)
        self.classifier = nn.Conv2d(width, classes, 3, padding=1)
        start_near_image(self.classifier)
        self.channels = {
            "skips": (width,),
            "bottleneck": (width,),
            "decoder": (width,),
            "output": (classes,),
        }

    def encode(self, x: Tensor, **inputs: Tensor) -> Features:
        """(B, C, H, W) → the first map as skip and the map behind the groups. Raises UsageError for
        a wrong number of channels.
        """
        self.check_image(x, **inputs)
        first = map = self.stem(x)
        for stack, mixing in zip(self.swin.stacks, self.mixing, strict=True):
            read = stack(map.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            map = map + mixing(read)
        return Features(skips=(first,), bottleneck=map, extra=image_of(x, self.classes))

    def decode(self, features: Features) -> Decoded:
        """Features → the map (B, width, H, W) before the last convolution."""
        normed = self.norm(features.bottleneck.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return Decoded(map=self.joining(normed) + features.skips[0], extra=features.extra)

    def head(self, decoded: Decoded, size: Size, auxiliary: bool) -> Output:
        """The last map → the predicted image (B, classes, H, W)."""
        return Output(with_image(self.classifier(decoded.map), decoded.extra), auxiliary={})
