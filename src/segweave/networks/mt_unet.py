"""MT-UNet as its authors' code computes it, with the two options that the LSTMSA code adds."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from segweave.author_weights import ReleasedNames
from segweave.blocks.conv_norm import ConvNorm, ResidualDoubleConvolution, relu
from segweave.blocks.mixed_attention import HEADS, MixedStage
from segweave.errors import UsageError
from segweave.networks.base import Decoded, Features, Output, SegmentationNetwork, Size
from segweave.registry import NetworkCard

CARD = NetworkCard(
    name="mt-unet",
    title="MT-UNet (mixed transformer UNet)",
    entry="MTUNet",
    paper="Wang et al., Mixed Transformer U-Net for Medical Image Segmentation, ICASSP 2022",
    divisor=32,
    smallest=64,
    tiny_options={"width": 2},
)

POSITIONS = 28
"""Side of the grid on which the position table is kept (an image of 224×224)."""


class MTUNet(SegmentationNetwork):
    """Convolutions down to stride 8, mixed attention blocks at strides 8, 16 and 32, and back.

    `width` is the number of channels of the first stage (released: 64); the bottleneck has sixteen
    times as many. An image with one channel is repeated to three. The position table belongs to
    28×28 positions (224×224 pixels) and is interpolated for other sizes.

    `skip_mlp` puts two linear layers behind the head (the released `use_skip_connections_and_MLP`,
    which has no skip connection) and needs `classes` = `width`. `residual_scaling` makes the output
    half the logits and half the image (the released `use_depth_dependent_residual_scaling`, whose
    factor depends on no depth) and needs an image of one channel, or of as many as `classes`.
    Raises UsageError for a width that is not an even number and for options that do not fit.
    """

    def __init__(
        self,
        in_channels: int = 3,
        classes: int = 1,
        *,
        width: int = 64,
        skip_mlp: bool = False,
        residual_scaling: bool = False,
    ) -> None:
        super().__init__()
        _check_options(in_channels, classes, width, skip_mlp, residual_scaling)
        stem = (width, 2 * width, 4 * width)
        tokens = (4 * width, 8 * width)
        deepest = 16 * width
        self.in_channels, self.classes = in_channels, classes
        self.stride, self.divisor, self.smallest = 32, 32, 64
        self.residual_scaling = residual_scaling
        self.channels = {
            "skips": (*stem, *tokens),
            "bottleneck": (deepest,),
            "decoder": (width,),
            "output": (classes,),
        }
        first = 3 if in_channels == 1 else in_channels
        self.stem = nn.ModuleList(
            ResidualDoubleConvolution(before, after)
            for before, after in zip((first, *stem), stem, strict=False)
        )
        self.pool = nn.MaxPool2d(2)
        self.projection = _convolution(stem[-1], tokens[0], kernel=1)
        self.positions = nn.Parameter(torch.zeros(1, POSITIONS * POSITIONS, tokens[0]))
        self.encoder = nn.ModuleList(MixedStage(channels) for channels in tokens)
        self.downsampling = nn.ModuleList(
            _convolution(channels, 2 * channels, kernel=2) for channels in tokens
        )
        self.bottleneck = MixedStage(deepest)
        self.upsampling = nn.ModuleList(_upsampling(c) for c in (deepest, 8 * width))
        # The released decoder reduces the channels after its first join only.
        self.reduction = nn.ModuleList([nn.Conv2d(deepest, 8 * width, 1), nn.Identity()])
        self.decoder = nn.ModuleList(MixedStage(8 * width) for _ in range(2))
        self.stem_upsampling = nn.ModuleList(_upsampling(2 * c) for c in reversed(stem))
        self.stem_decoder = nn.ModuleList(
            ResidualDoubleConvolution(2 * c, c) for c in reversed(stem)
        )
        self.classifier = nn.Conv2d(width, classes, 1)
        self.mlp = (
            nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, classes))
            if skip_mlp
            else None
        )

    def encode(self, x: Tensor, **inputs: Tensor) -> Features:
        """(B, C, H, W) → skips at strides 1, 2, 4, 8, 16 and the bottleneck at 32. Raises
        UsageError for a wrong number of channels and for sides that are not multiples of 32 or
        below 64.
        """
        self.check_image(x, **inputs)
        extra = {"image": x} if self.residual_scaling else {}
        if self.in_channels == 1:
            x = x.expand(-1, 3, -1, -1)
        skips = []
        for block in self.stem:
            x = block(x)
            skips.append(x)
            x = self.pool(x)
        x = self.projection(x)
        x = x + self._position_map(x)
        for stage, down in zip(self.encoder, self.downsampling, strict=True):
            x = stage(x)
            skips.append(x)
            x = down(x)
        return Features(skips=tuple(skips), bottleneck=self.bottleneck(x), extra=extra)

    def decode(self, features: Features) -> Decoded:
        """Features → the map (B, width, H, W) before the head."""
        x = features.bottleneck
        depth = len(self.stem)
        for up, reduce, stage, skip in zip(
            self.upsampling,
            self.reduction,
            self.decoder,
            reversed(features.skips[depth:]),
            strict=True,
        ):
            x = stage(reduce(torch.cat([up(x), skip], dim=1)))
        for up, block, skip in zip(
            self.stem_upsampling, self.stem_decoder, reversed(features.skips[:depth]), strict=True
        ):
            x = block(torch.cat([skip, up(x)], dim=1))
        return Decoded(map=x, extra=features.extra)

    def head(self, decoded: Decoded, size: Size, auxiliary: bool) -> Output:
        """The last map, which has the image's size already → logits (B, classes, H, W)."""
        logits = self.classifier(decoded.map)
        if self.mlp is not None:
            logits = self.mlp(logits.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        if self.residual_scaling:
            logits = 0.5 * logits + 0.5 * decoded.extra["image"]
        return Output(logits=logits, auxiliary={})

    def _position_map(self, x: Tensor) -> Tensor:
        # The table as a map of the size of x.
        table = self.positions.transpose(1, 2).reshape(1, -1, POSITIONS, POSITIONS)
        size = (x.shape[-2], x.shape[-1])
        if size == (POSITIONS, POSITIONS):
            return table
        return functional.interpolate(table, size=size, mode="bilinear", align_corners=False)

    def released_names(self) -> ReleasedNames:
        """Names of MT-UNet's code (Dootmaan/MT-UNet and the copies in SALSTM and LSTMSA)."""
        prefixes = {
            "positions": "stem.position_embedding",
            "projection.0.": "stem.trans_dim.conv.",
            "projection.1.": "stem.trans_dim.bn.",
            "reduction.0.": "decoder.0.block.1.",
            "classifier.": "SegmentationHead.",
            "mlp.": "mlp.",
        }
        for i in range(3):
            prefixes |= _below(f"stem.{i}.", f"stem.model.res{i + 1}.", _RESIDUAL_NAMES)
            prefixes |= _below(
                f"stem_decoder.{i}.", f"decoder_stem.block.res{i + 1}.", _RESIDUAL_NAMES
            )
            prefixes[f"stem_upsampling.{i}."] = f"decoder_stem.block.trans{i + 1}."
        stages = {}
        for i in range(2):
            prefixes[f"downsampling.{i}.0."] = f"encoder.{i}.block.2.conv."
            prefixes[f"downsampling.{i}.1."] = f"encoder.{i}.block.2.bn."
            prefixes[f"upsampling.{i}."] = f"decoder.{i}.block.0."
            for block in range(2):
                stages[f"encoder.{i}.{block}."] = f"encoder.{i}.block.{block}."
                stages[f"decoder.{i}.{block}."] = f"decoder.{i}.block.{2 - i + block}."
            stages[f"bottleneck.{i}."] = f"bottleneck.{i}."
        for ours, theirs in stages.items():
            prefixes |= _below(ours, theirs, _MIXED_NAMES)
        tensors = {
            name: theirs + name.removeprefix(ours)
            for name in self.state_dict()
            for ours, theirs in prefixes.items()
            if name.startswith(ours)
        }
        dead = frozenset(theirs + leaf for theirs in stages.values() for leaf in _DEAD)
        return ReleasedNames(tensors=tensors, dead=dead)


_RESIDUAL_NAMES = {
    "body.0.": "conv.0.conv.",
    "body.1.": "conv.0.bn.",
    "body.3.": "conv.1.conv.",
    "body.4.": "conv.1.bn.",
    "mix.0.": "conv1.",
    "mix.1.": "bn.",
}
_MIXED_NAMES = {
    "local_norm.": "SlayerNorm.",
    "external_norm.": "ElayerNorm.",
    "local_global.window_query.": "CSAttention.win_atten.attention.query_layer.",
    "local_global.window_key.": "CSAttention.win_atten.attention.key_layer.",
    "local_global.window_value.": "CSAttention.win_atten.attention.value_layer.",
    "local_global.window_output.": "CSAttention.win_atten.attention.out.",
    "local_global.token_weights.": "CSAttention.dlightconv.linear.",
    "local_global.axis_query.": "CSAttention.global_atten.query_layer.",
    "local_global.axis_key.": "CSAttention.global_atten.key_layer.",
    "local_global.axis_value.": "CSAttention.global_atten.value_layer.",
    "local_global.decay": "CSAttention.gaussiantrans.shift",
    "local_global.join.": "CSAttention.queeze.",
    "external.query.": "EAttention.query_liner.",
    "external.to_slots.": "EAttention.linear_0.",
    "external.from_slots.": "EAttention.linear_1.",
    "external.output.": "EAttention.proj.",
}
# No output depends on these: the first two are never called, the third cancels in a softmax.
_DEAD = (
    "CSAttention.global_atten.out.weight",
    "CSAttention.global_atten.out.bias",
    "CSAttention.gaussiantrans.bias",
)


def _below(ours: str, theirs: str, names: dict[str, str]) -> dict[str, str]:
    return {ours + leaf: theirs + released for leaf, released in names.items()}


def _convolution(in_channels: int, out_channels: int, *, kernel: int) -> ConvNorm:
    # Kernel = stride, batch norm, ReLU.
    return ConvNorm(in_channels, out_channels, kernel, stride=kernel, padding=0, activation=relu)


def _upsampling(channels: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(channels, channels // 2, 2, stride=2)


def _check_options(
    in_channels: int, classes: int, width: int, skip_mlp: bool, residual_scaling: bool
) -> None:
    doing = "creating an MT-UNet"
    if width < 2 or 4 * width % HEADS:
        raise UsageError(doing, expected="an even width of at least 2", found=f"width={width}")
    if skip_mlp and classes != width:
        raise UsageError(
            doing,
            expected=f"with skip_mlp, as many outputs as the width ({width}): the first linear "
            "layer reads the head's outputs",
            found=f"classes={classes}",
            remedy=f"set classes={width} and put a context module at position output behind it",
        )
    if residual_scaling and in_channels not in (1, classes):
        raise UsageError(
            doing,
            expected="with residual_scaling, an image of one channel (or as many as classes), "
            "since it is added to each output",
            found=f"in_channels={in_channels}, classes={classes}",
            remedy="use grey images, or omit residual_scaling",
        )
