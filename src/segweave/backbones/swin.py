"""Stages of a Swin transformer on maps of any size."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from segweave.blocks.mlp import Mlp, start_linear
from segweave.blocks.stochastic_depth import StochasticDepth

WINDOW = 7
"""Side of the windows of the published models, if the map is not smaller."""
_APART = -100.0
"""What the published mask adds to the score of tokens that are no neighbours."""


class SwinStages(nn.Module):
    """`layers[i]` maps (B, H, W, C) → (B, H', W', C_i); all but the first begin with a patch
    merging that halves the map and doubles the channels.

    Liu et al., Swin Transformer, ICCV 2021. The tensors have the names of timm's `swin_*` models.

    Args:
        width: channels of the first stage.
        depths: number of blocks in the stages.
        heads: heads of the attention in the stages.
        drop_path: rates of the stochastic depth, one number per block.
    """

    def __init__(
        self, width: int, depths: Sequence[int], heads: Sequence[int], drop_path: Sequence[float]
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        rates = iter(drop_path)
        for i, depth in enumerate(depths):
            channels = width * 2**i
            merging = PatchMerging(channels // 2) if i > 0 else None
            blocks = [
                SwinBlock(channels, heads[i], shifted=bool(j % 2), drop_path=next(rates))
                for j in range(depth)
            ]
            self.layers.append(SwinStage(merging, blocks))
        self.apply(start_linear)


class SwinStage(nn.Module):
    """Patch merging, if there is one, and blocks: (B, H, W, C_in) → (B, H', W', C_out)."""

    def __init__(self, merging: nn.Module | None, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.downsample = merging
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C_in) → (B, H', W', C_out)."""
        x = x if self.downsample is None else self.downsample(x)
        result: Tensor = self.blocks(x)
        return result


class PatchMerging(nn.Module):
    """The four tokens of each 2×2 square joined, layer norm, linear map: (B, H, W, C) → (B, H/2,
    W/2, 2C), rounded up. The order of the four: top left, bottom left,
    top right, bottom right.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * channels)
        self.reduction = nn.Linear(4 * channels, 2 * channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → (B, H/2, W/2, 2C)."""
        x = functional.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        batch, height, width, channels = x.shape
        squares = x.reshape(batch, height // 2, 2, width // 2, 2, channels)
        joined = squares.permute(0, 1, 3, 4, 2, 5).flatten(3)
        merged: Tensor = self.reduction(self.norm(joined))
        return merged


class SwinBlock(nn.Module):
    """x + attention in windows of LN(x), then that plus an MLP of another LN: (B, H, W, C) → the
    same. In a `shifted` block the windows are moved by half a window.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        *,
        shifted: bool = False,
        drop_path: float = 0.0,
        window: int = WINDOW,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn = WindowAttention(channels, heads, shifted, window)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = Mlp(channels, 4 * channels)
        self.drop_path = StochasticDepth(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → (B, H, W, C)."""
        x = x + self.drop_path(self.attn(self.norm1(x)))
        x = x + self.drop_path(self.mlp(self.norm2(x)))
        return x


class WindowAttention(nn.Module):
    """Attention among the tokens of a window with a learned bias per relative position: (B, H, W,
    C) → the same.

    A map smaller than a window has windows of its size and no shift in that direction. Other maps
    are padded at bottom and right to whole windows; no token attends to padding.
    """

    def __init__(self, channels: int, heads: int, shifted: bool, window: int = WINDOW) -> None:
        super().__init__()
        self.heads, self.shifted, self.window = heads, shifted, window
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → (B, H, W, C)."""
        batch, height, width, channels = x.shape
        side = self.window
        window = (min(side, height), min(side, width))
        shift = tuple(
            side // 2 if self.shifted and length > side else 0 for length in (height, width)
        )
        x = functional.pad(x, (0, 0, 0, -width % window[1], 0, -height % window[0]))
        rows, columns = x.shape[1] // window[0], x.shape[2] // window[1]
        if any(shift):
            x = torch.roll(x, (-shift[0], -shift[1]), (1, 2))
        cut = x.reshape(batch, rows, window[0], columns, window[1], channels).transpose(2, 3)
        length = window[0] * window[1]
        query, key, value = (
            self.qkv(cut.reshape(-1, length, channels))
            .reshape(-1, length, 3, self.heads, channels // self.heads)
            .permute(2, 0, 3, 1, 4)
            .unbind(0)
        )
        bias = self._bias(window)
        apart = _apart((height, width), window, shift, x)
        if apart is not None:
            bias = (bias + apart[:, None]).repeat(batch, 1, 1, 1)
        mixed = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=bias.to(query.dtype)
        )
        mixed = self.proj(mixed.transpose(1, 2).reshape(-1, length, channels))
        cut = mixed.reshape(batch, rows, columns, *window, channels).transpose(2, 3)
        x = cut.reshape(batch, rows * window[0], columns * window[1], channels)
        if any(shift):
            x = torch.roll(x, shift, (1, 2))
        return x[:, :height, :width]

    def _bias(self, window: tuple[int, ...]) -> Tensor:
        # (1, heads, tokens, tokens)
        device = self.relative_position_bias_table.device

        def differences(side: int) -> Tensor:
            positions = torch.arange(side, device=device)
            return positions[:, None] - positions + self.window - 1

        rows, columns = differences(window[0]), differences(window[1])
        index = rows[:, None, :, None] * (2 * self.window - 1) + columns[None, :, None, :]
        length = window[0] * window[1]
        bias = self.relative_position_bias_table.index_select(0, index.flatten())
        return bias.reshape(length, length, -1).permute(2, 0, 1)[None]


def _apart(
    size: tuple[int, int], window: tuple[int, ...], shift: tuple[int, ...], like: Tensor
) -> Tensor | None:
    """(windows, tokens, tokens): what is added to the scores, -100 for tokens that are not
    neighbours in the image and for padding, else 0; None where nothing is shifted or padded.
    """
    padded = (int(like.shape[1]), int(like.shape[2]))
    if padded == size and not any(shift):
        return None
    labels = []
    for side, length, step, start in zip(padded, window, shift, size, strict=True):
        position = (torch.arange(side, device=like.device) + step) % side
        # What was rolled past the end comes from the other border of the image.
        wrapped = torch.arange(side, device=like.device) >= side - step
        labels.append((wrapped.long() + 2 * (position >= start).long()).reshape(-1, length))
    rows, columns = labels
    zones = rows[:, None, :, None] * 4 + columns[None, :, None, :]
    zones = zones.flatten(0, 1).flatten(1)
    different = zones[:, None] != zones[:, :, None]
    return different.to(like.dtype) * _APART
