"""SA-LSTM: self-attention whose query, key and value are combinations of an LSTM's states; also its
non-linear form and the stack of LSTM and self-attention.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from segweave.context import _options as options
from segweave.context._cells import Step
from segweave.context._coupled import LSTMCoupledAttention
from segweave.registry import ContextCard

CARDS = (
    ContextCard(
        name="sa-lstm",
        title="SA-LSTM: LSTM states as query, key and value of self-attention",
        entry="SACoupledLSTM",
        paper="Sparse Coding Inspired LSTM and Self-Attention Integration (TIP 2024)",
        forms=("paper", "released"),
        equations="Eq. 3, Eq. 4 (first line)",
    ),
    ContextCard(
        name="sa-lstm-nonlinear",
        title="SA-LSTM with the ReLU of products in place of means",
        entry="SACoupledLSTM",
        paper="Sparse Coding Inspired LSTM and Self-Attention Integration (TIP 2024), Table IV",
        forms=("paper", "released"),
        kind="ablation",
        equations="Eq. 3, Eq. 4 (second line)",
        options={"combination": "relu"},
    ),
    ContextCard(
        name="separate",
        title="An LSTM, then self-attention of its h, one after the other",
        entry="SACoupledLSTM",
        paper="Sparse Coding Inspired LSTM and Self-Attention Integration (TIP 2024), Table IV",
        forms=("paper", "released"),
        kind="ablation",
        equations="Fig. 2a",
        options={"query": ("h",), "key": ("h",), "value": ("h",), "projections": True},
    ),
)


class SACoupledLSTM(LSTMCoupledAttention):
    """SA-LSTM (TIP 2024, Eq. 3 and 4): Q = (f + c) / 2, K = (g + h) / 2, V = h of the last step
    and layer enter one self-attention, whose result is the output.

    Form `paper`: attention between positions, scaled by the width. Form `released`: between
    channels, divided by √`attention_size`; kernel 5; `bias` is ignored. `query`, `key`, `value`
    name the states (of i, f, o, g, c, h) that are combined, `combination` says how ("linear": mean,
    "relu": ReLU of the product). `projections` puts a learned map without bias on each of Q, K, V.
    Sequence (B, T, C, H, W) → (B, C_out, H, W). Raises UsageError for options that don't fit.
    """

    def __init__(
        self,
        channels: int,
        *,
        out_channels: int | None = None,
        form: options.Form = "paper",
        hidden_channels: int | Sequence[int] | None = None,
        kernel_size: int | None = None,
        bias: bool = True,
        cell: options.CellKind = "lstm",
        combination: options.Combination = "linear",
        query: options.StateNames = ("f", "c"),
        key: options.StateNames = ("g", "h"),
        value: options.StateNames = ("h",),
        attention: options.Axis | None = None,
        attention_size: float | None = None,
        heads: int = 1,
        projections: bool = False,
    ) -> None:
        super().__init__(
            channels,
            out_channels=out_channels,
            form=form,
            hidden_channels=hidden_channels,
            kernel_size=kernel_size,
            bias=bias,
            cell=cell,
            combination=combination,
            query=query,
            key=key,
            value=value,
            attention=attention,
            attention_size=attention_size,
            heads=heads,
        )
        width = self._cell(-1).width
        self.maps = nn.ModuleDict(
            {role: nn.Conv2d(width, width, 1, bias=False) for role in self.combined}
            if projections
            else {}
        )

    def matrix(self, role: str, step: Step) -> Tensor:
        """Q, K or V (`role` "query", "key", "value") as a map (B, C, H, W)."""
        result = self.combination_of(role, step)
        if role in self.maps:
            result = self.maps[role](result)
        return result
