"""TMUNet: a ResNet U-Net and a transformer of patches, which says where in the image to look."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, interpolate, scaled_dot_product_attention

from segweave.author_weights import ReleasedNames, names_by_prefix
from segweave.backbones.positions import resized
from segweave.backbones.resnet import RESNET50, resnet_stages
from segweave.blocks.conv_norm import ConvNorm, DoubleConvolution, relu
from segweave.blocks.squeeze_excitation import SqueezeExcitation
from segweave.errors import UsageError
from segweave.networks.base import Decoded, Features, Output, SegmentationNetwork, Size
from segweave.registry import NetworkCard

STRIDE = 32
HALVINGS = 3
"""Poolings of the small network that reads a patch."""

CARD = NetworkCard(
    name="tmunet",
    title="TMUNet (ResNet-50 U-Net with a transformer of patches)",
    entry="TMUNet",
    forms=("paper", "released"),
    paper="Azad et al., Contextual Attention Network: Transformer Meets U-Net, MLMI 2022 (arXiv "
    "2203.01932)",
    licence="none stated",
    divisor=32,
    smallest=32,
    positions={
        "skips": "the ResNet's maps at strides 2 to 16; the image, which the last step joins too, "
        "is not among them",
        "bottleneck": "the ResNet's map at stride 32, before the two convolutions of the bridge",
        "decoder": "the U-Net's last map at the image's size, before the contextual attention; the "
        "transformer of patches reads the centre slice alone",
    },
    weights=(
        {
            "tag": "imagenet",
            "source": "resnet50.tv_in1k",
            "licence": "BSD-3-Clause",
            "mean": (0.485, 0.456, 0.406),
            "sd": (0.229, 0.224, 0.225),
        },
    ),
    tiny_options={
        "encoder": "test_resnet",
        "width": 4,
        "hidden": 8,
        "layers": 1,
        "heads": 2,
        "patch_size": 8,
    },
)


class PatchBlock(nn.Module):
    """x + attention of LN(x), then that plus an MLP (GELU, four times wider) of another LN: (B, N,
    C) → (B, N, C).

    The scores of the attention are not scaled; its weights are divided by √C instead. Query, key
    and value of a channel are neighbours in the output of one linear map.
    """

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.qkv = nn.Linear(hidden, 3 * hidden)
        self.projection = nn.Linear(hidden, hidden)
        self.fc1 = nn.Linear(hidden, 4 * hidden)
        self.fc2 = nn.Linear(4 * hidden, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) → (B, N, C)."""
        batch, count, hidden = x.shape
        joined = self.qkv(self.norm1(x)).reshape(batch, count, self.heads, -1, 3)
        query, key, value = joined.permute(4, 0, 2, 1, 3).contiguous()
        mixed = scaled_dot_product_attention(query, key, value, scale=1.0)
        mixed = mixed.transpose(1, 2).reshape(x.shape) / hidden**0.5
        x = x + self.projection(mixed)
        return x + cast(Tensor, self.fc2(gelu(self.fc1(self.norm2(x)))))


class PatchTransformer(nn.Module):
    """A small network turns each patch into one vector; a class token and learned positions are
    added, and transformer blocks follow (Section 2.1): (B, C, H, W) → tokens (B, 1 + H · W / P²,
    hidden).

    Args:
        in_channels: channels of an image.
        hidden: channels of a token, divisible by 4.
        layers: number of blocks.
        heads: heads of the attention.
        patch_size: P, a multiple of 8.
        grid: rows and columns of the table of positions, which is interpolated for others.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        hidden: int,
        layers: int,
        heads: int,
        patch_size: int,
        grid: Size,
    ) -> None:
        super().__init__()
        self.patch_size, self.grid = patch_size, grid
        steps = pairwise((in_channels, hidden // 4, hidden // 2, hidden))
        self.embedding = nn.Sequential(
            *(
                nn.Sequential(DoubleConvolution(before, after), nn.MaxPool2d(2))
                for before, after in steps
            )
        )
        self.class_token = nn.Parameter(torch.randn(1, 1, hidden))
        self.positions = nn.Parameter(torch.randn(1 + grid[0] * grid[1], hidden))
        self.blocks = nn.Sequential(*(PatchBlock(hidden, heads) for _ in range(layers)))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, 1 + H · W / P², hidden), the class token first."""
        batch, channels, height, width = x.shape
        side = self.patch_size
        size = (height // side, width // side)
        patches = x.reshape(batch, channels, size[0], side, size[1], side)
        patches = patches.permute(0, 2, 4, 1, 3, 5).reshape(-1, channels, side, side)
        tokens = self.embedding(patches).mean(dim=(2, 3)).reshape(batch, size[0] * size[1], -1)
        tokens = torch.cat([self.class_token.expand(batch, -1, -1), tokens], dim=1)
        table = self.positions[None]
        if size != self.grid:
            rest = resized(table[:, 1:], self.grid, size)
            table = torch.cat([table[:, :1], rest], dim=1)
        return cast(Tensor, self.blocks(tokens + table))


class TMUNet(SegmentationNetwork):
    """The U-Net's last map x gives a boundary map and, by squeeze and excitation, weights s of its
    channels. The tokens of the patches give a context map (64 channels) and a region map (one
    channel), each constant over a patch. A 1×1 convolution of the context map and of
    (weighted + boundary) · region gives the logits.

    Form paper weights the channels: weighted = s · x. In form released weighted is s itself, one
    number per channel, so that all detail of the U-Net reaches the mask through the boundary map.
    Both have the same parameters.

    Position (i, j) of the grid of patches shows token i · columns + j of a sequence that begins
    with the class token: the maps are shifted by one patch, and the last token is lost.

    Auxiliary outputs, with one channel each: `boundary` and `region`, the logits of these maps.
    The authors' loss compares the region's probabilities with each patch's share of foreground,
    divided by the largest share.

    Args:
        in_channels: channels of an image.
        classes: channels of the logits.
        form: "paper" or "released".
        encoder: a timm name of a ResNet.
        encoder_options: further options of `timm.create_model`.
        width: channels of the U-Net's last map and of the context map (released: 64).
        hidden: channels of a token (released: 512), divisible by 4.
        layers: number of transformer blocks.
        heads: heads of the attention, a divisor of `hidden`.
        patch_size: height and width of a patch: 8, 16 or 32.
        image_size: side, or height and width, of the image for which the position table is kept; it
            is interpolated for others.

    Raises:
        MissingExtraError: timm is not installed.
        UsageError: another form, a backbone that is not a ResNet, or options that do not fit.
    """

    def __init__(
        self,
        in_channels: int = 3,
        classes: int = 1,
        *,
        form: str = "released",
        encoder: str = RESNET50,
        encoder_options: Mapping[str, Any] | None = None,
        width: int = 64,
        hidden: int = 512,
        layers: int = 4,
        heads: int = 8,
        patch_size: int = 16,
        image_size: int | Size = 256,
    ) -> None:
        super().__init__()
        size = (image_size, image_size) if isinstance(image_size, int) else image_size
        _check_options(form, width, hidden, heads, patch_size, size)
        self.form = form
        self.in_channels, self.classes = in_channels, classes
        self.stride = self.divisor = self.smallest = STRIDE
        self.encoder, widths = resnet_stages(encoder, in_channels, encoder_options, levels=range(5))
        self.backbones = {"encoder": encoder}
        *skips, deep = widths
        self.channels = {
            "skips": tuple(skips),
            "bottleneck": (deep,),
            "decoder": (width,),
            "output": (classes,),
        }
        self.bridge = DoubleConvolution(deep, deep)
        # Each step halves the channels, but the last two, which join the stem's map and the image.
        outward = (deep, *(deep // 2**i for i in range(1, 4)), 2 * width, width)
        joined = (*(deep // 2**i for i in range(1, 4)), 2 * width, width)
        self.upsampling = nn.ModuleList(
            nn.ConvTranspose2d(before, after, 2, stride=2)
            for before, after in zip(outward, joined, strict=False)
        )
        self.decoder = nn.ModuleList(
            DoubleConvolution(up + skip, after)
            for up, skip, after in zip(
                joined, (*reversed(skips), in_channels), outward[1:], strict=True
            )
        )
        self.patches = PatchTransformer(
            in_channels,
            hidden=hidden,
            layers=layers,
            heads=heads,
            patch_size=patch_size,
            grid=(size[0] // patch_size, size[1] // patch_size),
        )
        self.context = ConvNorm(hidden, width, 1, bias=True)
        self.boundary = nn.Sequential(
            *ConvNorm(width, width // 2, 1, bias=True, activation=relu),
            nn.Conv2d(width // 2, 1, 1, bias=False),
        )
        self.excitation = SqueezeExcitation(width, max(1, width // 16))
        self.classifier = nn.Conv2d(2 * width, classes, 1)

    def encode(self, x: Tensor, **inputs: Tensor) -> Features:
        """(B, C, H, W) → the ResNet's maps at strides 2, 4, 8, 16 and 32, and the image."""
        self.check_image(x, **inputs)
        *skips, bottleneck = self.encoder(x)
        return Features(skips=tuple(skips), bottleneck=bottleneck, extra={"image": x})

    def decode(self, features: Features) -> Decoded:
        """Features → the U-Net's last map (B, width, H, W), and the image."""
        image = features.extra["image"]
        x = self.bridge(features.bottleneck)
        for up, block, skip in zip(
            self.upsampling, self.decoder, (*reversed(features.skips), image), strict=True
        ):
            x = block(torch.cat([up(x), skip], dim=1))
        return Decoded(map=x, extra={"image": image})

    def head(self, decoded: Decoded, size: Size, auxiliary: bool) -> Output:
        """The last map, and the tokens of the image's patches → logits (B, classes, H, W)."""
        side = self.patches.patch_size
        grid = (size[0] // side, size[1] // side)
        tokens = self.patches(decoded.extra["image"])
        return self.attended(decoded.map, tokens, grid, auxiliary)

    def attended(self, x: Tensor, tokens: Tensor, grid: Size, auxiliary: bool) -> Output:
        """Contextual attention (Section 2.3).

        Args:
            x: the U-Net's last map, (B, width, H, W).
            tokens: (B, 1 + rows · columns, hidden), the class token first.
            grid: rows and columns.
            auxiliary: whether the auxiliary outputs are wanted.
        """
        shifted = tokens[:, :-1].transpose(1, 2).reshape(tokens.shape[0], -1, *grid)
        # A 1×1 convolution gives the same before the values are repeated. The batch norm behind it
        # counts the values for its running variance, so that it reads the repeated ones.
        mix, norm = self.context
        context = norm(self._spread(mix(shifted))).sigmoid()
        region = self._spread(shifted.mean(dim=1, keepdim=True))
        boundary = self.boundary(x)
        weighted = self.excitation(x) if self.form == "paper" else self.excitation.weights(x)
        attended = (weighted + boundary.sigmoid()) * region.sigmoid()
        logits = self.classifier(torch.cat([attended, context], dim=1))
        outputs = {"boundary": boundary, "region": region}
        return Output(logits=logits, auxiliary=outputs if auxiliary else {})

    def _spread(self, x: Tensor) -> Tensor:
        """One value per patch → one value per pixel."""
        return interpolate(x, scale_factor=self.patches.patch_size, mode="nearest")

    def released_names(self) -> ReleasedNames:
        """Names of the authors' code (rezazad68/TMUnet, its class TransMUNet)."""
        prefixes = {
            "encoder.conv1.": "input_block.0.",
            "encoder.bn1.": "input_block.1.",
            "patches.class_token": "transformer.0.cls_token",
            "patches.positions": "transformer.0.positions",
            "context.": "transformer.2.outconv.",
            "boundary.": "boundary.",
            "excitation.fc.": "se.excitation.",
            "classifier.": "out.",
        }
        prefixes |= {f"encoder.layer{i + 1}.": f"down_blocks.{i}." for i in range(4)}

        def double(ours: str, first: str, second: str) -> None:
            for i, theirs in ((0, first), (3, second)):
                prefixes[f"{ours}{i}."] = f"{theirs}.conv."
                prefixes[f"{ours}{i + 1}."] = f"{theirs}.bn."

        double("bridge.", "bridge.bridge.0", "bridge.bridge.1")
        for i in range(len(self.decoder)):
            theirs = f"up_blocks.{i}"
            prefixes[f"upsampling.{i}."] = f"{theirs}.upsample."
            double(f"decoder.{i}.", f"{theirs}.conv_block_1", f"{theirs}.conv_block_2")
        for i in range(HALVINGS):
            embedding = f"transformer.0.projection.2.conv{i + 1}.double_conv."
            prefixes[f"patches.embedding.{i}.0."] = embedding
        for i in range(len(self.patches.blocks)):
            ours, theirs = f"patches.blocks.{i}.", f"transformer.1.{i}."
            prefixes[f"{ours}norm1."] = f"{theirs}0.fn.0."
            prefixes |= {f"{ours}{n}.": f"{theirs}0.fn.1.{n}." for n in ("qkv", "projection")}
            prefixes[f"{ours}norm2."] = f"{theirs}1.fn.0."
            prefixes[f"{ours}fc1."] = f"{theirs}1.fn.1.0."
            prefixes[f"{ours}fc2."] = f"{theirs}1.fn.1.3."
        return names_by_prefix(self, prefixes)


def _check_options(
    form: str, width: int, hidden: int, heads: int, patch_size: int, size: Size
) -> None:
    doing = "creating the network 'tmunet'"
    if form not in ("paper", "released"):
        raise UsageError(doing, expected="form paper or released", found=repr(form))
    if width < 2 or hidden < 4 or hidden % 4 or heads < 1 or hidden % heads:
        raise UsageError(
            doing,
            expected="a width of at least 2, and a hidden that 4 and heads divide",
            found=f"width={width}, hidden={hidden}, heads={heads}",
        )
    if patch_size not in (8, 16, 32):
        raise UsageError(doing, expected="a patch_size of 8, 16 or 32", found=str(patch_size))
    if min(size) < patch_size or any(side % patch_size for side in size):
        raise UsageError(
            doing,
            expected=f"an image_size that the patch_size, {patch_size}, divides",
            found=f"image_size={size}",
        )
