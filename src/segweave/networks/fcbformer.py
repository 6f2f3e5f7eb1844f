"""FCBFormer: a transformer branch and a fully convolutional branch at the image's size."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from segweave.author_weights import ReleasedNames, names_by_prefix
from segweave.backbones.pyramid_vision import STAGES, PyramidVision
from segweave.errors import UsageError
from segweave.networks.base import Decoded, Features, Output, SegmentationNetwork, Size
from segweave.registry import NetworkCard

LEVELS = (1, 1, 2, 2, 4, 4)
"""Channels of the six levels of the convolutional branch, as multiples of the first."""

CARD = NetworkCard(
    name="fcbformer",
    title="FCBFormer on PVTv2-B3",
    entry="FCBFormer",
    paper="Sanderson and Matuszewski, FCN-Transformer Feature Fusion for Polyp Segmentation, MIUA "
    "2022",
    licence="Apache-2.0",
    divisor=32,
    smallest=32,
    positions={
        "bottleneck": "the deepest map of the transformer branch; the convolutional branch reads "
        "the centre slice alone",
        "skips": "the three other maps of the transformer branch",
        "decoder": "the joined branches at the image's size, behind the two blocks of the head",
    },
    weights=(
        {
            "tag": "imagenet",
            "source": "pvt_v2_b3",
            "licence": "Apache-2.0",
            "mean": (0.485, 0.456, 0.406),
            "sd": (0.229, 0.224, 0.225),
        },
    ),
    tiny_options={"backbone": "tiny", "branch_size": 8, "width": 4, "groups": 4},
)


class ResidualBlock(nn.Module):
    """Group norm, SiLU and 3×3 convolution, twice, plus the input, through a 1×1 convolution where
    the channels change: (B, C_in, H, W) → (B, C_out, H, W).
    """

    def __init__(self, in_channels: int, out_channels: int, groups: int) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.GroupNorm(groups, in_channels),
            nn.SiLU(),
            nn.Conv2d(in_channels, out_channels, 3, padding=1),
        )
        self.second = nn.Sequential(
            nn.GroupNorm(groups, out_channels),
            nn.SiLU(),
            nn.Conv2d(out_channels, out_channels, 3, padding=1),
        )
        self.skip: nn.Module = (
            nn.Identity()
            if in_channels == out_channels
            else nn.Conv2d(in_channels, out_channels, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) → (B, C_out, H, W)."""
        y: Tensor = self.second(self.first(x)) + self.skip(x)
        return y


class ConvolutionalBranch(nn.Module):
    """The fully convolutional branch (Section 2.2): six levels of two blocks down, two blocks in
    the middle, six levels of three blocks up, each of which joins one of the 18 maps of the way
    down: (B, C, H, W) → (B, width, H, W).
    """

    def __init__(self, in_channels: int, width: int, groups: int) -> None:
        super().__init__()
        widths = [width * factor for factor in LEVELS]
        down: list[nn.Module] = [nn.Conv2d(in_channels, width, 3, padding=1)]
        held = [width]
        channels = width
        for level, width in enumerate(widths):
            for _ in range(2):
                down.append(ResidualBlock(channels, width, groups))
                channels = width
                held.append(channels)
            if level < len(widths) - 1:
                down.append(nn.Conv2d(channels, channels, 3, stride=2, padding=1))
                held.append(channels)
        self.down = nn.ModuleList(down)
        self.middle = nn.Sequential(
            ResidualBlock(channels, channels, groups), ResidualBlock(channels, channels, groups)
        )
        up: list[nn.Module] = []
        for level, width in reversed(list(enumerate(widths))):
            for step in range(3):
                layers: list[nn.Module] = [ResidualBlock(channels + held.pop(), width, groups)]
                channels = width
                if level and step == 2:
                    layers += [
                        nn.Upsample(scale_factor=2),
                        nn.Conv2d(channels, channels, 3, padding=1),
                    ]
                up.append(nn.Sequential(*layers))
        self.up = nn.ModuleList(up)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, width, H, W)."""
        maps = []
        for layer in self.down:
            x = layer(x)
            maps.append(x)
        x = self.middle(x)
        for layer in self.up:
            x = layer(torch.cat([x, maps.pop()], dim=1))
        return x


class FCBFormer(SegmentationNetwork):
    """The maps of a PVTv2, each through two blocks to 2·width channels and resized to one size, are
    joined from deep to shallow; the result and that of the convolutional branch give the logits
    (Sanderson and Matuszewski, Fig. 2).

    Args:
        in_channels: channels of an image.
        classes: channels of the logits.
        backbone: `pvt_v2_b3` or another `PyramidVision`.
        branch_size: height and width to which the transformer branch is resized. The released code
            has 88, a quarter of 352, whatever the image.
        width: channels of the convolutional branch at the image's size (released: 32); the
            transformer branch has twice as many.
        groups: of each group norm (released: 32). They divide `width` and the backbone's widths.

    Raises UsageError for groups that do not divide these widths.
    """

    def __init__(
        self,
        in_channels: int = 3,
        classes: int = 1,
        *,
        backbone: str = "pvt_v2_b3",
        branch_size: int = 88,
        width: int = 32,
        groups: int = 32,
    ) -> None:
        super().__init__()
        self.backbone = PyramidVision(backbone, in_channels)
        widths = self.backbone.widths
        _check_options(branch_size, width, groups, widths)
        branch = 2 * width
        self.branch_size = branch_size
        self.in_channels, self.classes = in_channels, classes
        self.stride = self.divisor = self.smallest = 32
        self.backbones = {"backbone": self.backbone.timm_name}
        self.channels = {
            "skips": widths[:-1],
            "bottleneck": (widths[-1],),
            "decoder": (branch,),
            "output": (classes,),
        }
        self.emphasis = nn.ModuleList(_two_blocks(one, branch, groups) for one in widths)
        self.aggregation = nn.ModuleList(
            _two_blocks(2 * branch, branch, groups) for _ in range(STAGES - 1)
        )
        self.convolutional = ConvolutionalBranch(in_channels, width, groups)
        self.join = _two_blocks(branch + width, branch, groups)
        self.classifier = nn.Conv2d(branch, classes, 1)

    def encode(self, x: Tensor, **inputs: Tensor) -> Features:
        """(B, C, H, W) → the transformer's maps at strides 4, 8, 16 and 32."""
        self.check_image(x, **inputs)
        *skips, bottleneck = self.backbone(x)
        return Features(skips=tuple(skips), bottleneck=bottleneck, extra={"image": x})

    def decode(self, features: Features) -> Decoded:
        """Features → the joined branches (B, 2·width, H, W)."""
        side = (self.branch_size, self.branch_size)
        maps = [
            interpolate(layer(one), size=side)
            for layer, one in zip(
                self.emphasis, (*features.skips, features.bottleneck), strict=True
            )
        ]
        x = maps.pop()
        for layer in self.aggregation:
            x = layer(torch.cat([maps.pop(), x], dim=1))
        image = features.extra["image"]
        x = interpolate(x, size=image.shape[-2:])
        return Decoded(map=self.join(torch.cat([x, self.convolutional(image)], dim=1)), extra={})

    def head(self, decoded: Decoded, size: Size, auxiliary: bool) -> Output:
        """The last map, which has the image's size already → logits (B, classes, H, W)."""
        return Output(logits=self.classifier(decoded.map), auxiliary={})

    def released_names(self) -> ReleasedNames:
        """Names of the released code: TB (backbone, LE, SFA), FCB, PH."""
        order = ("patch_embed", "block", "norm")
        backbone = self.backbone.prefixes(
            lambda kind, number: str(3 * (number - 1) + order.index(kind))
        )
        prefixes = {
            f"backbone.{ours}": f"TB.backbone.{theirs}" for ours, theirs in backbone.items()
        }
        for index in range(STAGES):
            prefixes[f"emphasis.{index}."] = f"TB.LE.{index}."
        for index in range(STAGES - 1):
            # Theirs are counted from the finest map on, ours are in the order of the steps.
            prefixes[f"aggregation.{index}."] = f"TB.SFA.{STAGES - 2 - index}."
        for index in range(len(self.convolutional.down)):
            # All but the first layer are wrapped.
            wrapped = f"FCB.enc_blocks.{index}." + ("0." if index else "")
            prefixes[f"convolutional.down.{index}."] = wrapped
        prefixes["convolutional.middle."] = "FCB.middle_block."
        for index, layer in enumerate(self.convolutional.up):
            prefixes[f"convolutional.up.{index}.0."] = f"FCB.dec_blocks.{index}.0."
            if len(list(layer.children())) > 1:
                prefixes[f"convolutional.up.{index}.2."] = f"FCB.dec_blocks.{index}.1.1."
        prefixes |= {"join.": "PH.", "classifier.": "PH.2."}
        names = names_by_prefix(self, prefixes).tensors
        return ReleasedNames({ours: _inner(theirs) for ours, theirs in names.items()})


def _two_blocks(in_channels: int, out_channels: int, groups: int) -> nn.Sequential:
    return nn.Sequential(
        ResidualBlock(in_channels, out_channels, groups),
        ResidualBlock(out_channels, out_channels, groups),
    )


def _check_options(branch_size: int, width: int, groups: int, widths: tuple[int, ...]) -> None:
    possible = min(branch_size, width, groups) >= 1
    if not possible or any(one % groups for one in (width, *widths)):
        raise UsageError(
            "creating an FCBFormer",
            expected="branch_size, width and groups of at least 1, and groups that divide width "
            f"and the widths of the backbone, {', '.join(map(str, widths))}",
            found=f"branch_size={branch_size}, width={width}, groups={groups}",
        )


def _inner(name: str) -> str:
    """Names inside of a residual block: in_layers and out_layers."""
    return name.replace(".first.", ".in_layers.").replace(".second.", ".out_layers.")
