"""A ResNet with standardised weights and group norms, and a vision transformer on its last map: the
encoder "R50-ViT-B/16" as TransUNet's code computes it.

timm's `vit_base_r50_s16_224` has the same weights but pads at right and bottom only, normalises the
projections of the residual units in groups of channels and adds a class token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from segweave.author_weights import ReleasedNames, names_by_prefix
from segweave.backbones.positions import resized

GROUPS = 32
"""Groups of the group norms."""
STRIDE = 16
"""One token for 16×16 pixels."""
_EPS = 1e-6


class HybridViT(nn.Module):
    """(B, C, H, W) → the maps of the root and of the first two stages at strides 2, 4 and 8, and
    the tokens of the transformer as a map at stride 16.

    Dosovitskiy et al., An Image is Worth 16×16 Words, ICLR 2021 (hybrid architecture); Kolesnikov
    et al., Big Transfer, ECCV 2020 (ResNet). The max pooling has no padding, so that the first
    stage's map lacks one row and one column; zeros are added at the bottom and at the right.

    Args:
        in_channels: channels of an image.
        width: channels of the root, a multiple of 32; the stages have 4, 8 and 16 times as many.
        units: number of residual units in the stages.
        hidden: channels of a token.
        layers: number of transformer blocks.
        heads: heads of the attention.
        dropout: rate behind the position table and in the blocks' feed-forward parts.
        grid: rows and columns of the position table; it is interpolated for others.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        width: int,
        units: Sequence[int],
        hidden: int,
        layers: int,
        heads: int,
        dropout: float,
        grid: tuple[int, int],
    ) -> None:
        super().__init__()
        self.grid, self.units = grid, tuple(units)
        self.positions = nn.Parameter(torch.zeros(1, grid[0] * grid[1], hidden))
        self.root = nn.ModuleDict(
            {
                "conv": StandardisedConvolution(in_channels, width, 7, stride=2),
                "norm": nn.GroupNorm(GROUPS, width, eps=_EPS),
            }
        )
        self.stages = nn.ModuleList()
        before = width
        for i, count in enumerate(units):
            after = 4 * width * 2**i
            self.stages.append(
                nn.Sequential(
                    ResidualUnit(before, after, stride=2 if i else 1),
                    *(ResidualUnit(after, after, stride=1) for _ in range(count - 1)),
                )
            )
            before = after
        self.patches = nn.Conv2d(before, hidden, 1)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.Sequential(
            *(TransformerBlock(hidden, heads, dropout) for _ in range(layers))
        )
        self.norm = nn.LayerNorm(hidden, eps=_EPS)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, C, H, W) → four maps at strides 2, 4, 8 and 16."""
        quarter = (x.shape[-2] // 4, x.shape[-1] // 4)
        x = functional.relu(self.root["norm"](self.root["conv"](x)), inplace=True)
        maps = [x]
        x = functional.max_pool2d(x, 3, stride=2)
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        below, right = quarter[0] - maps[1].shape[-2], quarter[1] - maps[1].shape[-1]
        maps[1] = functional.pad(maps[1], (0, right, 0, below))
        x = self.patches(x)
        size = (int(x.shape[-2]), int(x.shape[-1]))
        tokens = x.flatten(2).transpose(1, 2) + self._position_table(size)
        tokens = self.norm(self.blocks(self.dropout(tokens)))
        maps[-1] = tokens.transpose(1, 2).reshape(x.shape)
        return maps

    def _position_table(self, size: tuple[int, int]) -> Tensor:
        if size == self.grid:
            return self.positions
        return resized(self.positions, self.grid, size)

    def released_names(self) -> ReleasedNames:
        """Names of timm's `vit_base_r50_s16_*`, after `adapted`."""
        prefixes = {
            "positions": "pos_embed",
            "root.": "patch_embed.backbone.stem.",
            "patches.": "patch_embed.proj.",
            "norm.": "norm.",
        }
        for i, count in enumerate(self.units):
            for j in range(count):
                ours, theirs = f"stages.{i}.{j}.", f"patch_embed.backbone.stages.{i}.blocks.{j}."
                prefixes[ours] = theirs
                prefixes[f"{ours}downsample."] = f"{theirs}downsample.conv."
                prefixes[f"{ours}downsample_norm."] = f"{theirs}downsample.norm."
        for i in range(len(self.blocks)):
            prefixes[f"blocks.{i}."] = f"blocks.{i}."
            prefixes[f"blocks.{i}.output."] = f"blocks.{i}.proj."
        return names_by_prefix(self, prefixes)

    def adapted(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Timm's weights with queries, keys and values apart, and with a position table of this
        grid without the class token's row; weights without them as they are.
        """
        result: dict[str, Tensor] = {}
        for name, tensor in weights.items():
            if ".attn.qkv." in name:
                for part, rows in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                    result[name.replace("attn.qkv", part)] = rows
            elif name == "pos_embed":
                side = int(tensor.shape[1] ** 0.5)
                result[name] = resized(tensor[:, -side * side :], (side, side), self.grid)
            else:
                result[name.replace(".attn.", ".").replace(".mlp.", ".")] = tensor
        return result


class StandardisedConvolution(nn.Conv2d):
    """A convolution without bias whose weight has mean 0 and variance 1 over all but the output
    channels; its padding keeps the size at stride 1.

    Qiao et al., Micro-Batch Training with Batch-Channel Normalization and Weight Standardization,
    arXiv 1903.10520.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, *, stride: int = 1):
        super().__init__(
            in_channels, out_channels, kernel, stride=stride, padding=kernel // 2, bias=False
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) → (B, C_out, h, w)."""
        return self._conv_forward(x, self._standardised(), None)

    def settled(self) -> nn.Conv2d:
        """A convolution with the standardised weight, for `fold_weights`."""
        channels, kernel = (self.in_channels, self.out_channels), self.weight.shape[-1]
        place = (self.stride[0], kernel // 2)
        plain = nn.Conv2d(*channels, kernel, *place, bias=False, device="meta")
        plain.weight = nn.Parameter(self._standardised().detach(), requires_grad=False)
        return plain

    def _standardised(self) -> Tensor:
        return functional.layer_norm(self.weight, list(self.weight.shape[1:]), eps=1e-5)


class ResidualUnit(nn.Module):
    """1×1, 3×3 (with the stride) and 1×1 convolution, each with a group norm, plus the input, then
    ReLU: (B, C_in, H, W) → (B, C_out, h, w). Where the shape changes the input is projected, and
    each of its channels normalised by itself.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int) -> None:
        super().__init__()
        inner = out_channels // 4
        self.conv1 = StandardisedConvolution(in_channels, inner, 1)
        self.norm1 = nn.GroupNorm(GROUPS, inner, eps=_EPS)
        self.conv2 = StandardisedConvolution(inner, inner, 3, stride=stride)
        self.norm2 = nn.GroupNorm(GROUPS, inner, eps=_EPS)
        self.conv3 = StandardisedConvolution(inner, out_channels, 1)
        self.norm3 = nn.GroupNorm(GROUPS, out_channels, eps=_EPS)
        projected = stride > 1 or in_channels != out_channels
        self.downsample = (
            StandardisedConvolution(in_channels, out_channels, 1, stride=stride)
            if projected
            else None
        )
        self.downsample_norm = nn.GroupNorm(out_channels, out_channels) if projected else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) → (B, C_out, h, w)."""
        y = functional.relu(self.norm1(self.conv1(x)), inplace=True)
        y = functional.relu(self.norm2(self.conv2(y)), inplace=True)
        y = self.norm3(self.conv3(y))
        if self.downsample is not None and self.downsample_norm is not None:
            x = self.downsample_norm(self.downsample(x))
        return functional.relu(x + y, inplace=True)


class TransformerBlock(nn.Module):
    """x + attention of LN(x), then that plus an MLP (GELU, four times wider) of another LN: (B, N,
    C) → (B, N, C).
    """

    def __init__(self, hidden: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(hidden, eps=_EPS)
        self.query = nn.Linear(hidden, hidden)
        self.key = nn.Linear(hidden, hidden)
        self.value = nn.Linear(hidden, hidden)
        self.output = nn.Linear(hidden, hidden)
        self.norm2 = nn.LayerNorm(hidden, eps=_EPS)
        self.fc1 = nn.Linear(hidden, 4 * hidden)
        self.fc2 = nn.Linear(4 * hidden, hidden)
        self.dropout = nn.Dropout(dropout)
        for layer in (self.fc1, self.fc2):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.normal_(layer.bias, std=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) → (B, N, C)."""
        normed = self.norm1(x)
        query, key, value = (
            layer(normed).reshape(*x.shape[:2], self.heads, -1).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        mixed = functional.scaled_dot_product_attention(query, key, value)
        x = x + self.output(mixed.transpose(1, 2).reshape(x.shape))
        inner = self.dropout(functional.gelu(self.fc1(self.norm2(x))))
        return x + self.dropout(self.fc2(inner))
