"""Self-attention of the states of an LSTM: how query, key and value are made of them (SA-LSTM,
LSTM-SA), and a cell with such an attention inside.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from segweave.context import _options as options
from segweave.context._attention import Attention, combine
from segweave.context._cells import RecurrentCell, Step

ROLES = ("query", "key", "value")


@dataclass(frozen=True)
class Coupling:
    """How query, key and value are made of the states of an LSTM at one step; without parameters.

    Attributes:
        combined: the states that are combined, per role.
        combination: "linear" or "relu" (Eq. 4).
        weighs_h: whether the combination weighs h, element by element (LSTM-SA, Eq. 5), or is the
            matrix itself (SA-LSTM, Eq. 3).
    """

    combined: dict[str, tuple[str, ...]]
    combination: options.Combination
    weighs_h: bool

    def combination_of(self, role: str, step: Step) -> Tensor:
        """The states that are chosen for `role` (query, key or value), combined (Eq. 4)."""
        every = {**step.inner, "c": step.c, "h": step.h}
        return combine([every[name] for name in self.combined[role]], self.combination)

    def projected(self, role: str, step: Step, maps: nn.ModuleDict) -> Tensor:
        """What the learned map of `role` reads, through it where there is one: h where it is
        weighed, else the combination.
        """
        x = step.h if self.weighs_h else self.combination_of(role, step)
        if role not in maps:
            return x
        module = maps[role]
        if isinstance(module, nn.Linear):
            return F.conv2d(x, module.weight[:, :, None, None], module.bias)
        result: Tensor = module(x)
        return result

    def matrix(self, role: str, step: Step, maps: nn.ModuleDict) -> Tensor:
        """Q, K or V (`role` "query", "key", "value") as a map (B, C, H, W)."""
        projected = self.projected(role, step, maps)
        return self.combination_of(role, step) * projected if self.weighs_h else projected

    def attend(self, attention: Attention, step: Step, maps: nn.ModuleDict) -> Tensor:
        """The attention of the three, (B, C, H, W)."""
        result: Tensor = attention(*(self.matrix(role, step, maps) for role in ROLES))
        return result

    def read(
        self, attention: Attention, step: Step, maps: nn.ModuleDict, names: Collection[str]
    ) -> dict[str, Tensor]:
        """Those of query, key, value, attention (B, tokens, tokens), and per role "coefficient_"
        and "projected_" that are asked for.
        """
        result: dict[str, Tensor] = {}
        for role in ROLES:
            if role in names:
                result[role] = self.matrix(role, step, maps)
            if f"coefficient_{role}" in names:
                result[f"coefficient_{role}"] = self.combination_of(role, step)
            if f"projected_{role}" in names:
                result[f"projected_{role}"] = self.projected(role, step, maps)
        if "attention" in names:
            query, key = (self.matrix(role, step, maps) for role in ROLES[:2])
            result["attention"] = attention.weights(query, key)
        return result


class AttendingCell(RecurrentCell):
    """A convolutional LSTM whose h is the attention of its states: the states of the step,
    with h_lstm = o·tanh(c) as their h, make query, key and value, and the result is the h that the
    next step and the next layer read. c is that of the LSTM; in a GRU, whose h is its c, both are
    the result.
    """

    def __init__(
        self,
        *gates: Any,
        coupling: Coupling,
        attention: Attention,
        maps: nn.ModuleDict,
    ) -> None:
        super().__init__(*gates)
        self.coupling = coupling
        self.attention = attention
        self.maps = maps
        read = {name for names in coupling.combined.values() for name in names}
        self.reads_all_gates = bool(read & {"f", "r"})

    def first(self, x: Tensor, everything: bool = False) -> Step:
        """The step from zero states."""
        return super().first(x, everything or self.reads_all_gates)

    def lstm_step(self, step: Step) -> Step:
        """The states that the attention of a step read."""
        h = step.inner["h_lstm"]
        return Step(step.c if "o" in step.inner else h, h, step.inner)

    def _advance(self, gates: dict[str, Tensor], c: Tensor | None) -> Step:
        step = super()._advance(gates, c)
        h = self.coupling.attend(self.attention, step, self.maps)
        return Step(step.c if "o" in gates else h, h, {**gates, "h_lstm": step.h})
