"""R2U-Net: a UNet of recurrent residual blocks."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from segweave.author_weights import ReleasedNames, names_by_prefix
from segweave.blocks.conv_norm import ConvNorm, relu
from segweave.blocks.upsampling import NearestConvolution
from segweave.errors import UsageError
from segweave.networks.base import Decoded, Features
from segweave.networks.unet import UShape
from segweave.registry import NetworkCard

LEVELS = 5

CARD = NetworkCard(
    name="r2unet",
    title="R2U-Net (widths 64 to 1024, two recurrent steps)",
    entry="R2UNet",
    paper="Alom et al., Recurrent Residual Convolutional Neural Network based on U-Net (R2U-Net) "
    "for Medical Image Segmentation, 2018; as in github.com/TomAndHelen/UNet_Family",
    licence="none stated",
    divisor=16,
    smallest=16,
    tiny_options={"width": 4},
)


class RecurrentConvolution(nn.Module):
    """The same convolution, batch norm and ReLU applied to x, then `steps` times to x + y: (B, C,
    H, W) → (B, C, H, W). The batch norm is shared too: it is updated steps + 1 times in a training
    step.
    """

    def __init__(self, channels: int, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.layer = ConvNorm(channels, channels, 3, bias=True, activation=relu)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C, H, W)."""
        y: Tensor = self.layer(x)
        for _ in range(self.steps):
            y = self.layer(x + y)
        return y


class RecurrentResidualBlock(nn.Module):
    """1×1 convolution, two recurrent convolutions, sum with what the 1×1 gave: (B, C_in, H, W) →
    (B, C_out, H, W).
    """

    def __init__(self, in_channels: int, out_channels: int, steps: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(in_channels, out_channels, 1)
        self.recurrent = nn.Sequential(
            RecurrentConvolution(out_channels, steps), RecurrentConvolution(out_channels, steps)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) → (B, C_out, H, W)."""
        x = self.project(x)
        return x + self.recurrent(x)


class R2UNet(UShape):
    """UNet with five levels of recurrent residual blocks. `width` is the number of channels of the
    first level, each further level has twice as many (released: 64 to 1024); `steps` is the number
    of recurrent steps. The released code ends in a sigmoid; this one returns logits. Raises
    UsageError for a width or a number of steps below 1.
    """

    def __init__(
        self, in_channels: int = 3, classes: int = 1, *, width: int = 64, steps: int = 2
    ) -> None:
        if width < 1 or steps < 1:
            raise UsageError(
                "creating an R2U-Net",
                expected="width at least 1 and steps at least 1",
                found=f"width={width}, steps={steps}",
            )
        widths = [width * 2**level for level in range(LEVELS)]
        block = partial(RecurrentResidualBlock, steps=steps)
        super().__init__(in_channels, classes, widths, block)
        upward = list(reversed(widths[:-1]))
        self.upsampling = nn.ModuleList(NearestConvolution(2 * after, after) for after in upward)
        self.decoder = nn.ModuleList(block(2 * after, after) for after in upward)
        self.classifier = nn.Conv2d(width, classes, 1)

    def decode(self, features: Features) -> Decoded:
        """Features → the map (B, width, H, W) before the head."""
        x = features.bottleneck
        for up, block, skip in zip(
            self.upsampling, self.decoder, reversed(features.skips), strict=True
        ):
            x = block(torch.cat([skip, up(x)], dim=1))
        return Decoded(map=x, extra={})

    def released_names(self) -> ReleasedNames:
        """Names of UNet_Family: RRCNN1 … RRCNN5 down, Up and Up_RRCNN 5 … 2 up, Conv_1x1."""
        stages = {f"encoder.{i}.": f"RRCNN{i + 1}." for i in range(LEVELS)}
        upward = list(enumerate(range(LEVELS, 1, -1)))
        stages |= {f"decoder.{i}.": f"Up_RRCNN{number}." for i, number in upward}
        prefixes = {
            f"upsampling.{i}.{k}.": f"Up{number}.up.{k + 1}."
            for i, number in upward
            for k in (0, 1)
        }
        for ours, theirs in stages.items():
            prefixes[f"{ours}project."] = f"{theirs}Conv_1x1."
            for step in range(2):
                prefixes[f"{ours}recurrent.{step}.layer."] = f"{theirs}RCNN.{step}.conv."
        return names_by_prefix(self, {**prefixes, "classifier.": "Conv_1x1."})
