"""Layer norm over the channels of a map."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ChannelNorm(nn.Module):
    """Normalises the channels of each pixel by themselves: (B, C, H, W) → the same."""

    def __init__(self, channels: int, epsilon: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C, H, W)."""
        variance, mean = torch.var_mean(x, 1, correction=0, keepdim=True)
        x = (x - mean) * (variance + self.epsilon).rsqrt()
        return x * self.weight[:, None, None] + self.bias[:, None, None]
