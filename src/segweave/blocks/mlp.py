"""The feed-forward part of a transformer block."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class Mlp(nn.Module):
    """Linear layer, GELU, linear layer: (..., C) → (..., C)."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden)
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) → (..., C)."""
        result: Tensor = self.fc2(functional.gelu(self.fc1(x)))
        return result


def start_linear(module: nn.Module) -> None:
    """Start values of a linear layer as in Swin and ViT; for `nn.Module.apply`."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
