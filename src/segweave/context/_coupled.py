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

    reads_gates = True
    end_names: tuple[str, ...] = ("query", "key", "value", "attention")

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
        axis, size = options.attention_of(form, attention, attention_size, 88 * 88)
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
        self.cells = nn.ModuleList(
            RecurrentCell(before, width, kernel, bias or form == "released", cell)
            for before, width in zip((channels, *hidden), hidden, strict=False)
        )
        self.attention = Attention(axis, hidden[-1], heads, size)
        self.finish(channels, out_channels)
        self.maps = self.learned_maps(hidden[-1])

    def learned_maps(self, width: int) -> nn.ModuleDict:
        """The learned maps before the attention by role, none of them by default; `width` is that
        of the last layer.
        """
        return nn.ModuleDict()

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
