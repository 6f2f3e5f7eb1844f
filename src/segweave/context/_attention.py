"""Attention between the positions, or between the channels, of feature maps."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segweave.context._options import Axis, Combination
from segweave.errors import UsageError


class Attention(nn.Module):
    """softmax(Q Kᵀ / √size) V over maps (B, C, H, W), without parameters.

    The softmax is computed in float32 at least.

    Args:
        axis: what attends to what, "positions" (each a vector of C / heads channels) or "channels"
            (each a vector of H·W positions; heads are groups of channels).
        channels: channels of the maps.
        heads: number of heads, a divisor of the channels.
        size: the number under the root, by default the length of those vectors.
    """

    def __init__(self, axis: Axis, channels: int, heads: int, size: float | None) -> None:
        super().__init__()
        if heads < 1 or channels % heads:
            raise UsageError(
                "creating a context module: option heads",
                expected=f"a divisor of the {channels} channels that attend",
                found=str(heads),
            )
        if size is not None and not size > 0:
            raise UsageError(
                "creating a context module: option attention_size",
                expected="a number above 0, of which the root is taken",
                found=str(size),
            )
        self.axis = axis
        self.heads = heads
        self.size = size

    def tokens(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) → (B, heads, tokens, vector), contiguous."""
        batch, channels, height, width = maps.shape
        split = maps.reshape(batch, self.heads, channels // self.heads, height * width)
        if self.axis != "positions":
            return split
        # With strided maps the fused kernel falls back to building the whole matrix. A clone also
        # gives an axis of length 1 the usual stride, without which CUDA's kernel raises.
        return split.transpose(2, 3).clone(memory_format=torch.contiguous_format)

    def maps(self, tokens: Tensor, height: int, width: int) -> Tensor:
        """The way back from `tokens`."""
        if self.axis == "positions":
            # With the strides of a view and a batch of one, torch 2.15 computes wrong gradients in
            # a batch norm before the module.
            tokens = tokens.transpose(2, 3).contiguous()
        return tokens.reshape(tokens.shape[0], -1, height, width)

    def scale(self, vector: int) -> float:
        """The factor before the softmax for vectors of this length."""
        return 1 / math.sqrt(vector if self.size is None else self.size)

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attention of tokens (B, heads, tokens, vector)."""
        if self.axis == "positions":
            wide = torch.promote_types(torch.promote_types(query.dtype, key.dtype), value.dtype)
            return F.scaled_dot_product_attention(
                query.to(wide), key.to(wide), value.to(wide), scale=self.scale(query.shape[-1])
            )
        weights = self.token_weights(query, key)
        return weights.to(value.dtype) @ value

    def token_weights(self, query: Tensor, key: Tensor) -> Tensor:
        """The softmax of tokens, (B, heads, query tokens, key tokens)."""
        kind = query.device.type
        if torch.is_autocast_enabled(kind):
            # Energies are sums over thousands of positions: half precision would move the softmax.
            with torch.autocast(kind, enabled=False):
                return self._softmax(query.float(), key.float())
        return self._softmax(query, key)

    def _softmax(self, query: Tensor, key: Tensor) -> Tensor:
        if query.dtype in (torch.float16, torch.bfloat16):
            query, key = query.float(), key.float()
        energy = (query * self.scale(query.shape[-1])) @ key.transpose(-1, -2)
        return energy.softmax(-1)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Maps (B, C, H, W) → (B, C, H, W) in the size of the query."""
        result = self.attend(self.tokens(query), self.tokens(key), self.tokens(value))
        return self.maps(result, *query.shape[2:])

    def uniform(self, value: Tensor) -> Tensor:
        """What `forward` gives where query or key are zero: the mean of the values."""
        batch, channels, height, width = value.shape
        if self.axis == "positions":
            return value.mean((2, 3), keepdim=True).expand_as(value)
        groups = value.reshape(batch, self.heads, channels // self.heads, height, width)
        return groups.mean(2, keepdim=True).expand_as(groups).reshape(value.shape)

    def weights(self, query: Tensor, key: Tensor) -> Tensor:
        """The softmax of maps, (B, query tokens, key tokens), with heads before the tokens where
        there are several. It is built in full: (H·W)² numbers per map between positions.
        """
        weights = self.token_weights(self.tokens(query), self.tokens(key))
        return weights[:, 0] if self.heads == 1 else weights


def combine(states: Sequence[Tensor], combination: Combination) -> Tensor:
    """Several states as one (TIP Eq. 4): their mean, or the ReLU of their product; one alone stays
    as it is.
    """
    result = states[0]
    for state in states[1:]:
        result = result + state if combination == "linear" else result * state
    if len(states) == 1:
        return result
    return result / len(states) if combination == "linear" else result.relu()
