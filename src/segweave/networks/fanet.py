"""FANet: a residual U-Net that reads the mask of its last pass."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from segweave.author_weights import ReleasedNames, names_by_prefix
from segweave.blocks.conv_norm import ConvNorm, relu
from segweave.blocks.excited_residual import RELEASED_LAYERS, ExcitedResidualBlock
from segweave.blocks.otsu import otsu_mask
from segweave.errors import UsageError
from segweave.networks.base import (
    Decoded,
    Features,
    Feedback,
    Output,
    SegmentationNetwork,
    Size,
)
from segweave.registry import NetworkCard

LEVELS = 4

CARD = NetworkCard(
    name="fanet",
    title="FANet (feedback attention)",
    entry="FANet",
    paper="Tomar et al., FANet: A Feedback Attention Network for Improved Biomedical Image "
    "Segmentation, IEEE Transactions on Neural Networks and Learning Systems, 2022",
    licence="none stated",
    divisor=16,
    smallest=16,
    positions={
        "skips": "the encoder's maps before the mask selects in them",
        "bottleneck": "the last encoder's map after pooling; no further block follows",
        "decoder": "the last map that the mask selected in, before the mask itself is joined",
    },
    tiny_options={"width": 4, "rounds": 2},
)


class MixPool(nn.Module):
    """Selects features by the mask of the last pass and by a mask that it computes (Section III-B):
    half of the channels from x · (learned mask or mask), half from x, each by a 3×3 convolution
    with batch norm and ReLU. (B, C, H, W) and (B, 1, H, W) → (B, C, H, W).

    The learned mask is 1 where a small network's sigmoid is above a half. No gradient passes that
    comparison, so that its parameters keep their start values and are not trained.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.score = nn.Sequential(
            ConvNorm(channels, channels, 3, bias=True, activation=relu), nn.Conv2d(channels, 1, 1)
        ).requires_grad_(False)
        self.selected = ConvNorm(channels, channels // 2, 3, bias=True, activation=relu)
        self.all = ConvNorm(channels, channels // 2, 3, bias=True, activation=relu)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, C, H, W), and a mask (B, 1, H, W) in which all but 0 is foreground → (B, C, H, W)."""
        with torch.no_grad():
            keep = ((self.score(x) > 0) | (mask != 0)).to(x.dtype)
        return torch.cat([self.selected(x * keep), self.all(x)], dim=1)


class FANet(SegmentationNetwork):
    """Four encoder stages of two residual blocks and MixPool, each followed by pooling; four
    decoder stages of a transposed convolution, the joined skip, two residual blocks and MixPool;
    and a 1×1 convolution over the last map and the mask.

    `encode` takes the mask of the pass before as `mask`, (B, 1, H, W) of 0 and 1; the first one is
    Otsu's (see `segweave.blocks.otsu.otsu_mask`).

    Args:
        in_channels: channels of an image.
        classes: channels of the logits.
        width: channels of the first stage, divisible by 4 (released: 32).
        rounds: passes in prediction (released: 10).

    Raises:
        UsageError: another width, or fewer than one pass.
    """

    def __init__(
        self, in_channels: int = 3, classes: int = 1, *, width: int = 32, rounds: int = 10
    ) -> None:
        super().__init__()
        if width < 4 or width % 4 or rounds < 1:
            raise UsageError(
                "creating the network 'fanet'",
                expected="a width divisible by 4 and at least one round",
                found=f"width={width}, rounds={rounds}",
            )
        widths = [width * 2**level for level in range(LEVELS)]
        self.in_channels, self.classes = in_channels, classes
        self.stride = self.divisor = self.smallest = 2**LEVELS
        self.feedback = Feedback("mask", otsu_mask, rounds)
        self.channels = {
            "skips": tuple(widths),
            "bottleneck": (widths[-1],),
            "decoder": (width // 2,),
            "output": (classes,),
        }
        self.encoder = nn.ModuleList(
            _blocks(before, after)
            for before, after in zip([in_channels, *widths], widths, strict=False)
        )
        self.encoder_mix = nn.ModuleList(MixPool(after) for after in widths)
        self.upsampling = nn.ModuleList(
            nn.ConvTranspose2d(before, before, 4, stride=2, padding=1)
            for before in reversed(widths)
        )
        self.decoder = nn.ModuleList(
            _blocks(2 * before, before // 2) for before in reversed(widths)
        )
        self.decoder_mix = nn.ModuleList(MixPool(before // 2) for before in reversed(widths))
        self.classifier = nn.Conv2d(width // 2 + 1, classes, 1)

    def encode(self, x: Tensor, **inputs: Tensor) -> Features:
        """(B, C, H, W) and mask (B, 1, H, W) → skips at strides 1, 2, 4, 8, the bottleneck at 16,
        and the mask.
        """
        self.check_image(x, **inputs)
        mask = inputs["mask"].to(x.dtype)
        skips = []
        for blocks, mix, pooled in zip(
            self.encoder, self.encoder_mix, _pyramid(mask, LEVELS), strict=True
        ):
            x = blocks(x)
            skips.append(x)
            x = max_pool2d(mix(x, pooled), 2)
        return Features(skips=tuple(skips), bottleneck=x, extra={"mask": mask})

    def decode(self, features: Features) -> Decoded:
        """Features → the map (B, width / 2, H, W) before the head, and the mask."""
        x, mask = features.bottleneck, features.extra["mask"]
        stages = zip(self.upsampling, self.decoder, self.decoder_mix, strict=True)
        for (up, blocks, mix), skip, pooled in zip(
            stages, reversed(features.skips), reversed(_pyramid(mask, LEVELS)), strict=True
        ):
            x = mix(blocks(torch.cat([up(x), skip], dim=1)), pooled)
        return Decoded(map=x, extra={"mask": mask})

    def head(self, decoded: Decoded, size: Size, auxiliary: bool) -> Output:
        """The last map and the mask, which have the image's size already → logits."""
        joined = torch.cat([decoded.map, decoded.extra["mask"]], dim=1)
        return Output(logits=self.classifier(joined), auxiliary={})

    def released_names(self) -> ReleasedNames:
        """Names of the released code: e1 … e4, d1 … d4, output."""
        layers = {"score.0.0": "fmask.0", "score.0.1": "fmask.1", "score.1": "fmask.3"}
        layers |= {"selected": "conv1", "all": "conv2"}
        prefixes = {"classifier.": "output."}
        for level in range(LEVELS):
            prefixes[f"upsampling.{level}."] = f"d{level + 1}.upsample."
            for path, name in (("encoder", "e"), ("decoder", "d")):
                stage = f"{name}{level + 1}"
                for ours, theirs in layers.items():
                    prefixes[f"{path}_mix.{level}.{ours}."] = f"{stage}.p1.{theirs}."
                for block in range(2):
                    for ours, theirs in RELEASED_LAYERS.items():
                        prefixes[f"{path}.{level}.{block}.{ours}."] = (
                            f"{stage}.r{block + 1}.{theirs}."
                        )
        return names_by_prefix(self, prefixes)


def _blocks(in_channels: int, out_channels: int) -> nn.Sequential:
    """Two residual blocks. The hidden layer of squeeze and excitation has one unit, as in the
    released code.
    """
    return nn.Sequential(
        ExcitedResidualBlock(in_channels, out_channels, 1),
        ExcitedResidualBlock(out_channels, out_channels, 1),
    )


def _pyramid(mask: Tensor, levels: int) -> list[Tensor]:
    """The mask at the strides 1, 2, 4, ...: 1 where any of its pixels is."""
    masks = [mask]
    while len(masks) < levels:
        masks.append(max_pool2d(masks[-1], 2))
    return masks
