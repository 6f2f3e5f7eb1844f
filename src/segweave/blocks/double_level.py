"""HiFormer's double-level fusion: two sets of tokens exchange what their class tokens read."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from segweave.blocks.mlp import Mlp, start_linear


class DoubleLevelFusion(nn.Module):
    """Two sets of tokens (B, N_i, C_i) and their position tables (1, 1 + N_i, C_i) → the sets.

    Each set gets a class token, the mean of its layer norm, and its positions. The class token is
    projected to the other set's width, attends to the other's tokens, and is projected back; then
    each set runs through transformer blocks and leaves its class token behind. Heidari et al.,
    HiFormer, WACV 2023, double-level fusion module.

    Args:
        widths: channels of the two sets.
        heads: heads of the attention of the two sets.
        depths: number of transformer blocks for each set.
        ratio: hidden channels of a block's MLP divided by the set's.
    """

    def __init__(
        self, widths: Sequence[int], heads: Sequence[int], depths: Sequence[int], ratio: int
    ) -> None:
        super().__init__()
        both = list(zip(widths, reversed(widths), strict=True))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in widths)
        self.project = nn.ModuleList(_projection(own, other) for own, other in both)
        self.cross = nn.ModuleList(
            ClassAttention(other, heads)
            for (_, other), heads in zip(both, reversed(heads), strict=True)
        )
        self.revert = nn.ModuleList(_projection(other, own) for own, other in both)
        self.blocks = nn.ModuleList(
            nn.Sequential(*(TransformerBlock(width, count, ratio) for _ in range(depth)))
            for width, count, depth in zip(widths, heads, depths, strict=True)
        )
        self.apply(start_linear)

    def forward(self, tokens: Sequence[Tensor], tables: Sequence[Tensor]) -> list[Tensor]:
        """Two sets (B, N_i, C_i) and tables (1, 1 + N_i, C_i) → two sets (B, N_i, C_i)."""
        sets = [
            torch.cat([norm(one).mean(1, keepdim=True), one], 1) + table
            for one, table, norm in zip(tokens, tables, self.norms, strict=True)
        ]
        results = []
        for i, (own, other) in enumerate(zip(sets, reversed(sets), strict=True)):
            projected = self.project[i](own[:, :1])
            token = self.cross[i](torch.cat([projected, other[:, 1:]], 1))
            joined = torch.cat([self.revert[i](token), own[:, 1:]], 1)
            results.append(self.blocks[i](joined)[:, 1:])
        return results


class ClassAttention(nn.Module):
    """The first token plus its attention to all tokens behind a layer norm: (B, N, C) → (B, 1,
    C).
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(channels)
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        self.output = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) → (B, 1, C)."""
        tokens = self.norm(x)
        mixed = _attend(self.query(tokens[:, :1]), self.key(tokens), self.value(tokens), self.heads)
        return x[:, :1] + self.output(mixed)


class TransformerBlock(nn.Module):
    """x + self-attention of LN(x), then that plus an MLP of another LN: (B, N, C) → the same."""

    def __init__(self, channels: int, heads: int, ratio: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(channels)
        self.query_key_value = nn.Linear(channels, 3 * channels)
        self.output = nn.Linear(channels, channels)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = Mlp(channels, ratio * channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) → (B, N, C)."""
        query, key, value = self.query_key_value(self.norm1(x)).chunk(3, -1)
        x = x + self.output(_attend(query, key, value, self.heads))
        result: Tensor = x + self.mlp(self.norm2(x))
        return result


def _attend(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    def split(x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:2], heads, -1).transpose(1, 2).contiguous()

    mixed = functional.scaled_dot_product_attention(split(query), split(key), split(value))
    return mixed.transpose(1, 2).flatten(2)


def _projection(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.LayerNorm(before), nn.GELU(), nn.Linear(before, after))


def released_fusion_names(depths: Sequence[int]) -> dict[str, str]:
    """Our name of each tensor of `HiFormer.fusion` → that of amirhossein-kz/HiFormer. `depths`
    counts the blocks of each level.
    """
    top, block = "All2Cross.", "All2Cross.blocks.0."
    modules: dict[str, str] = {}
    for i, depth in enumerate(depths):
        modules[f"norms.{i}."] = f"{top}pyramid.norm_{i + 1}."
        for layer in (0, 2):
            modules[f"project.{i}.{layer}."] = f"{block}projs.{i}.{layer}."
            modules[f"revert.{i}.{layer}."] = f"{block}revert_projs.{i}.{layer}."
        modules |= {
            f"cross.{i}.{ours}.": f"{block}fusion.{i}.{theirs}." for ours, theirs in _CROSS.items()
        }
        for j in range(depth):
            modules |= {
                f"blocks.{i}.{j}.{ours}.": f"{block}blocks.{i}.{j}.{theirs}."
                for ours, theirs in _BLOCK.items()
            }
    return {
        f"fusion.{ours}{leaf}": f"{theirs}{leaf}"
        for ours, theirs in modules.items()
        for leaf in ("weight", "bias")
    }


_CROSS = {
    "norm": "norm1",
    "query": "attn.wq",
    "key": "attn.wk",
    "value": "attn.wv",
    "output": "attn.proj",
}
_BLOCK = {
    "norm1": "norm1",
    "query_key_value": "attn.qkv",
    "output": "attn.proj",
    "norm2": "norm2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
