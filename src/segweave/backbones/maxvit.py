"""MaxViT on maps of any size that its strides divide, made of timm's layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from segweave.errors import MissingExtraError

STRIDE = 32
"""Stride of the last stage, whose map is one window."""


class MaxViT(nn.Module):
    """(B, C, H, W) → the maps of four stages at strides 4, 8, 16 and 32.

    Tu et al., MaxViT: Multi-Axis Vision Transformer, ECCV 2022, in timm's version whose attention
    takes the bias of a relative position from an MLP (`maxvit_rmlp_*`). A window, and the grid of
    the other attention, has 1/32 of the image's height and width, as in timm. There it is fixed at
    construction; here it follows the image, since the MLP has a bias for every position. The
    tensors have timm's names.

    Args:
        name: a timm name, `maxvit_rmlp_*`.
        in_channels: channels of an image.
        options: further ones of `timm.create_model`.

    Raises MissingExtraError where timm is not installed.
    """

    def __init__(self, name: str, in_channels: int, **options: Any) -> None:
        super().__init__()
        try:
            import timm
        except ImportError as error:
            raise MissingExtraError(
                f"creating the backbone {name!r}", library="timm", extra="zoo"
            ) from error
        if torch.empty(0).is_meta:
            # There are no numbers to draw, and drawing none takes timm seconds.
            options = {"weight_init": "", **options}
        model: Any = timm.create_model(
            name, pretrained=False, in_chans=in_channels, num_classes=0, **options
        )
        self.channels = tuple(int(info["num_chs"]) for info in model.feature_info[1:])
        self.stem = model.stem
        self.stages = model.stages
        for number, stage in enumerate(self.stages):
            windows = STRIDE // (4 * 2**number)
            for block in stage.blocks:
                block.attn_block = PartitionAttention(block.attn_block, windows, grid=False)
                block.attn_grid = PartitionAttention(block.attn_grid, windows, grid=True)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, C, H, W) → the maps of the stages, from shallow to deep."""
        x = self.stem(x)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


class PartitionAttention(nn.Module):
    """x + attention in each part of the map, then that plus an MLP: (B, H, W, C) → the same.

    The map is cut into `windows` × `windows` parts: neighbouring positions, or with `grid` every
    `windows`-th position of every `windows`-th row.

    Args:
        layer: timm's layer, whose parts are taken.
        windows: parts per side; it divides height and width.
        grid: whether a part is a grid over the whole map.
    """

    def __init__(self, layer: Any, windows: int, *, grid: bool) -> None:
        super().__init__()
        self.windows, self.grid = windows, grid
        self.norm1, self.attn, self.ls1 = layer.norm1, layer.attn, layer.ls1
        self.drop_path1, self.drop_path2 = layer.drop_path1, layer.drop_path2
        self.norm2, self.mlp, self.ls2 = layer.norm2, layer.mlp, layer.ls2

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → (B, H, W, C)."""
        x = x + self.drop_path1(self.ls1(self._attention(self.norm1(x))))
        result: Tensor = x + self.drop_path2(self.ls2(self.mlp(self.norm2(x))))
        return result

    def _attention(self, x: Tensor) -> Tensor:
        batch, height, width, channels = x.shape
        count = self.windows
        part = (height // count, width // count)
        if self.grid:
            shape, order = (part[0], count, part[1], count), (0, 2, 4, 1, 3, 5)
            back = (0, 3, 1, 4, 2, 5)
        else:
            shape, order = (count, part[0], count, part[1]), (0, 1, 3, 2, 4, 5)
            back = order
        parts = x.reshape(batch, *shape, channels).permute(order)
        parts = parts.reshape(-1, part[0] * part[1], channels)
        attention: Any = self.attn
        heads = attention.num_heads
        # timm keeps a head's query, key and value side by side.
        joined = attention.qkv(parts).reshape(*parts.shape[:2], heads, -1).transpose(1, 2)
        query, key, value = joined.chunk(3, dim=3)
        bias = relative_bias(attention.rel_pos.mlp, part, x)
        mixed = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=bias.to(query.dtype)
        )
        mixed = attention.proj(mixed.transpose(1, 2).reshape(parts.shape))
        return mixed.reshape(batch, count, count, *part, channels).permute(back).reshape(x.shape)


def relative_bias(mlp: nn.Module, part: Sequence[int], like: Tensor) -> Tensor:
    """(1, heads, positions, positions): the bias that `mlp` gives to each pair of positions of a
    part of `part` rows and columns, from sign(d) · log(1 + |d|) of their distances.
    """
    dtype = next(mlp.parameters()).dtype
    rows, columns = (torch.arange(1 - side, side, device=like.device).to(dtype) for side in part)
    grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), -1)
    table = mlp(grid.sign() * grid.abs().log1p()).flatten(0, 1)

    def differences(side: int) -> Tensor:
        positions = torch.arange(side, device=like.device)
        return positions[:, None] - positions + side - 1

    first, second = differences(part[0]), differences(part[1])
    index = first[:, None, :, None] * (2 * part[1] - 1) + second[None, :, None, :]
    length = part[0] * part[1]
    bias: Tensor = table.index_select(0, index.flatten()).reshape(length, length, -1)
    return bias.permute(2, 0, 1)[None]
