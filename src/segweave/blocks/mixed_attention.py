"""MT-UNet's mixed block: local-global attention, then external attention, each with a residual
sum.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

WINDOW = 4
"""Side of the windows in which tokens attend to each other."""
HEADS = 8
"""Heads of the attention in the windows; external attention has four times as many."""
SLOTS = 64
"""Size of the memory of the external attention."""


class MixedBlock(nn.Module):
    """x + local-global attention of LN(x), then that plus external attention of another LN; no
    feed-forward part. (B, H, W, C) → (B, H, W, C), C divisible by 8, H and W at least 2.

    Wang et al., Mixed Transformer U-Net for Medical Image Segmentation, ICASSP 2022, as released.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.local_norm = nn.LayerNorm(channels, eps=1e-6)
        self.local_global = LocalGlobalAttention(channels)
        self.external_norm = nn.LayerNorm(channels, eps=1e-6)
        self.external = ExternalAttention(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → (B, H, W, C)."""
        x = x + self.local_global(self.local_norm(x))
        return x + self.external(self.external_norm(x))


class MixedStage(nn.Sequential):
    """Mixed blocks on a feature map: (B, C, H, W) → (B, C, H, W)."""

    def __init__(self, channels: int, blocks: int = 2) -> None:
        super().__init__(*(MixedBlock(channels) for _ in range(blocks)))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C, H, W), channels last in memory."""
        x = x.permute(0, 2, 3, 1).contiguous()
        for block in self:
            x = block(x)
        return x.permute(0, 3, 1, 2)


class LocalGlobalAttention(nn.Module):
    """Attention inside 4×4 windows, and attention between windows along rows and columns with a
    Gaussian weight of the distance; both joined by a 1×1 convolution. (B, H, W, C) → the same.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.window_query = nn.Linear(channels, channels)
        self.window_key = nn.Linear(channels, channels)
        self.window_value = nn.Linear(channels, channels)
        self.window_output = nn.Linear(channels, channels)
        self.token_weights = nn.Linear(channels, WINDOW * WINDOW)
        self.axis_query = nn.Linear(channels, channels)
        self.axis_key = nn.Linear(channels, channels)
        self.axis_value = nn.Linear(channels, channels)
        self.decay = nn.Parameter(torch.randn(1).abs())
        self.join = nn.Conv2d(2 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → (B, H, W, C)."""
        _, height, width, _ = x.shape
        windows = self._inside_windows(split_windows(pad_to_windows(x)))
        tokens = self._along_axes(self._one_token_per_window(windows))
        spread = functional.interpolate(
            tokens.permute(0, 3, 1, 2), scale_factor=WINDOW, mode="bilinear", align_corners=True
        ).permute(0, 2, 3, 1)
        joined = torch.cat([spread, join_windows(windows)], dim=-1)[:, :height, :width]
        # A 1×1 convolution on channels-last tokens is a linear map; what the padding added is cut
        # off first.
        return functional.linear(joined, self.join.weight.flatten(1), self.join.bias)

    def _inside_windows(self, windows: Tensor) -> Tensor:
        # (B, rows, columns, 16, C) → the same: scaled softmax attention among a window's tokens.
        shape = windows.shape

        def heads(tokens: Tensor) -> Tensor:
            split = tokens.reshape(-1, WINDOW * WINDOW, HEADS, shape[-1] // HEADS)
            return split.transpose(1, 2).contiguous()

        mixed = functional.scaled_dot_product_attention(
            heads(self.window_query(windows)),
            heads(self.window_key(windows)),
            heads(self.window_value(windows)),
        )
        output: Tensor = self.window_output(mixed.transpose(1, 2).reshape(shape))
        return output

    def _one_token_per_window(self, windows: Tensor) -> Tensor:
        # (B, rows, columns, 16, C) → (B, rows, columns, C): weights from the window's mean token.
        weights = softmax(self.token_weights(windows.mean(dim=-2)), dim=-1)
        return (weights.unsqueeze(-2) @ windows).squeeze(-2)

    def _along_axes(self, tokens: Tensor) -> Tensor:
        # (B, rows, columns, C) → the same. The weights of a row and of a column sum to 1 each.
        query, key, value = self.axis_query(tokens), self.axis_key(tokens), self.axis_value(tokens)
        along_row = self._weights(query, key) @ value
        query, key, value = (t.transpose(1, 2) for t in (query, key, value))
        along_column = self._weights(query, key) @ value
        return along_row + along_column.transpose(1, 2)

    def _weights(self, query: Tensor, key: Tensor) -> Tensor:
        # (B, lines, positions, C) → (B, lines, positions, positions), not scaled by the width. The
        # released bias of the Gaussian is the same for all keys, so that the softmax cancels it.
        scores = query @ key.transpose(-1, -2)
        position = torch.arange(query.shape[-2], dtype=self.decay.dtype, device=query.device)
        squared_distance = (position[:, None] - position) ** 2
        return softmax(scores - self.decay * squared_distance, dim=-1).to(query.dtype)


class ExternalAttention(nn.Module):
    """Attention of each token to 64 learned slots, one small memory shared by 32 heads: softmax
    over the tokens, then each token's weights are divided by their sum. (B, H, W, C) → the same.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        head_width = channels // HEADS
        self.query = nn.Linear(channels, 4 * channels)
        self.to_slots = nn.Linear(head_width, SLOTS)
        self.from_slots = nn.Linear(SLOTS, head_width)
        self.output = nn.Linear(4 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → (B, H, W, C)."""
        batch, height, width, channels = x.shape
        heads = self.query(x).reshape(batch, height * width, 4 * HEADS, channels // HEADS)
        weights = softmax(self.to_slots(heads), dim=1)
        weights = weights / (weights.sum(dim=-1, keepdim=True) + 1e-9)
        mixed = self.from_slots(weights.to(heads.dtype))
        output: Tensor = self.output(mixed.reshape(batch, height, width, 4 * channels))
        return output


def softmax(scores: Tensor, dim: int) -> Tensor:
    """Softmax, in float32 where `scores` has half precision."""
    return torch.softmax(scores, dim, dtype=torch.promote_types(scores.dtype, torch.float32))


def pad_to_windows(x: Tensor) -> Tensor:
    """(B, H, W, C) padded at bottom and right to multiples of 4, as the released code does it: the
    new strips are zero, but the corner block repeats the last rows and columns of `x`.
    """
    _, height, width, _ = x.shape
    below, right = -height % WINDOW, -width % WINDOW
    if not below and not right:
        return x
    padded = functional.pad(x, (0, 0, 0, right, 0, below))
    if below and right:
        padded[:, height:, width:] = x[:, height - below :, width - right :]
    return padded


def split_windows(x: Tensor) -> Tensor:
    """(B, H, W, C) → (B, H/4, W/4, 16, C)."""
    batch, height, width, channels = x.shape
    cut = x.reshape(batch, height // WINDOW, WINDOW, width // WINDOW, WINDOW, channels)
    return cut.transpose(2, 3).reshape(
        batch, height // WINDOW, width // WINDOW, WINDOW * WINDOW, channels
    )


def join_windows(windows: Tensor) -> Tensor:
    """(B, rows, columns, 16, C) → (B, 4·rows, 4·columns, C), the inverse of `split_windows`."""
    batch, rows, columns, _, channels = windows.shape
    cut = windows.reshape(batch, rows, columns, WINDOW, WINDOW, channels)
    return cut.transpose(2, 3).reshape(batch, rows * WINDOW, columns * WINDOW, channels)
