"""Parts of the networks that keep tokens as maps (B, H, W, C): overlapping patches, a feed-forward
part with a depthwise convolution, and attention to a reduced map.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class OverlappingPatches(nn.Module):
    """A padded convolution, its kernel larger than its stride, and a layer norm: (B, C_in, H, W) →
    tokens (B, H / stride, W / stride, C_out), rounded up.

    Xie et al., SegFormer, NeurIPS 2021, Section 3.1.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2)
        self.norm = nn.LayerNorm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) → (B, h, w, C_out)."""
        tokens: Tensor = self.norm(to_tokens(self.proj(x)))
        return tokens


class MixSkipFFN(nn.Module):
    """Linear layer, plus a 3×3 depthwise convolution of it, layer norm, GELU, linear layer: (B, H,
    W, C) → the same.

    Huang et al., MISSFormer, arXiv 2109.07162 ("Enhanced Mix-FFN" with one skip), as released.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.norm = nn.LayerNorm(hidden)
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → (B, H, W, C)."""
        x = self.fc1(x)
        x = self.norm(to_tokens(self.depthwise(to_map(x))) + x)
        result: Tensor = self.fc2(functional.gelu(x))
        return result


MIX_SKIP_FFN_NAMES = {
    "fc1.": "fc1.",
    "depthwise.": "dwconv.dwconv.",
    "norm.": "norm1.",
    "fc2.": "fc2.",
}
"""Our names in a `MixSkipFFN` → those in the code of MISSFormer and DAE-Former."""
MIX_SKIP_FFN_DEAD = tuple(f"norm{i}.{leaf}" for i in (2, 3) for leaf in ("weight", "bias"))
"""The two norms that their code builds besides and never calls."""


class ReducedAttention(nn.Module):
    """Attention of all tokens to those of a map that a convolution with kernel = stride =
    `reduction` and a layer norm have made smaller: (B, H, W, C) → the same.

    Wang et al., Pyramid Vision Transformer, ICCV 2021, Section 3.3.
    """

    def __init__(self, channels: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(channels, channels)
        self.kv = nn.Linear(channels, 2 * channels)
        self.proj = nn.Linear(channels, channels)
        self.sr = nn.Conv2d(channels, channels, reduction, reduction) if reduction > 1 else None
        self.norm = nn.LayerNorm(channels) if reduction > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → (B, H, W, C)."""
        source = x
        if self.sr is not None and self.norm is not None:
            source = self.norm(to_tokens(self.sr(to_map(x))))
        query = _heads(self.q(x), self.heads)
        key, value = _heads(self.kv(source), 2 * self.heads).chunk(2, dim=1)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        output: Tensor = self.proj(mixed.transpose(1, 2).reshape(x.shape))
        return output


def to_map(tokens: Tensor) -> Tensor:
    """(B, H, W, C) → (B, C, H, W), channels last in memory."""
    return tokens.permute(0, 3, 1, 2)


def to_tokens(x: Tensor) -> Tensor:
    """(B, C, H, W) → (B, H, W, C)."""
    return x.permute(0, 2, 3, 1)


def xavier_start(module: nn.Module) -> None:
    """Xavier-uniform weights and zero biases for a linear layer or a convolution, for
    `nn.Module.apply`.
    """
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _heads(x: Tensor, heads: int) -> Tensor:
    # (B, H, W, C) → (B, heads, H · W, C / heads)
    split = x.reshape(x.shape[0], x.shape[1] * x.shape[2], heads, x.shape[3] // heads)
    return split.transpose(1, 2)
