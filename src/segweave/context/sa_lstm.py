"""SA-LSTM: self-attention whose query, key and value are combinations of an LSTM's states; also its
non-linear form and the stack of LSTM and self-attention.
"""

from __future__ import annotations

from segweave.context._coupled import LSTMCoupledAttention
from segweave.registry import ContextCard

TIP = "Sparse Coding Inspired LSTM and Self-Attention Integration (TIP 2024)"

CARDS = (
    ContextCard(
        name="sa-lstm",
        title="SA-LSTM: LSTM states as query, key and value of self-attention",
        entry="SACoupledLSTM",
        paper=TIP,
        forms=("paper", "released"),
        equations="Eq. 3, Eq. 4 (first line)",
    ),
    ContextCard(
        name="sa-lstm-nonlinear",
        title="SA-LSTM with the ReLU of products in place of means",
        entry="SACoupledLSTM",
        paper=f"{TIP}, Table IV",
        forms=("paper", "released"),
        kind="ablation",
        equations="Eq. 3, Eq. 4 (second line)",
        options={"combination": "relu"},
    ),
    ContextCard(
        name="separate",
        title="An LSTM, then self-attention of its h, one after the other",
        entry="SACoupledLSTM",
        paper=f"{TIP}, Table IV",
        forms=("paper", "released"),
        kind="ablation",
        equations="Fig. 2a",
        options={"query": ("h",), "key": ("h",), "value": ("h",), "projections": True},
    ),
)


class SACoupledLSTM(LSTMCoupledAttention):
    """SA-LSTM (TIP 2024, Eq. 3 and 4): Q = (f + c) / 2, K = (g + h) / 2, V = h of the last step
    and layer enter one self-attention, whose result is the output. With when="each-step" every
    cell has such an attention, and its result is the cell's h.

    Form `paper`: attention between positions, scaled by the width. Form `released`: between
    channels, divided by √`attention_size`; kernel 5. `LSTMCoupledAttention` explains the options.
    Sequence (B, T, C, H, W) → (B, C_out, H, W).
    """

    weighs_h = False
