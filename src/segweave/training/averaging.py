"""An exponential moving average of a network's weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """average ← decay · average + (1 − decay) · weights, after each optimiser step.

    Running statistics of batch norms are averaged like weights; counters are copied. The first
    update copies everything.

    Args:
        decay: between 0 and 1.
        tensors: the average so far by name, as a checkpoint holds it; None begins anew.
    """

    def __init__(self, decay: float, tensors: dict[str, Tensor] | None = None) -> None:
        self.decay = decay
        self.tensors = tensors

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take the network's present weights into the average."""
        if self.tensors is None:
            self.tensors = {name: value.clone() for name, value in network.state_dict().items()}
            return
        for name, value in network.state_dict().items():
            average = self.tensors[name] = self.tensors[name].to(value.device)
            if value.is_floating_point():
                average.lerp_(value, 1 - self.decay)
            else:
                average.copy_(value)

    @contextmanager
    def applied(self, network: nn.Module) -> Iterator[None]:
        """Let the network hold the average inside the block."""
        state = network.state_dict()
        kept = {name: value.clone() for name, value in state.items()}
        _copy(self.tensors or {}, state)
        try:
            yield
        finally:
            _copy(kept, state)


@torch.no_grad()
def _copy(source: dict[str, Tensor], target: dict[str, Tensor]) -> None:
    for name, value in source.items():
        target[name].copy_(value)
