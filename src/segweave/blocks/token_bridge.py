"""The bridge of MISSFormer: attention between the tokens of all scales."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from segweave.blocks.token_blocks import MixSkipFFN, to_map


class BridgeLayer(nn.Module):
    """All scales as one sequence: x + attention of LN(x), then that plus, for each scale, a
    feed-forward part of another LN. Tokens (B, H_i, W_i, C_i) per scale → the same.

    A token of C_i channels counts as C_i / `width` tokens of `width` channels. Huang et al.,
    MISSFormer, arXiv 2109.07162, as released.

    Args:
        width: channels of a token in the sequence.
        widths: channels of the scales, multiples of `width`.
        reductions: for each scale, the side of the square of tokens that becomes one key; 1 for
            none.
    """

    def __init__(self, width: int, widths: Sequence[int], reductions: Sequence[int]) -> None:
        super().__init__()
        self.width = width
        self.norm1 = nn.LayerNorm(width)
        self.attn = BridgeAttention(width, widths, reductions)
        self.norm2 = nn.LayerNorm(width)
        self.ffns = nn.ModuleList(MixSkipFFN(channels, 4 * channels) for channels in widths)

    def forward(self, scales: Sequence[Tensor]) -> list[Tensor]:
        """Tokens (B, H_i, W_i, C_i) of each scale → the same."""
        shapes = [one.shape for one in scales]
        sequence = torch.cat([one.reshape(one.shape[0], -1, self.width) for one in scales], dim=1)
        sequence = sequence + self.attn(self.norm1(sequence), shapes)
        normed = split_scales(self.norm2(sequence), shapes)
        return [
            x + ffn(y)
            for x, y, ffn in zip(split_scales(sequence, shapes), normed, self.ffns, strict=True)
        ]


class BridgeAttention(nn.Module):
    """Attention with one head; keys and values come from the scales that convolutions have made
    smaller: (B, N, width) → the same.

    The channels of a reduced map are dealt out to tokens as c = a · (C_i / width) + b → channel a
    of token b, otherwise than in the sequence, where b · width + a is meant; so the authors' code
    has it.
    """

    def __init__(self, width: int, widths: Sequence[int], reductions: Sequence[int]) -> None:
        super().__init__()
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)
        self.reduce = nn.ModuleList(
            nn.Conv2d(channels, channels, step, step) if step > 1 else nn.Identity()
            for channels, step in zip(widths, reductions, strict=True)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, shapes: Sequence[torch.Size]) -> Tensor:
        """(B, N, width) and the shapes (B, H_i, W_i, C_i) of the scales → (B, N, width)."""
        batch, _, width = x.shape
        reduced = []
        for tokens, reduce in zip(split_scales(x, shapes), self.reduce, strict=True):
            if isinstance(reduce, nn.Identity):
                reduced.append(tokens.reshape(batch, -1, width))
            else:
                reduced.append(reduce(to_map(tokens)).reshape(batch, width, -1).transpose(1, 2))
        key, value = self.kv(self.norm(torch.cat(reduced, dim=1))).chunk(2, dim=-1)
        mixed = functional.scaled_dot_product_attention(
            self.q(x)[:, None], key[:, None], value[:, None]
        )
        output: Tensor = self.proj(mixed[:, 0])
        return output


def split_scales(sequence: Tensor, shapes: Sequence[torch.Size]) -> list[Tensor]:
    """(B, N, width) → the scales (B, H_i, W_i, C_i) that it was joined from."""
    lengths = [shape[1] * shape[2] * shape[3] // sequence.shape[-1] for shape in shapes]
    parts = torch.split(sequence, lengths, dim=1)
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
