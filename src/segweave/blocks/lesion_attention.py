"""Attention of all pixels to few tokens, as in LDNet: to the pooled map, or to the means of the
regions that were predicted.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, linear

from segweave.blocks.mlp import Mlp
from segweave.blocks.token_blocks import to_map, to_tokens

HEAD = 64
"""Channels of a head."""
HIDDEN = 512
"""Channels inside of the feed-forward part."""
POOLED = (1, 3, 5)
"""Sides of the pooled maps whose pixels are the tokens."""
SMALL = 0.0005
"""What is added to the area of a region, so that it may be empty."""


class FewTokensAttention(nn.Module):
    """x plus attention of its pixels to tokens, then that plus a feed-forward part of its layer
    norm. No norm comes before the attention. (B, C, H, W) and (B, N, C) → (B, C, H, W).

    Queries, keys and values are linear, so that with few tokens it costs less to take the keys back
    to the map's channels than to compute queries, and likewise for the output: the map is
    multiplied by one matrix (C, heads · N), and by one more behind the softmax.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_qkv = nn.Conv2d(channels, 3 * heads * HEAD, 1, bias=False)
        self.to_out = nn.Linear(heads * HEAD, channels)
        self.norm = nn.LayerNorm(channels)
        self.mlp = Mlp(channels, HIDDEN)

    def attend(self, x: Tensor, tokens: Tensor) -> Tensor:
        """(B, C, H, W) and (B, N, C) → (B, C, H, W)."""
        y = to_tokens(x)
        y = y + self._attention(y, tokens)
        return to_map(y + self.mlp(self.norm(y)))

    def _attention(self, y: Tensor, tokens: Tensor) -> Tensor:
        to_query, to_key, to_value = self.to_qkv.weight.flatten(1).chunk(3)
        values = linear(tokens, to_value)
        if tokens.shape[1] == 1:
            # One token has all of the weight: queries and keys change nothing.
            return cast(Tensor, self.to_out(values)[:, :, None])
        batch, count, channels = tokens.shape
        keys = self._split(linear(tokens, to_key))
        # (B, heads · N, C): what a pixel is multiplied by to give its scores.
        scorers = keys @ (to_query * HEAD**-0.5).reshape(self.heads, HEAD, channels)
        scores = y.flatten(1, 2) @ scorers.flatten(1, 2).transpose(1, 2)
        weights = scores.reshape(batch, -1, self.heads, count).softmax(dim=-1).flatten(2)
        # (B, heads · N, C): what each token adds to a pixel that gives it all of the weight.
        out = self.to_out.weight.reshape(channels, self.heads, HEAD).permute(1, 2, 0)
        added = (self._split(values) @ out).flatten(1, 2)
        return (weights.to(added.dtype) @ added + self.to_out.bias).reshape(y.shape)

    def _split(self, tokens: Tensor) -> Tensor:
        """(B, N, heads · 64) → (B, heads, N, 64)."""
        return tokens.reshape(*tokens.shape[:2], self.heads, HEAD).transpose(1, 2)


class PooledAttention(FewTokensAttention):
    """Efficient self-attention: the tokens are the pixels of the map pooled to 1×1, 3×3 and 5×5,
    (B, C, H, W) → the same (Zhang et al., LDNet, Section 2.3).
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C, H, W)."""
        pooled = [adaptive_avg_pool2d(x, side).flatten(2) for side in POOLED]
        return self.attend(x, torch.cat(pooled, dim=2).transpose(1, 2))


class LesionAttention(FewTokensAttention):
    """Lesion-aware cross-attention: one token per class, the mean of the map with the predicted
    probabilities as weights, (B, C, H, W) and logits (B, classes, H, W) → (B, C, H, W) (Zhang et
    al., LDNet, Section 2.3).

    With one class each pixel gives that token all of its weight, so that the same vector is added
    everywhere, as released.
    """

    def forward(self, x: Tensor, logits: Tensor) -> Tensor:
        """(B, C, H, W), (B, classes, H, W) → (B, C, H, W)."""
        region = logits.sigmoid().flatten(2)
        sums = region @ x.flatten(2).transpose(1, 2)
        return self.attend(x, sums / (region.sum(dim=2, keepdim=True) + SMALL))
