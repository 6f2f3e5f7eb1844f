"""Logits and labels for the tests of losses."""

from __future__ import annotations

import torch

from segweave.data.specs import TargetSpec
from segweave.networks.base import Output

FOUR = TargetSpec(names=("background", "right", "wall", "left"))
BINARY = TargetSpec(kind="binary", names=("background", "polyp"))
OVERLAPPING = TargetSpec(kind="overlapping", names=("organ", "tumour"))


def random_case(target: TargetSpec, seed: int, batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(batch, target.classes, 5, 6, generator=generator, dtype=torch.float64)
    high = target.classes if target.kind == "exclusive" else 2
    shape = (batch, target.classes, 5, 6) if target.kind == "overlapping" else (batch, 5, 6)
    return logits, torch.randint(0, high, shape, generator=generator)


def output_of(logits: torch.Tensor, loss: str = "") -> Output:
    """An output whose auxiliary maps equal its logits, so that every loss has something to read."""
    if loss == "rendered-points":
        everywhere = torch.ones_like(logits[:, :1])
        return Output(logits, {"rendered": logits, "rendered-points": everywhere})
    return Output(logits, {"first": logits, "second": logits})
