"""Convolutional LSTM and GRU cells that work on input and state separately."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segweave.context._options import CellKind
from segweave.context.base import Prepared


class Step(NamedTuple):
    """What a cell returns at one step: its new states c and h and, in `inner`, gates and whatever
    else it had to compute on the way; each (B, C, H, W).
    """

    c: Tensor
    h: Tensor
    inner: dict[str, Tensor]


class Gates(nn.Module, ABC):
    """The gates of a cell, by one convolution of [input, h] kept in `conv`.

    `input` and `hidden` return the two summands of that convolution, `join` makes gates of them;
    `forward` does both at once, `first` is for h = 0.
    """

    conv: nn.Conv2d

    def __init__(
        self, channels: int, hidden: int, kernel_size: int, bias: bool, parts: int
    ) -> None:
        super().__init__()
        self.channels = channels
        self.width = hidden
        self.conv = nn.Conv2d(
            channels + hidden, parts * hidden, kernel_size, padding=kernel_size // 2, bias=bias
        )

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Convolve with a part of the kernel, padded as all of it is."""
        return F.conv2d(x, weight, bias, padding=self.conv.padding)

    def input(self, x: Tensor) -> Tensor:
        """What the input adds to all gates, bias included: (B, parts·hidden, H, W)."""
        return self.convolve(x, self.conv.weight[:, : self.channels], self.conv.bias)

    def without_forget(self, x: Tensor) -> Tensor:
        """What the input adds to all parts but the second one, which nothing reads at h = 0."""
        weight, bias, width = self.conv.weight[:, : self.channels], self.conv.bias, self.width
        kept = torch.cat([weight[:width], weight[2 * width :]])
        kept_bias = None if bias is None else torch.cat([bias[:width], bias[2 * width :]])
        return self.convolve(x, kept, kept_bias)

    @abstractmethod
    def hidden(self, h: Tensor) -> Tensor:
        """What h adds to the gates, as far as it depends on h alone."""

    @abstractmethod
    def join(self, from_input: Tensor, from_hidden: Tensor, h: Tensor) -> dict[str, Tensor]:
        """The gates by name, of the two summands."""

    @abstractmethod
    def forward(self, x: Tensor, h: Tensor) -> dict[str, Tensor]:
        """The gates by name."""

    @abstractmethod
    def first(self, x: Tensor, everything: bool) -> dict[str, Tensor]:
        """The gates at h = 0; unless `everything`, only those that a zero state needs."""

    @abstractmethod
    def of_input(self, from_input: Tensor) -> dict[str, Tensor]:
        """The gates at h = 0, of the input's summand."""


class LSTMGates(Gates):
    """i, f, o (sigmoid) and g (tanh), in this order in the convolution's output."""

    def __init__(self, channels: int, hidden: int, kernel_size: int, bias: bool) -> None:
        super().__init__(channels, hidden, kernel_size, bias, parts=4)

    def hidden(self, h: Tensor) -> Tensor:
        """What h adds to all four."""
        return self.convolve(h, self.conv.weight[:, self.channels :])

    def of_input(self, from_input: Tensor) -> dict[str, Tensor]:
        """All four, of the whole sum."""
        i, f, o, g = from_input.chunk(4, 1)
        return {"i": i.sigmoid(), "f": f.sigmoid(), "o": o.sigmoid(), "g": g.tanh()}

    def join(self, from_input: Tensor, from_hidden: Tensor, h: Tensor) -> dict[str, Tensor]:
        """All four, of the two summands."""
        return self.of_input(from_input + from_hidden)

    def forward(self, x: Tensor, h: Tensor) -> dict[str, Tensor]:
        """All four, by one convolution."""
        return self.of_input(self.conv(torch.cat([x, h], 1)))

    def first(self, x: Tensor, everything: bool) -> dict[str, Tensor]:
        """At h = 0; f only if `everything`: a zero c has nothing to forget."""
        if everything:
            return self.of_input(self.input(x))
        i, o, g = self.without_forget(x).chunk(3, 1)
        return {"i": i.sigmoid(), "o": o.sigmoid(), "g": g.tanh()}


class GRUGates(Gates):
    """z, r (sigmoid) and the candidate g (tanh) of [input, r·h], in this order; returned as i = z,
    f = 1 − z, r and g.
    """

    def __init__(self, channels: int, hidden: int, kernel_size: int, bias: bool) -> None:
        super().__init__(channels, hidden, kernel_size, bias, parts=3)

    def hidden(self, h: Tensor) -> Tensor:
        """What h adds to z and r (what it adds to g depends on r, hence on the input)."""
        return self.convolve(h, self.conv.weight[: 2 * self.width, self.channels :])

    def of_input(self, from_input: Tensor) -> dict[str, Tensor]:
        """At h = 0, where r has nothing to act on."""
        z, r, g = from_input.chunk(3, 1)
        z = z.sigmoid()
        return {"i": z, "f": 1 - z, "r": r.sigmoid(), "g": g.tanh()}

    def join(self, from_input: Tensor, from_hidden: Tensor, h: Tensor) -> dict[str, Tensor]:
        """All, with the convolution of r·h."""
        width = self.width
        z, r = (from_input[:, : 2 * width] + from_hidden).sigmoid().chunk(2, 1)
        from_reset = self.convolve(r * h, self.conv.weight[2 * width :, self.channels :])
        g = (from_input[:, 2 * width :] + from_reset).tanh()
        return {"i": z, "f": 1 - z, "r": r, "g": g}

    def forward(self, x: Tensor, h: Tensor) -> dict[str, Tensor]:
        """All, by two convolutions."""
        return self.join(self.input(x), self.hidden(h), h)

    def first(self, x: Tensor, everything: bool) -> dict[str, Tensor]:
        """At h = 0; r only if `everything`."""
        if everything:
            return self.of_input(self.input(x))
        z, g = self.without_forget(x).chunk(2, 1)
        z = z.sigmoid()
        return {"i": z, "f": 1 - z, "g": g.tanh()}


def make_gates(
    cell: CellKind, channels: int, hidden: int, kernel_size: int, bias: bool
) -> LSTMGates | GRUGates:
    """The gates of a cell of this kind."""
    kind = LSTMGates if cell == "lstm" else GRUGates
    return kind(channels, hidden, kernel_size, bias)


def next_cell_state(gates: dict[str, Tensor], c: Tensor | None) -> Tensor:
    """f·c + i·g; `c` None means zero."""
    new = gates["i"] * gates["g"]
    return new if c is None else gates["f"] * c + new


def next_hidden_state(gates: dict[str, Tensor], c: Tensor) -> Tensor:
    """o·tanh(c); c itself in a GRU, which has no output gate."""
    return gates["o"] * c.tanh() if "o" in gates else c


class Cell(nn.Module, ABC):
    """One layer of a recurrent context module. What depends on the input alone and what depends on
    the state alone are computed separately.

    `begin(prepare_input(x))` equals `first(x)`; `combine(prepare_input(x), prepare_state(step))`
    equals `forward(x, step.c, step.h)`.
    """

    channels: int
    width: int

    @abstractmethod
    def first(self, x: Tensor, everything: bool = False) -> Step:
        """The step from zero states; unless `everything`, without what only later readers of the
        gates would need.
        """

    @abstractmethod
    def forward(self, x: Tensor, c: Tensor, h: Tensor) -> Step:
        """The step from states c and h."""

    @abstractmethod
    def prepare_input(self, x: Tensor) -> Prepared:
        """What a step needs of its input alone."""

    @abstractmethod
    def begin(self, inputs: Prepared) -> Step:
        """The step from zero states, of a prepared input."""

    @abstractmethod
    def prepare_state(self, step: Step) -> Prepared:
        """What the next step needs of the states alone."""

    @abstractmethod
    def combine(self, inputs: Prepared, state: Prepared) -> Step:
        """The step of a prepared input and prepared states."""

    def zero_state(self, x: Tensor) -> Tensor:
        """(B, hidden, H, W) of zeros."""
        return x.new_zeros(x.shape[0], self.width, *x.shape[2:])


class RecurrentCell(Cell):
    """A convolutional LSTM without peepholes (Shi et al. 2015), or a GRU: c := h, i := z,
    f := 1 − z.
    """

    def __init__(
        self, channels: int, hidden: int, kernel_size: int, bias: bool, cell: CellKind
    ) -> None:
        super().__init__()
        self.channels = channels
        self.width = hidden
        self.gates = make_gates(cell, channels, hidden, kernel_size, bias)

    def first(self, x: Tensor, everything: bool = False) -> Step:
        """The step from zero states."""
        return self._advance(self.gates.first(x, everything), None)

    def forward(self, x: Tensor, c: Tensor, h: Tensor) -> Step:
        """The step from states c and h."""
        return self._advance(self.gates(x, h), c)

    def prepare_input(self, x: Tensor) -> Prepared:
        """The input's summand of the gates."""
        return {"gates": self.gates.input(x)}

    def begin(self, inputs: Prepared) -> Step:
        """The step from zero states, of a prepared input."""
        return self._advance(self.gates.of_input(inputs["gates"]), None)

    def prepare_state(self, step: Step) -> Prepared:
        """The state's summand of the gates, and the cell state."""
        return {"c": step.c, "hidden": self.gates.hidden(step.h)}

    def combine(self, inputs: Prepared, state: Prepared) -> Step:
        """The step of a prepared input and prepared states."""
        # Only a GRU reads h here, and its h is c.
        gates = self.gates.join(inputs["gates"], state["hidden"], state["c"])
        return self._advance(gates, state["c"])

    def _advance(self, gates: dict[str, Tensor], c: Tensor | None) -> Step:
        c = next_cell_state(gates, c)
        return Step(c, next_hidden_state(gates, c), gates)
