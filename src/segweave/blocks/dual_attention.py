"""The attention of DAE-Former, linear in the number of tokens: between positions, through a matrix
of channels, and between channels.

Azad et al., DAE-Former, Predictive Intelligence in Medicine (MICCAI Workshops) 2023, as released.
Products of matrices are taken in the order that costs least: what follows on a matrix of channels
is multiplied into it, where there are fewer channels than tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from segweave.blocks.token_blocks import MixSkipFFN

HEADS = 8
"""Heads of the attention between channels."""


class DualBlock(nn.Module):
    """x + efficient attention, + feed-forward part, + channel attention, + feed-forward part, each
    of a layer norm: (B, H, W, C) → the same, C divisible by 8.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn = EfficientAttention(channels)
        self.norm2 = nn.LayerNorm(channels)
        self.ffn1 = MixSkipFFN(channels, 4 * channels)
        self.norm3 = nn.LayerNorm(channels)
        self.channel_attn = ChannelAttention(channels)
        self.norm4 = nn.LayerNorm(channels)
        self.ffn2 = MixSkipFFN(channels, 4 * channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → (B, H, W, C)."""
        x = x + self.attn(self.norm1(x))
        x = x + self.ffn1(self.norm2(x))
        x = x + self.channel_attn(self.norm3(x))
        x = x + self.ffn2(self.norm4(x))
        return x


class EfficientAttention(nn.Module):
    """Keys as softmax over the positions, queries as softmax over the channels; keysᵀ · values is a
    matrix of channels that each query is multiplied with: (B, H, W, C) → the same. One head.

    Shen et al., Efficient Attention: Attention with Linear Complexities, WACV 2021.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.keys = nn.Conv2d(channels, channels, 1)
        self.queries = nn.Conv2d(channels, channels, 1)
        self.values = nn.Conv2d(channels, channels, 1)
        self.reprojection = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → (B, H, W, C)."""
        tokens = x.flatten(1, 2)
        key = softmax(_linear(self.keys, tokens), dim=1).to(x.dtype).transpose(1, 2)
        query = softmax(_linear(self.queries, tokens), dim=2).to(x.dtype)
        if tokens.shape[1] > tokens.shape[2]:
            # Each key sums to 1 over the positions, so that the values' bias is simply added.
            context = _linear(self.values, key @ tokens)
        else:
            context = key @ _linear(self.values, tokens)
        return attend(query, context, self.reprojection).reshape(x.shape)


class ChannelAttention(nn.Module):
    """Each channel attends to the other ones of its head by the cosine of their values over all
    positions, times a learned temperature: (B, H, W, C) → the same.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(HEADS, 1, 1))
        self.qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → (B, H, W, C)."""
        tokens = x.flatten(1, 2)
        batch, count, channels = tokens.shape
        to_query_key, to_value = torch.split(self.qkv.weight, [2 * channels, channels])
        pairs = functional.linear(tokens, to_query_key).reshape(batch, count, 2 * HEADS, -1)
        query, key = pairs.permute(0, 2, 3, 1).chunk(2, dim=1)
        # Dividing the products by the lengths costs less than dividing queries and keys by them.
        lengths = _lengths(query) * _lengths(key).transpose(-1, -2)
        cosine = (query @ key.transpose(-1, -2)) / lengths
        weights = softmax(cosine * self.temperature, dim=-1).to(x.dtype)
        if count > channels:
            mixing = (weights @ to_value.reshape(HEADS, -1, channels)).flatten(1, 2)
            mixed = tokens @ (self.proj.weight @ mixing).transpose(1, 2)
            return (mixed + self.proj.bias).reshape(x.shape)
        value = functional.linear(tokens, to_value).reshape(batch, count, HEADS, -1)
        mixed = (weights @ value.permute(0, 2, 3, 1)).flatten(1, 2).transpose(1, 2)
        output: Tensor = self.proj(mixed)
        return output.reshape(x.shape)


class CrossAttentionBlock(nn.Module):
    """Joins the decoder's map and a skip: both joined + efficient attention, then that plus a
    feed-forward part of a layer norm. Twice (B, H, W, C) → (B, H, W, 2C).

    Keys and queries both come from the skip, values from the decoder; nothing is projected before.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.reprojection = nn.Conv2d(channels, 2 * channels, 1)
        self.attention_norm = nn.LayerNorm(2 * channels)
        self.norm2 = nn.LayerNorm(2 * channels)
        self.ffn = MixSkipFFN(2 * channels, 4 * channels)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """The decoder's map and the skip, (B, H, W, C) → (B, H, W, 2C)."""
        value, source = self.norm1(x).flatten(1, 2), self.norm1(skip).flatten(1, 2)
        key = softmax(source, dim=1).to(source.dtype)
        query = softmax(source, dim=2).to(source.dtype)
        mixed = attend(query, key.transpose(1, 2) @ value, self.reprojection)
        joined = torch.cat([x, skip], dim=-1)
        joined = joined + self.attention_norm(mixed).reshape(joined.shape)
        return joined + self.ffn(self.norm2(joined))


def attend(query: Tensor, context: Tensor, output: nn.Conv2d) -> Tensor:
    """Queries (B, N, C) · a matrix of channels (B, C, C), then a 1×1 convolution → (B, N, C')."""
    if query.shape[1] <= query.shape[2]:
        return _linear(output, query @ context)
    mixed = query @ functional.linear(context, output.weight.flatten(1))
    return mixed if output.bias is None else mixed + output.bias


def softmax(scores: Tensor, dim: int) -> Tensor:
    """Softmax, in float32 where `scores` has half precision."""
    return torch.softmax(scores, dim, dtype=torch.promote_types(scores.dtype, torch.float32))


def _linear(convolution: nn.Conv2d, x: Tensor) -> Tensor:
    # A 1×1 convolution on tokens (..., C).
    return functional.linear(x, convolution.weight.flatten(1), convolution.bias)


def _lengths(x: Tensor) -> Tensor:
    # (..., N) → (..., 1), never 0
    return torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp_min(1e-12)
