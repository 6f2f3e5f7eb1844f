"""The cell of the SA-embedded LSTM: attention, fusion and position code inside each step, in the
printed and in the released arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segweave.context import _options as options
from segweave.context._attention import Attention, combine
from segweave.context._cells import (
    Cell,
    Step,
    make_gates,
    next_cell_state,
    next_hidden_state,
)
from segweave.context._position import SinePositionCode, TrainablePositionCode
from segweave.context.base import Prepared

NOT_GATES = ("x", "c", "h")
"""What enters the attention without any gate: the input and the states before the step."""


def embedded_states(cell: options.CellKind) -> tuple[str, ...]:
    """What query, key and value can be made of. D is that of Algorithm 1, step 2; h_lstm is the h
    that the gates alone would give, o·tanh(f·c + i·g).
    """
    return (*NOT_GATES, *options.gate_names(cell), "D", "h_lstm")


@dataclass(frozen=True)
class EmbeddedSettings:
    """What all cells of one module share, checked."""

    form: options.Form
    kernel_size: int
    bias: bool
    cell: options.CellKind
    combination: options.Combination
    query: tuple[str, ...]
    key: tuple[str, ...]
    value: tuple[str, ...]
    attention: options.Axis
    attention_size: float | None
    heads: int
    position_code: options.PositionCode
    positions: int
    dropout: float
    lambda_skip: bool

    @property
    def uses_gates(self) -> bool:
        """Whether anything reads the gates: in form paper they act through query, key and value
        alone.
        """
        read = {*self.query, *self.key, *self.value}
        return self.form == "released" or bool(read - {*NOT_GATES})


class Fusion(nn.Module):
    """ReLU of a linear map over the channels of [state, attended]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.linear = nn.Linear(2 * width, width)

    def of_state(self, state: Tensor) -> Tensor:
        """The state's summand."""
        return F.conv2d(state, self.linear.weight[:, : self.width, None, None])

    def forward(self, from_state: Tensor | None, attended: Tensor) -> Tensor:
        """(B, hidden, H, W); `from_state` None means zero."""
        weight = self.linear.weight[:, self.width :, None, None]
        result = F.conv2d(attended, weight, self.linear.bias)
        return (result if from_state is None else from_state + result).relu()


class EmbeddedCell(Cell):
    """One layer of the SA-embedded LSTM (Algorithm 1).

    Form paper: gates i, f, o, g of [x, h]; D = o + tanh(f·c + i·g); A = attention(D, h, D); F =
    ReLU(W [c, A]); S = F + P; c' = c + S, h' = S. Form released: A = attention(x, h, x); F = ReLU(W
    [h, A]); S = sigmoid(dropout(F + P)); c' = f·c + S; h' = o·tanh(c') + i·g + S. With a GRU, whose
    h is its c: h' = h + S, and h' = f·h + i·g + S. With lambda skip, then h' := m·h' + (1 − m)·h,
    m = sigmoid(λ · mean of h' over channels).
    """

    def __init__(self, channels: int, hidden: int, settings: EmbeddedSettings) -> None:
        super().__init__()
        self.channels = channels
        self.width = hidden
        self.settings = settings
        self.gates = (
            make_gates(settings.cell, channels, hidden, settings.kernel_size, settings.bias)
            if settings.uses_gates
            else None
        )
        self.attention = Attention(
            settings.attention, hidden, settings.heads, settings.attention_size
        )
        self.fusion = Fusion(hidden)
        self.position_code: nn.Module | None = None
        if settings.position_code == "trainable":
            self.position_code = TrainablePositionCode(hidden)
        elif settings.position_code == "sine":
            self.position_code = SinePositionCode(hidden, settings.positions)
        self.dropout = nn.Dropout(settings.dropout)
        self.lambda_scale = nn.Parameter(torch.ones(1)) if settings.lambda_skip else None

    def first(self, x: Tensor, everything: bool = False) -> Step:
        """The step from zero states."""
        reads_forget = "f" in {*self.settings.query, *self.settings.key, *self.settings.value}
        gates = {} if self.gates is None else self.gates.first(x, everything or reads_forget)
        return self._first(x, gates)

    def forward(self, x: Tensor, c: Tensor, h: Tensor) -> Step:
        """The step from states c and h."""
        gates = {} if self.gates is None else self.gates(x, h)
        return self._advance(x, c, h, gates, self.fusion.of_state(self._fused_state(c, h)))

    def prepare_input(self, x: Tensor) -> Prepared:
        """The input and its summand of the gates."""
        return {"x": x} if self.gates is None else {"x": x, "gates": self.gates.input(x)}

    def begin(self, inputs: Prepared) -> Step:
        """The step from zero states, of a prepared input."""
        gates = {} if self.gates is None else self.gates.of_input(inputs["gates"])
        return self._first(inputs["x"], gates)

    def prepare_state(self, step: Step) -> Prepared:
        """The states and their summands of gates and fusion."""
        fused = self.fusion.of_state(self._fused_state(step.c, step.h))
        prepared = {"c": step.c, "h": step.h, "fused": fused}
        if self.gates is not None:
            prepared["hidden"] = self.gates.hidden(step.h)
        return prepared

    def combine(self, inputs: Prepared, state: Prepared) -> Step:
        """The step of a prepared input and prepared states."""
        h = state["h"]
        gates = {} if self.gates is None else self.gates.join(inputs["gates"], state["hidden"], h)
        return self._advance(inputs["x"], state["c"], h, gates, state["fused"])

    def _fused_state(self, c: Tensor, h: Tensor) -> Tensor:
        return h if self.settings.form == "released" else c

    def _first(self, x: Tensor, gates: dict[str, Tensor]) -> Step:
        settings = self.settings
        if self._nothing(settings.value):
            bias = self.fusion.linear.bias[None, :, None, None]
            fused = bias.relu().expand(x.shape[0], -1, *x.shape[2:])
        else:
            if self._nothing(settings.query) or self._nothing(settings.key):
                # All energies are zero, so that all values weigh the same.
                (value,) = self._combined([settings.value], x, None, None, gates)
                attended = self.attention.uniform(value)
            else:
                roles = [settings.query, settings.key, settings.value]
                attended = self.attention(*self._combined(roles, x, None, None, gates))
            fused = self.fusion(None, attended)
        c = h = positioned = self._position(fused)
        if settings.form == "released":
            h = gates["i"] * gates["g"] + positioned
            if settings.cell == "lstm":
                h = gates["o"] * c.tanh() + h
        gate = self._gate(h)
        if gate is not None:
            h = gate * h
        return Step(h if settings.cell == "gru" else c, h, gates)

    def _advance(
        self, x: Tensor, c: Tensor, h: Tensor, gates: dict[str, Tensor], from_state: Tensor
    ) -> Step:
        roles = [self.settings.query, self.settings.key, self.settings.value]
        query, key, value = self._combined(roles, x, c, h, gates)
        attended = self.attention(query, key, value)
        fused = self.fusion(from_state, attended)
        positioned = self._position(fused)
        if self.settings.form == "paper":
            next_c = c + positioned
            next_h = next_c if self.settings.cell == "gru" else positioned
        elif self.settings.cell == "gru":
            next_c = next_h = next_cell_state(gates, h) + positioned
        else:
            next_c = gates["f"] * c + positioned
            next_h = gates["o"] * next_c.tanh() + gates["i"] * gates["g"] + positioned
        inner = {
            **gates,
            "query": query,
            "key": key,
            "value": value,
            "cross_attention": attended,
            "fused": fused,
            "positioned": positioned,
        }
        gate = self._gate(next_h)
        if gate is not None:
            inner["lambda_gate"] = gate
            next_h = gate * next_h + (1 - gate) * h
            next_c = next_h if self.settings.cell == "gru" else next_c
        return Step(next_c, next_h, inner)

    def _gate(self, h: Tensor) -> Tensor | None:
        if self.lambda_scale is None:
            return None
        return (self.lambda_scale * h.mean(1, keepdim=True)).sigmoid()

    def _position(self, fused: Tensor) -> Tensor:
        if self.position_code is not None:
            fused = fused + self.position_code(*fused.shape[2:])
        if self.settings.form == "released":
            return torch.sigmoid(self.dropout(fused))
        return fused

    def _nothing(self, names: tuple[str, ...]) -> bool:
        """Whether these states, combined, are zero at the first step."""
        zero = [name in ("c", "h") for name in names]
        return all(zero) if self.settings.combination == "linear" else any(zero)

    def _combined(
        self,
        roles: Sequence[tuple[str, ...]],
        x: Tensor,
        c: Tensor | None,
        h: Tensor | None,
        gates: dict[str, Tensor],
    ) -> list[Tensor]:
        states: dict[str, Tensor] = {}
        for names in roles:
            for name in names:
                if name not in states:
                    states[name] = self._state(name, x, c, h, gates)
        return [
            combine([states[name] for name in names], self.settings.combination) for names in roles
        ]

    def _state(
        self, name: str, x: Tensor, c: Tensor | None, h: Tensor | None, gates: dict[str, Tensor]
    ) -> Tensor:
        if name == "x":
            return x
        if name in ("c", "h"):
            state = c if name == "c" else h
            return self.zero_state(x) if state is None else state
        if name in gates:
            return gates[name]
        new = next_cell_state(gates, c)
        if name == "h_lstm" or "o" not in gates:
            return next_hidden_state(gates, new)
        return gates["o"] + new.tanh()
