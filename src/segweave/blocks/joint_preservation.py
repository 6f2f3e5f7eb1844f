"""DANIE's joint preservation: both streams of a stage are enhanced and become one map."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from segweave.blocks.conv_norm import ConvNorm

FUSIONS = ("joint-preservation", "es", "eh", "add", "concatenate")
_REDUCTION = 16


class EnhancingSelfAttention(nn.Module):
    """ES, Eq. 6 and 7: es = λ W S + S with S the map as (C, H·W) and W = softmax(S Sᵀ), (B, C, H,
    W) → the same. λ is learned and starts at 0, where ES is the identity.

    W is (B, C, C). Row j holds the weights of all channels i for channel j, so the softmax is over
    the last axis, where each row sums to 1. S Sᵀ is not scaled, as printed. Eq. 7 prints S_j under
    the sum over i, which would make it (λ + 1) S_j; S_i is meant, as in DANet, which the paper
    follows.
    """

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C, H, W)."""
        return x + self.scale * (self.attention(x) @ x.flatten(2)).view_as(x)

    def attention(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → W (B, C, C), whose last axis sums to 1."""
        flat = x.flatten(2)
        kind = x.device.type
        # The device "meta", on which costs are counted, knows no autocast.
        if flat.is_meta or not torch.is_autocast_enabled(kind):
            return _channel_weights(flat)
        # Unscaled sums over all positions need the range and the digits of float32.
        with torch.autocast(kind, enabled=False):
            return _channel_weights(flat.float()).to(flat.dtype)


def _channel_weights(flat: Tensor) -> Tensor:
    return (flat @ flat.mT).softmax(-1)


class EnhancingHierarchicalAttention(nn.Module):
    """EH, Eq. 8 and 9: eh = σ(c2 * GELU(LN(c1 * A_g))) ⊙ H, (B, C, H, W) → the same.

    A_g is the mean of H over its positions, weighted by the softmax of a 1×1 convolution of H. The
    softmax is over the positions (the last axis of (B, 1, H·W)), where the weights sum to 1; the
    brackets of Eq. 8 do not close, and this is the reading of GCNet, which the paper names.
    W_g = σ(...) is one weight per channel. The convolutions of Eq. 9 have a sixteenth of the
    channels between them (open in the paper).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(1, channels // _REDUCTION)
        self.query = nn.Conv2d(channels, 1, 1)
        self.first = nn.Linear(channels, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.second = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C, H, W)."""
        context = (self.attention(x) @ x.flatten(2).mT).squeeze(1)
        weights = self.second(functional.gelu(self.norm(self.first(context)))).sigmoid()
        return x * weights[..., None, None]

    def attention(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → weights of the positions (B, 1, H·W), whose last axis sums to 1."""
        result: Tensor = self.query(x).flatten(2).softmax(-1)
        return result


class StreamFusion(nn.Module):
    """The maps of both streams (B, C, H, W) → one map e of the same shape; of one stream, its map.

    "joint-preservation" is ES + EH (Eq. 10), "es" and "eh" enhance one stream alone, "add" none.
    A 3×3 convolution follows each of these three: the paper does not mention it, the printed costs
    ask for it. "concatenate" is a 3×3 convolution of both maps side by side, plus their sum.

    Args:
        channels: C.
        kind: one of `FUSIONS`.
        attention: whether there is a self-attentional stream.
        hierarchical: whether there is a hierarchical stream.
    """

    def __init__(self, channels: int, kind: str, *, attention: bool, hierarchical: bool) -> None:
        super().__init__()
        joint = kind == FUSIONS[0]
        enhances_attention = attention and (joint or kind == "es")
        enhances_hierarchical = hierarchical and (joint or kind == "eh")
        self.es = EnhancingSelfAttention() if enhances_attention else nn.Identity()
        self.eh = (
            EnhancingHierarchicalAttention(channels) if enhances_hierarchical else nn.Identity()
        )
        enhanced = enhances_attention or enhances_hierarchical
        self.mixing = ConvNorm(channels, channels, 3, activation=nn.GELU) if enhanced else None
        both = attention and hierarchical and kind == "concatenate"
        self.join = ConvNorm(2 * channels, channels, 3, activation=nn.GELU) if both else None

    def forward(self, attention: Tensor | None, hierarchical: Tensor | None) -> Tensor:
        """Two maps (B, C, H, W), of which one may be None → (B, C, H, W)."""
        maps = [
            layer(x)
            for layer, x in ((self.es, attention), (self.eh, hierarchical))
            if x is not None
        ]
        total: Tensor = maps[0] if len(maps) == 1 else maps[0] + maps[1]
        if self.join is not None:
            return total + self.join(torch.cat(maps, 1))
        return total if self.mixing is None else self.mixing(total)
