"""The loss of a recipe: its terms, each with its weight and the output that it reads."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from segweave import registry
from segweave.data.specs import TargetSpec
from segweave.errors import UsageError, nearest
from segweave.networks.base import Output
from segweave.recipes.recipe import LossTerm
from segweave.registry import build


class WeightedLoss(nn.Module):
    """The weighted sum of losses, computed in float32 (or float64 where the logits are).

    Raises UsageError for a loss or an option that does not exist, and, when called, for an output
    that the network does not give.
    """

    def __init__(self, terms: Sequence[LossTerm], target: TargetSpec) -> None:
        super().__init__()
        self.terms = tuple(terms)
        self.losses = nn.ModuleList()
        for term in terms:
            card = registry.losses.card(term.name)
            entry = registry.losses.entry(term.name)
            given = {"target": target, **term.options}
            self.losses.append(
                build(f"creating the loss {term.name!r}", entry, card.options, given)
            )

    def forward(self, output: Output, label: Tensor) -> Tensor:
        """The network's output and the label (B, H, W) → a number."""
        outputs = {"logits": output.logits, **output.auxiliary}
        total = output.logits.new_zeros((), dtype=_wide(output.logits))
        for term, loss in zip(self.terms, self.losses, strict=True):
            if term.output not in outputs:
                raise UsageError(
                    f"computing the loss {term.name!r}",
                    found=f"the network has no output {term.output!r}",
                    remedy=nearest(term.output, outputs),
                )
            logits = outputs[term.output]
            total = total + term.weight * loss(logits.to(_wide(logits)), label)
        return total


def _wide(logits: Tensor) -> torch.dtype:
    return torch.float64 if logits.dtype == torch.float64 else torch.float32
