"""What SA-LSTM and LSTM-SA share: an LSTM, and self-attention that reads its states, once after the
last step or inside every step of every layer.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import ClassVar, Literal

from torch import Tensor, nn

from segweave.context import _options as options
from segweave.context._attention import Attention
from segweave.context._cells import Cell, RecurrentCell, Step
from segweave.context._coupling import ROLES, AttendingCell, Coupling
from segweave.context._recurrent import RecurrentContext
from segweave.errors import UsageError

When = Literal["last-step", "each-step"]


class LSTMCoupledAttention(RecurrentContext):
    """What SA-LSTM and LSTM-SA share: the cells, and one attention after the last step that reads
    states of the last layer; or, with when="each-step", an attention inside every cell.

    Args:
        channels: channels of the maps that it reads.
        out_channels: channels of the map that it returns; another number than the last hidden width
            adds a 1×1 convolution. Default: the last hidden width.
        form: "paper" or "released".
        cell: "lstm" or "gru".
        query: the states, of i, f, o, g, c, h, that are combined to the query; a GRU has r in place
            of o.
        key: those that are combined to the key.
        value: those that are combined to the value.
        combination: "linear" (the mean of the states) or "relu" (the ReLU of their product).
        projections: whether query, key and value each pass through a learned map over channels:
            of the combination, without bias (SA-LSTM), or of the h that the combination weighs,
            with bias (LSTM-SA). Default: no, except for LSTM-SA in form released, which has them.
        when: "last-step" (one attention, after the last step, of the last layer's states) or
            "each-step" (form paper only: in every cell, and its result is the h that the next step
            and the next layer read).
        attention: what attends to what, "positions" (default in form paper) or "channels" (default
            in form released).
        attention_size: the number under the root; default: the length of the vectors in form
            paper, 88² in form released, as the training script sets it.
        heads: number of heads, a divisor of the width.
        hidden_channels: hidden width of each layer; default: one layer of `channels`.
        kernel_size: side of the gates' kernels, odd; default: 3 in form paper, 5 in form released.
        bias: whether the gates have a bias; the released code ignores it and always has one.

    Raises:
        UsageError: options that do not fit.
    """

    weighs_h: ClassVar[bool]

    def __init__(
        self,
        channels: int,
        *,
        out_channels: int | None = None,
        form: options.Form = "paper",
        cell: options.CellKind = "lstm",
        query: options.StateNames = ("f", "c"),
        key: options.StateNames = ("g", "h"),
        value: options.StateNames = ("h",),
        combination: options.Combination = "linear",
        projections: bool | None = None,
        when: When = "last-step",
        attention: options.Axis | None = None,
        attention_size: float | None = None,
        heads: int = 1,
        hidden_channels: int | Sequence[int] | None = None,
        kernel_size: int | None = None,
        bias: bool = True,
    ) -> None:
        super().__init__()
        options.check_cell(form, cell)
        options.choice("combination", combination, ("linear", "relu"))
        options.choice("when", when, ("last-step", "each-step"))
        axis, size = options.attention_of(form, attention, attention_size, 88 * 88)
        self.form = form
        self.when = when
        gate_names = options.gate_names(cell)
        states = (*gate_names, "c", "h")
        given = dict(zip(ROLES, (query, key, value), strict=True))
        combined = {role: options.state_names(role, given[role], states) for role in ROLES}
        self.coupling = Coupling(combined, combination, self.weighs_h)
        hidden = options.widths(hidden_channels, channels)
        kernel = options.odd_kernel(kernel_size, form)
        mapped = self._projections(projections, channels, hidden[-1])
        names: tuple[str, ...] = (*ROLES, "attention")
        if self.weighs_h:
            names = (*names, *(f"coefficient_{role}" for role in ROLES))
            names = (*names, *(f"projected_{role}" for role in ROLES if mapped))
        cells = [
            (before, width, kernel, bias or form == "released", cell)
            for before, width in zip((channels, *hidden), hidden, strict=False)
        ]
        attentions = [Attention(axis, width, heads, size) for width in hidden]
        if when == "each-step":
            self._check_each_step()
            self.inner_names = (*gate_names, "h_lstm", *names)
            self.cells = nn.ModuleList(
                AttendingCell(
                    *settings,
                    coupling=self.coupling,
                    attention=attend,
                    maps=self._maps(width, mapped),
                )
                for settings, attend, width in zip(cells, attentions, hidden, strict=True)
            )
            self.finish(channels, out_channels)
            return
        self.inner_names, self.end_names = gate_names, names
        self.reads_gates = True
        self.cells = nn.ModuleList(RecurrentCell(*settings) for settings in cells)
        self.attention = attentions[-1]
        self.finish(channels, out_channels)
        self.maps = self._maps(hidden[-1], mapped)

    def _check_each_step(self) -> None:
        if self.form == "released":
            raise UsageError(
                "creating a context module: option when",
                expected="when='last-step' in form released: that code attends once",
                found="when='each-step'",
                remedy='form="paper"',
            )

    def _projections(self, given: bool | None, channels: int, width: int) -> bool:
        """Whether there are learned maps; `width` is that of the last layer."""
        return bool(given)

    def _maps(self, width: int, mapped: bool) -> nn.ModuleDict:
        """The learned maps of one layer by role, none of them unless `mapped`."""
        return nn.ModuleDict({role: self._map(width) for role in ROLES} if mapped else {})

    def _map(self, width: int) -> nn.Module:
        return nn.Conv2d(width, width, 1, bias=False)

    def read_out(self, step: Step) -> Tensor:
        """The attention of the last step's states."""
        if self.when == "each-step":
            return step.h
        return self.coupling.attend(self.attention, step, self.maps)

    def read_end(self, step: Step, names: Collection[str]) -> dict[str, Tensor]:
        """What the attention after the last step reads and computes; nothing where every step has
        one.
        """
        if self.when == "each-step":
            return {}
        return self.coupling.read(self.attention, step, self.maps, names)

    def read_inner(self, cell: Cell, step: Step, names: Collection[str]) -> dict[str, Tensor]:
        """States of one step; where every step attends, what its attention reads and computes."""
        result = super().read_inner(cell, step, names)
        if isinstance(cell, AttendingCell):
            read = self.coupling.read(cell.attention, cell.lstm_step(step), cell.maps, names)
            result.update(read)
        return result
