"""The optimiser of a recipe, with groups of parameters by name."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from segweave.errors import UsageError, nearest
from segweave.recipes.sections import Optimiser


def make_optimiser(
    chosen: Optimiser, network: nn.Module
) -> tuple[torch.optim.Optimizer, list[float]]:
    """The optimiser over the parameters that are trained, and the full rate of each of its groups.

    Parameters that no group of the recipe matches come first, in one group with the recipe's
    defaults. Raises UsageError where a pattern matches no parameter that is left.
    """
    groups, rates = _groups(chosen, network)
    if chosen.name == "sgd":
        return torch.optim.SGD(groups, lr=chosen.rate, momentum=chosen.momentum), rates
    kind = torch.optim.Adam if chosen.name == "adam" else torch.optim.AdamW
    return kind(groups, lr=chosen.rate, betas=chosen.betas), rates


def _groups(chosen: Optimiser, network: nn.Module) -> tuple[list[dict[str, Any]], list[float]]:
    left = {name: p for name, p in network.named_parameters() if p.requires_grad}
    names = list(left)
    groups: list[dict[str, Any]] = []
    rates: list[float] = []
    for group in chosen.groups:
        matched = [name for name in left if fnmatchcase(name, group.match)]
        if not matched:
            raise _nothing_matched(group.match, names)
        decay = chosen.weight_decay if group.weight_decay is None else group.weight_decay
        rates.append(chosen.rate if group.rate is None else group.rate)
        parameters = [left.pop(name) for name in matched]
        groups.append({"params": parameters, "lr": rates[-1], "weight_decay": decay})
    if left:
        defaults = {"params": list(left.values()), "weight_decay": chosen.weight_decay}
        return [{**defaults, "lr": chosen.rate}, *groups], [chosen.rate, *rates]
    return groups, rates


def _nothing_matched(pattern: str, names: Iterable[str]) -> UsageError:
    doing = "choosing parameters for training.optimiser.groups"
    if any(fnmatchcase(name, pattern) for name in names):
        return UsageError(
            doing,
            expected=f"parameters that {pattern!r} matches and no earlier group takes",
            found="none",
            remedy="put the narrower pattern first",
        )
    return UsageError(
        doing,
        expected=f"a parameter whose name matches {pattern!r}",
        found="none",
        remedy=nearest(pattern.replace("*", ""), names),
    )
