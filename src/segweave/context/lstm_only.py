"""The ablation without self-attention: a convolutional LSTM (or GRU) alone."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from segweave.context import _options as options
from segweave.context._cells import RecurrentCell, Step
from segweave.context._recurrent import RecurrentContext
from segweave.registry import ContextCard

CARD = ContextCard(
    name="lstm-only",
    title="Convolutional LSTM without self-attention",
    entry="LSTMOnly",
    paper="Sparse Coding Inspired LSTM and Self-Attention Integration (TIP 2024), Table IV",
    forms=("paper", "released"),
    kind="ablation",
)


class LSTMOnly(RecurrentContext):
    """The LSTM of SA-LSTM; the output is h of the last step and layer.

    Sequence (B, T, C, H, W) → (B, C_out, H, W). `LSTMCoupledAttention` explains the options. Raises
    UsageError for options that do not fit.
    """

    def __init__(
        self,
        channels: int,
        *,
        out_channels: int | None = None,
        form: options.Form = "paper",
        cell: options.CellKind = "lstm",
        hidden_channels: int | Sequence[int] | None = None,
        kernel_size: int | None = None,
        bias: bool = True,
    ) -> None:
        super().__init__()
        options.check_cell(form, cell)
        self.form = form
        self.inner_names = options.gate_names(cell)
        hidden = options.widths(hidden_channels, channels)
        kernel = options.odd_kernel(kernel_size, form)
        self.cells = nn.ModuleList(
            RecurrentCell(before, width, kernel, bias or form == "released", cell)
            for before, width in zip((channels, *hidden), hidden, strict=False)
        )
        self.finish(channels, out_channels)

    def read_out(self, step: Step) -> Tensor:
        """The hidden state."""
        return step.h
