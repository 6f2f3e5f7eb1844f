"""LeViT: a convolution stem and three stages of attention whose linear layers have batch norms."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from segweave.author_weights import ReleasedNames
from segweave.blocks.conv_norm import ConvNorm
from segweave.blocks.linear_norm import LinearNorm
from segweave.blocks.stochastic_depth import StochasticDepth

Grid = tuple[int, int]
"""Rows and columns of tokens."""

STRIDE = 16
"""The stem's stride: the first stage has one token for 16×16 pixels."""


def _below(ours: str, theirs: str, names: dict[str, str]) -> dict[str, str]:
    return {ours + leaf: theirs + timm for leaf, timm in names.items()}


_NORM = {"0.": "linear.", "1.": "bn."}
_MLP = _below("0.", "ln1.", _NORM) | _below("2.", "ln2.", _NORM)
_OUTPUT = {"biases": "attention_biases"} | _below("output.", "proj.ln.", _NORM)
_ATTENTION = _OUTPUT | _below("query_key_value.", "qkv.", _NORM)
_SHRINKING = _OUTPUT | _below("key_value.", "kv.", _NORM) | _below("query.", "q.ln.", _NORM)


class LeViT(nn.Module):
    """The stem's four maps (B, C, H/2, W/2) to (B, C, H/16, W/16) and the maps of three stages; the
    grid of tokens is halved, rounded up, before the second and the third one.

    Graham et al., LeViT: a Vision Transformer in ConvNet's Clothing for Faster Inference, ICCV
    2021. It computes what timm's `levit_*` models compute, and its tensors are in their order. The
    bias of the attention is a table over absolute offsets that belongs to one size of the image;
    for other sizes it is interpolated.

    Args:
        in_channels: channels of an image.
        widths: channels of the stages; the first one is divisible by 8.
        heads: heads of the attention in the stages.
        depths: number of blocks in the stages.
        key_width: channels of a query or key per head; a value has twice as many.
        drop_path: rate of the stochastic depth.
        image_size: height and width for which the tables are kept.
    """

    def __init__(
        self,
        in_channels: int,
        widths: Sequence[int],
        heads: Sequence[int],
        depths: Sequence[int],
        *,
        key_width: int,
        drop_path: float,
        image_size: Grid,
    ) -> None:
        super().__init__()
        self.depths = tuple(depths)
        stem = [in_channels, *(widths[0] // n for n in (8, 4, 2, 1))]
        self.stem = nn.ModuleList(
            ConvNorm(before, after, 3, stride=2, activation=hardswish if i < 3 else None)
            for i, (before, after) in enumerate(pairwise(stem))
        )
        grid = (image_size[0] // STRIDE, image_size[1] // STRIDE)
        self.stages = nn.ModuleList()
        before = widths[0]
        for i, width in enumerate(widths):
            self.stages.append(
                Stage(before, width, heads[i], depths[i], key_width, drop_path, grid, i > 0)
            )
            grid = halved(grid) if i > 0 else grid
            before = width

    def released_names(self) -> ReleasedNames:
        """Names of timm's `levit_*` models."""
        prefixes: dict[str, str] = {}
        for i in range(4):
            prefixes |= _below(f"stem.{i}.", f"stem.conv{i + 1}.", _NORM)
        for i, depth in enumerate(self.depths):
            for j in range(depth):
                block = f"stages.{i}.blocks.{j}."
                prefixes |= _below(f"{block}attention.", f"{block}attn.", _ATTENTION)
                prefixes |= _below(f"{block}mlp.", f"{block}mlp.", _MLP)
            shrinking = f"stages.{i}.downsample."
            prefixes |= _below(f"{shrinking}mlp.", f"{shrinking}mlp.", _MLP)
            prefixes |= _below(shrinking, f"{shrinking}attn_downsample.", _SHRINKING)
        return ReleasedNames(
            {
                name: theirs + name.removeprefix(ours)
                for name in self.state_dict()
                for ours, theirs in prefixes.items()
                if name.startswith(ours)
            }
        )

    def forward(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """(B, C, H, W) → the four maps of the stem and the maps of the stages."""
        stem = []
        for layer in self.stem:
            x = layer(x)
            stem.append(x)
        stages = []
        grid = (int(x.shape[-2]), int(x.shape[-1]))
        tokens = x.flatten(2).transpose(1, 2)
        for stage in self.stages:
            tokens, grid = stage(tokens, grid)
            stages.append(tokens.transpose(1, 2).reshape(x.shape[0], -1, *grid))
        return stem, stages


class Stage(nn.Module):
    """Attention and MLP blocks on one grid, behind an attention that halves the grid if asked for:
    tokens (B, rows · columns, C_in) → (B, rows' · columns', C_out) and their grid.
    """

    def __init__(
        self,
        in_width: int,
        width: int,
        heads: int,
        depth: int,
        key_width: int,
        drop_path: float,
        grid: Grid,
        shrink: bool,
    ) -> None:
        super().__init__()
        self.downsample = Shrinking(in_width, width, key_width, drop_path, grid) if shrink else None
        grid = halved(grid) if shrink else grid
        self.blocks = nn.ModuleList(
            Block(width, heads, key_width, drop_path, grid) for _ in range(depth)
        )

    def forward(self, x: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
        """Tokens and their grid → the same after the stage."""
        if self.downsample is not None:
            x, grid = self.downsample(x, grid), halved(grid)
        index = offset_index(grid, 1, x.device)
        for block in self.blocks:
            x = block(x, grid, index)
        return x, grid


class Block(nn.Module):
    """x + attention(x), then that plus its MLP: (B, N, C) → (B, N, C)."""

    def __init__(
        self, width: int, heads: int, key_width: int, drop_path: float, grid: Grid
    ) -> None:
        super().__init__()
        self.attention = Attention(width, heads, key_width, grid)
        self.mlp = _mlp(width)
        self.drop_path = StochasticDepth(drop_path)

    def forward(self, x: Tensor, grid: Grid, index: Tensor) -> Tensor:
        """(B, N, C) → (B, N, C); `index` is `offset_index` of the grid."""
        x = x + self.drop_path(self.attention(x, grid, index))
        x = x + self.drop_path(self.mlp(x))
        return x


class Attention(nn.Module):
    """Self-attention with a learned bias for each absolute offset and a Hardswish before the
    output layer: (B, N, C) → (B, N, C).
    """

    def __init__(self, width: int, heads: int, key_width: int, grid: Grid) -> None:
        super().__init__()
        self.heads, self.key_width, self.grid = heads, key_width, grid
        self.biases = nn.Parameter(torch.zeros(heads, grid[0] * grid[1]))
        self.query_key_value = LinearNorm(width, 4 * key_width * heads)
        self.activation = nn.Hardswish()
        self.output = LinearNorm(2 * key_width * heads, width, start=0)

    def forward(self, x: Tensor, grid: Grid, index: Tensor) -> Tensor:
        """(B, N, C) → (B, N, C)."""
        joined, one = _heads(self.query_key_value(x), self.heads), self.key_width
        query, key, value = joined[..., :one], joined[..., one : 2 * one], joined[..., 2 * one :]
        mixed = _attend(query, key, value, _bias(self.biases, self.grid, grid, index))
        output: Tensor = self.output(self.activation(mixed))
        return output


class Shrinking(nn.Module):
    """Attention whose queries are every second token of every second row, without a residual, then
    x + its MLP: (B, N, C_in) → (B, about N/4, C_out). A value has four times a key's channels.
    """

    def __init__(
        self, in_width: int, width: int, key_width: int, drop_path: float, grid: Grid
    ) -> None:
        super().__init__()
        self.heads, self.key_width, self.grid = in_width // key_width, key_width, grid
        self.biases = nn.Parameter(torch.zeros(self.heads, grid[0] * grid[1]))
        self.key_value = LinearNorm(in_width, 5 * key_width * self.heads)
        self.query = LinearNorm(in_width, key_width * self.heads)
        self.activation = nn.Hardswish()
        self.output = LinearNorm(4 * key_width * self.heads, width)
        self.mlp = _mlp(width)
        self.drop_path = StochasticDepth(drop_path)

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        """(B, N, C_in) → (B, N', C_out)."""
        joined, one = _heads(self.key_value(x), self.heads), self.key_width
        key, value = joined[..., :one], joined[..., one:]
        chosen = x.reshape(x.shape[0], *grid, -1)[:, ::2, ::2].flatten(1, 2)
        query = _heads(self.query(chosen), self.heads)
        bias = _bias(self.biases, self.grid, grid, offset_index(grid, 2, x.device))
        x = self.output(self.activation(_attend(query, key, value, bias)))
        return x + self.drop_path(self.mlp(x))


def hardswish() -> nn.Module:
    """A Hardswish in place."""
    return nn.Hardswish(inplace=True)


def halved(grid: Grid) -> Grid:
    """The grid of every second row and column."""
    return (grid[0] + 1) // 2, (grid[1] + 1) // 2


def offset_index(grid: Grid, step: int, device: torch.device) -> Tensor:
    """(queries, keys): where a table of absolute offsets, |rows| · columns + |columns|, holds the
    bias of a pair. Keys are all tokens of the grid, queries those of every `step`-th row and
    column.
    """

    def distances(length: int) -> Tensor:
        positions = torch.arange(length, device=device)
        return (positions[::step, None] - positions).abs()

    rows, columns = distances(grid[0]), distances(grid[1])
    pairs = rows[:, None, :, None] * grid[1] + columns[None, :, None, :]
    return pairs.flatten(2).flatten(0, 1)


def _bias(table: Tensor, home: Grid, grid: Grid, index: Tensor) -> Tensor:
    # (heads, offsets) → (heads, queries, keys). Offset 0 stays offset 0 and the largest stays the
    # largest, hence aligned corners.
    if grid != home:
        table = functional.interpolate(
            table.reshape(1, -1, *home), size=grid, mode="bilinear", align_corners=True
        )[0].flatten(1)
    return table.index_select(1, index.flatten()).reshape(-1, *index.shape)


def _heads(x: Tensor, heads: int) -> Tensor:
    # (B, N, heads · C) → (B, heads, N, C)
    return x.reshape(*x.shape[:2], heads, -1).transpose(1, 2)


def _attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    # A value is wider than a key: the fused kernel of a CPU does not take that and gains nothing.
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(2, 3)
    mixed = (scores + bias).softmax(-1).to(value.dtype) @ value
    return mixed.transpose(1, 2).flatten(2)


def _mlp(width: int) -> nn.Sequential:
    return nn.Sequential(
        LinearNorm(width, 2 * width), hardswish(), LinearNorm(2 * width, width, start=0)
    )
