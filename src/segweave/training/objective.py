"""The loss of a recipe: the weighted sum of its terms over the network's whole output."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from segweave import registry
from segweave.data.specs import TargetSpec
from segweave.errors import UsageError, nearest
from segweave.networks.base import Output
from segweave.recipes.first_checks import check_losses
from segweave.recipes.recipe import LossTerm
from segweave.registry import build


class WeightedLoss(nn.Module):
    """The weighted sum of losses, computed in float32 (or float64 where the logits are).

    A loss that reads one map is called once for each output that its term names, and the values are
    added; a loss that reads all is called with the whole Output. Raises UsageError for a loss or an
    option that does not exist and, when called, for an output that the network does not have.

    Args:
        terms: the terms of the recipe.
        target: what the classes are.
    """

    def __init__(self, terms: Sequence[LossTerm], target: TargetSpec) -> None:
        super().__init__()
        self.terms = tuple(terms)
        self.losses = nn.ModuleList()
        self._reads_all: list[bool] = []
        check_losses(terms, target)
        for term in terms:
            card = registry.losses.card(term.name)
            doing = f"creating the loss {term.name!r}"
            self._reads_all.append(card.reads == "all")
            if card.reads == "all" and term.output != "logits":
                raise UsageError(
                    doing,
                    expected="no output, as this loss reads all of them",
                    found=", ".join(term.outputs),
                    remedy="its options say which it combines",
                )
            entry = registry.losses.entry(term.name)
            given = {"target": target, **term.options}
            self.losses.append(_as_module(build(doing, entry, card.options, given)))

    def forward(self, output: Output, label: Tensor) -> Tensor:
        """The network's output and the label (B, H, W) → a number."""
        maps = {"logits": output.logits, **output.auxiliary}
        total = _wide(output.logits).new_zeros(())
        for term, loss, reads_all in zip(self.terms, self.losses, self._reads_all, strict=True):
            if reads_all:
                auxiliary = {name: _wide(map) for name, map in output.auxiliary.items()}
                total = total + term.weight * loss(Output(_wide(output.logits), auxiliary), label)
                continue
            for name in term.outputs:
                # Each term has its conversion, so that it does not matter to one which others are
                # there: gradients of half precision are rounded before they are added.
                total = total + term.weight * loss(_wide(_named(maps, name, term)), label)
        return total


class _Function(nn.Module):
    """A plug-in's loss that is a plain callable."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *arguments: object) -> Tensor:
        return self.function(*arguments)


def _as_module(loss: Callable[..., Tensor]) -> nn.Module:
    return loss if isinstance(loss, nn.Module) else _Function(loss)


def _named(maps: Mapping[str, Tensor], name: str, term: LossTerm) -> Tensor:
    if name not in maps:
        raise UsageError(
            f"computing the loss {term.name!r}",
            found=f"the network has no output {name!r}",
            remedy=nearest(name, maps),
        )
    return maps[name]


def _wide(map: Tensor) -> Tensor:
    return map if map.dtype == torch.float64 else map.float()
