"""FCT: a U-Net whose blocks end in attention over all pixels and dilated convolutions."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import (
    avg_pool2d,
    interpolate,
    linear,
    max_pool2d,
    scaled_dot_product_attention,
)

from segweave.author_weights import ReleasedNames, names_by_prefix
from segweave.blocks.conv_norm import relu
from segweave.blocks.upsampling import NearestUpsampledConv2d
from segweave.errors import UsageError
from segweave.networks.base import Decoded, Features, Output, SegmentationNetwork, Size
from segweave.registry import NetworkCard

LEVELS = 5
"""Blocks of the encoder, the bottleneck included."""
SCALED = 3
"""Blocks behind the first that read the image, averaged to their size."""
DEEP = ("deep-1", "deep-2")
"""Auxiliary outputs, from coarse to fine."""

CARD = NetworkCard(
    name="fct",
    title="FCT (fully convolutional transformer, widths 8 to 128)",
    entry="FCT",
    paper="Tragakis et al., The Fully Convolutional Transformer for Medical Image Segmentation, "
    "WACV 2023; as in the authors' PyTorch code",
    licence="MIT, says the readme; no licence file",
    divisor=32,
    smallest=32,
    positions={
        "skips": "the encoder's maps at strides 2, 4, 8 and 16",
        "decoder": "the map at half of the image's size; the head doubles it",
    },
    tiny_options={"width": 4},
)


class PixelNorm(nn.LayerNorm):
    """Layer norm over the channels of each pixel: (B, C, H, W) → the same."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → the same."""
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class PixelAttention(nn.Module):
    """Attention of all pixels to all pixels with one head; query, key and value are 3×3 depthwise
    convolutions with ReLU and layer norm, then linear maps: (B, C, H, W) → the same.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()

        def projection() -> nn.Sequential:
            return nn.Sequential(
                nn.Conv2d(channels, channels, 3, padding=1, groups=channels),
                relu(),
                PixelNorm(channels),
            )

        self.projections = nn.ModuleList(projection() for _ in range(3))
        self.in_proj_weight = nn.Parameter(torch.empty(3 * channels, channels))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * channels))
        self.out_proj = nn.Linear(channels, channels)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → the same."""
        query, key, value = (
            linear(projection(x).flatten(2).transpose(1, 2), weight, bias)
            for projection, weight, bias in zip(
                self.projections,
                self.in_proj_weight.chunk(3),
                self.in_proj_bias.chunk(3),
                strict=True,
            )
        )
        # One head: (B, 1, N, C).
        mixed = scaled_dot_product_attention(query[:, None], key[:, None], value[:, None])
        return cast(Tensor, self.out_proj(mixed[:, 0])).transpose(1, 2).reshape(x.shape)


class WideFocus(nn.Module):
    """Wide focus: 3×3 convolutions with dilation 1, 2 and 3, each with GELU, added; then one more:
    (B, C, H, W) → the same.
    """

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()

        def branch(dilation: int) -> nn.Sequential:
            return nn.Sequential(
                nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation),
                nn.GELU(),
                nn.Dropout(dropout),
            )

        self.branches = nn.ModuleList(branch(dilation) for dilation in (1, 2, 3))
        self.join = branch(1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → the same."""
        first, second, third = self.branches
        return cast(Tensor, self.join(first(x) + second(x) + third(x)))


class ConvolutionalTransformer(nn.Module):
    """Attention and a 3×3 convolution, plus the input; then wide focus of the layer norm, plus its
    input: (B, C, H, W) → the same.
    """

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        self.attention = PixelAttention(channels)
        self.convolution = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = PixelNorm(channels)
        self.focus = WideFocus(channels, dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → the same."""
        x = x + self.convolution(self.attention(x))
        return x + cast(Tensor, self.focus(self.norm(x)))


class EncoderBlock(nn.Module):
    """Layer norm, two 3×3 convolutions with ReLU, max pooling, transformer: (B, C_in, H, W) → (B,
    C_out, H/2, W/2). With `image_channels` a 3×3 convolution with ReLU of the image at the block's
    size is joined before the two.
    """

    def __init__(
        self, in_channels: int, out_channels: int, rates: tuple[float, float], image_channels: int
    ) -> None:
        super().__init__()
        self.norm = PixelNorm(in_channels)
        self.image = (
            nn.Sequential(nn.Conv2d(image_channels, in_channels, 3, padding=1), relu())
            if image_channels
            else None
        )
        joined = 2 * in_channels if image_channels else in_channels
        self.body = _two_convolutions(joined, out_channels)
        self.dropout = nn.Dropout(rates[0])
        self.transformer = ConvolutionalTransformer(out_channels, rates[1])

    def forward(self, x: Tensor, image: Tensor) -> Tensor:
        """(B, C_in, H, W) and the image (B, C, H, W) → (B, C_out, H/2, W/2)."""
        x = self.norm(x)
        if self.image is not None:
            x = torch.cat([self.image(image), x], dim=1)
        return cast(Tensor, self.transformer(max_pool2d(self.dropout(self.body(x)), 2)))


class DecoderBlock(nn.Module):
    """Layer norm, doubling (nearest) and 3×3 convolution with ReLU, the skip, two 3×3 convolutions
    with ReLU, transformer: (B, C_in, H, W) and (B, C_out, 2H, 2W) → (B, C_out, 2H, 2W).
    """

    def __init__(self, in_channels: int, out_channels: int, rates: tuple[float, float]) -> None:
        super().__init__()
        self.norm = PixelNorm(in_channels)
        self.up = nn.Sequential(NearestUpsampledConv2d(in_channels, out_channels), relu())
        self.body = _two_convolutions(2 * out_channels, out_channels)
        self.dropout = nn.Dropout(rates[0])
        self.transformer = ConvolutionalTransformer(out_channels, rates[1])

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """(B, C_in, H, W) and the skip (B, C_out, 2H, 2W) → (B, C_out, 2H, 2W)."""
        x = self.body(torch.cat([skip, self.up(self.norm(x))], dim=1))
        return cast(Tensor, self.transformer(self.dropout(x)))


class FCT(SegmentationNetwork):
    """Five encoder blocks, each of which halves the map, four decoder blocks, and a head that
    doubles the last map. The second to the fourth block also read the image, averaged down.

    With one image channel the first block's layer norm returns its bias whatever the image is, so
    that the image enters through the averaged copies alone and nothing finer than 2×2 pixels is
    seen: so it is in the released code. With more channels the norm keeps their ratios.

    Auxiliary outputs: `deep-1` and `deep-2`, the logits of the heads at a quarter and half of the
    image's size. Attention compares all pixels of a map, at half of the image's size too: its cost
    grows with the square of the number of pixels.

    Args:
        in_channels: channels of an image.
        classes: channels of the logits.
        width: channels of the first block; each further one has twice as many (released: 8).
        dropout: rate behind the convolutions of each block, in training.
        focus_dropout: rate behind each convolution of the wide focus, in training.

    Raises:
        UsageError: a width below 1.
    """

    def __init__(
        self,
        in_channels: int = 3,
        classes: int = 1,
        *,
        width: int = 8,
        dropout: float = 0.3,
        focus_dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if width < 1:
            raise UsageError(
                "creating the network 'fct'", expected="width at least 1", found=f"width={width}"
            )
        widths = [width * 2**level for level in range(LEVELS)]
        rates = (dropout, focus_dropout)
        self.in_channels, self.classes = in_channels, classes
        self.stride = self.divisor = self.smallest = 2**LEVELS
        self.channels = {
            "skips": tuple(widths[:-1]),
            "bottleneck": (widths[-1],),
            "decoder": (width,),
            "output": (classes,),
        }
        self.encoder = nn.ModuleList(
            EncoderBlock(before, after, rates, in_channels if 1 <= level <= SCALED else 0)
            for level, (before, after) in enumerate(
                zip([in_channels, *widths], widths, strict=False)
            )
        )
        upward = list(reversed(widths[:-1]))
        self.decoder = nn.ModuleList(DecoderBlock(2 * after, after, rates) for after in upward)
        # Of the last three decoder blocks, from coarse to fine.
        self.heads = nn.ModuleList(_Head(channels, classes) for channels in upward[1:])

    def encode(self, x: Tensor, **inputs: Tensor) -> Features:
        """(B, C, H, W) → skips at strides 2, 4, 8, 16 and the bottleneck at 32."""
        self.check_image(x, **inputs)
        image, maps = x, []
        for level, block in enumerate(self.encoder):
            x = block(x, image)
            maps.append(x)
            if level < SCALED:
                image = avg_pool2d(image, 2)
        return Features(skips=tuple(maps[:-1]), bottleneck=maps[-1], extra={})

    def decode(self, features: Features) -> Decoded:
        """Features → the map (B, width, H / 2, W / 2) before the head; in `extra` the maps of the
        auxiliary outputs.
        """
        x, maps = features.bottleneck, []
        for block, skip in zip(self.decoder, reversed(features.skips), strict=True):
            x = block(x, skip)
            maps.append(x)
        return Decoded(map=x, extra=dict(zip(DEEP, maps[1:-1], strict=True)))

    def head(self, decoded: Decoded, size: Size, auxiliary: bool) -> Output:
        """The last map → logits (B, classes, H, W)."""
        *deep, last = self.heads
        outputs = {
            name: interpolate(
                head(decoded.extra[name]), size=size, mode="bilinear", align_corners=False
            )
            for name, head in zip(DEEP if auxiliary else (), deep, strict=False)
        }
        return Output(logits=last(decoded.map), auxiliary=outputs)

    def released_names(self) -> ReleasedNames:
        """Names of the authors' PyTorch code: block_1 … block_9, ds7 … ds9."""
        prefixes = {}

        def transformer(ours: str, theirs: str) -> None:
            attention = f"{theirs}attention_output."
            prefixes[f"{ours}attention."] = f"{attention}attention."
            for i, name in enumerate("qkv"):
                projection = f"{ours}attention.projections.{i}"
                prefixes[f"{projection}.0."] = f"{attention}conv_{name}."
                prefixes[f"{projection}.2."] = f"{attention}layernorm_{name}."
            prefixes[f"{ours}convolution."] = f"{theirs}conv1."
            prefixes[f"{ours}norm."] = f"{theirs}layernorm."
            for i in range(3):
                prefixes[f"{ours}focus.branches.{i}.0."] = f"{theirs}wide_focus.conv{i + 1}."
            prefixes[f"{ours}focus.join.0."] = f"{theirs}wide_focus.conv4."

        for number, block in enumerate((*self.encoder, *self.decoder), start=1):
            encoding = number <= LEVELS
            ours = f"encoder.{number - 1}." if encoding else f"decoder.{number - LEVELS - 1}."
            theirs = f"block_{number}."
            before = not encoding or block.image is not None
            prefixes[f"{ours}norm."] = f"{theirs}layernorm."
            prefixes[f"{ours}{'image' if encoding else 'up'}.0."] = f"{theirs}conv1."
            for i in range(2):
                prefixes[f"{ours}body.{2 * i}."] = f"{theirs}conv{i + 1 + before}."
            transformer(f"{ours}transformer.", f"{theirs}trans.")
        for i in range(len(self.heads)):
            ours, theirs = f"heads.{i}.", f"ds{i + 7}."
            prefixes[f"{ours}norm."] = f"{theirs}layernorm."
            for k, name in enumerate(("up.0", "body.0", "body.2")):
                prefixes[f"{ours}{name}."] = f"{theirs}conv{k + 1}."
        return names_by_prefix(self, prefixes)


class _Head(nn.Module):
    """Layer norm, doubling (nearest), two 3×3 convolutions with ReLU and one to the classes: (B, C,
    H, W) → (B, classes, 2H, 2W). The released code doubles first; each pixel's norm is the same.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.norm = PixelNorm(channels)
        self.up = nn.Sequential(NearestUpsampledConv2d(channels, channels), relu())
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            relu(),
            nn.Conv2d(channels, classes, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.body(self.up(self.norm(x))))


def _two_convolutions(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1),
        relu(),
        nn.Conv2d(out_channels, out_channels, 3, padding=1),
        relu(),
    )
