"""Makes small context modules of every kind for the tests."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from segweave import registry
from segweave.context import ContextModule, create_context

CARDS = registry.contexts.cards()
FORMS = [
    (name, form)
    for name, card in CARDS.items()
    for form in card.forms
    if card.kind != "control" or form == "paper"
]
MODULES = [(name, form) for name, form in FORMS if CARDS[name].kind != "control"]
PAPERS = [("sa-lstm"), ("lstm-sa"), ("sa-embedded-lstm")]


def make(name: str, channels: int = 4, *, seed: int = 0, **options: Any) -> ContextModule:
    """A module in float64 and eval mode with weights fixed by `seed`; `steps` reaches `conv`
    alone.
    """
    if name != "conv":
        options.pop("steps", None)
    torch.manual_seed(seed)
    module = create_context(name, channels, **options).double().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return module


def sequence(*shape: int, seed: int = 1) -> Tensor:
    """(B, T, C, H, W) of normal numbers in float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def prepared(module: ContextModule, steps: Tensor) -> Tensor:
    """What `prepare` and `fuse` make of a sequence."""
    return module.fuse([module.prepare(step) for step in steps.unbind(1)])
