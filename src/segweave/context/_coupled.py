"""What SA-LSTM and LSTM-SA share: an LSTM, and one self-attention that reads its last states."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Sequence

from torch import Tensor, nn

from segweave.context import _options as options
from segweave.context._attention import Attention, combine
from segweave.context._cells import RecurrentCell, Step
from segweave.context._recurrent import RecurrentContext


class LSTMCoupledAttention(RecurrentContext):
    """What SA-LSTM and LSTM-SA share: the cells, and one attention after the last step that reads
    states of the last layer.
    """

    reads_gates = True
    end_names: tuple[str, ...] = ("query", "key", "value", "attention")

    def __init__(
        self,
        channels: int,
        *,
        out_channels: int | None,
        form: options.Form,
        hidden_channels: int | Sequence[int] | None,
        kernel_size: int | None,
        bias: bool,
        cell: options.CellKind,
        combination: options.Combination,
        query: options.StateNames,
        key: options.StateNames,
        value: options.StateNames,
        attention: options.Axis | None,
        attention_size: float | None,
        heads: int,
    ) -> None:
        super().__init__()
        options.choice("form", form, ("paper", "released"))
        options.choice("cell", cell, ("lstm", "gru"))
        options.choice("combination", combination, ("linear", "relu"))
        released = form == "released"
        attention = attention or ("channels" if released else "positions")
        options.choice("attention", attention, ("positions", "channels"))
        if attention_size is None and released:
            attention_size = 88 * 88  # as the released training script sets it
        self.form = form
        self.combination: options.Combination = combination
        self.inner_names = options.gate_names(cell)
        states = (*self.inner_names, "c", "h")
        self.combined = {
            "query": options.state_names("query", query, states),
            "key": options.state_names("key", key, states),
            "value": options.state_names("value", value, states),
        }
        hidden = options.widths(hidden_channels, channels)
        kernel = options.odd_kernel(kernel_size, form)
        # The released code takes `bias` and never reads it.
        bias = bias or released
        self.cells = nn.ModuleList(
            RecurrentCell(before, width, kernel, bias, cell)
            for before, width in zip((channels, *hidden), hidden, strict=False)
        )
        self.attention = Attention(attention, hidden[-1], heads, attention_size)
        self.finish(channels, out_channels)

    def combination_of(self, role: str, step: Step) -> Tensor:
        """The states that are chosen for `role` (query, key or value), combined (Eq. 4)."""
        every = {**step.inner, "c": step.c, "h": step.h}
        return combine([every[name] for name in self.combined[role]], self.combination)

    @abstractmethod
    def matrix(self, role: str, step: Step) -> Tensor:
        """Q, K or V (`role` "query", "key", "value") as a map (B, C, H, W)."""

    def read_out(self, step: Step) -> Tensor:
        """The attention of the last step's states."""
        result: Tensor = self.attention(
            self.matrix("query", step), self.matrix("key", step), self.matrix("value", step)
        )
        return result

    def read_end(self, step: Step, names: Collection[str]) -> dict[str, Tensor]:
        """query, key, value (B, C, H, W), attention (B, tokens, tokens)."""
        result = {role: self.matrix(role, step) for role in self.combined if role in names}
        if "attention" in names:
            result["attention"] = self.attention.weights(
                self.matrix("query", step), self.matrix("key", step)
            )
        return result
