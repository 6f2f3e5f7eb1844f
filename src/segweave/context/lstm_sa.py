"""LSTM-SA: LSTM states weigh h, element by element, to give query, key and value of self-attention;
also its non-linear form.
"""

from __future__ import annotations

from torch import nn

from segweave.context._coupled import LSTMCoupledAttention
from segweave.errors import UsageError
from segweave.registry import ContextCard

TIP = "Sparse Coding Inspired LSTM and Self-Attention Integration (TIP 2024)"

CARDS = (
    ContextCard(
        name="lstm-sa",
        title="LSTM-SA: LSTM states as weights of h in query, key and value",
        entry="LSTMCoupledSA",
        paper=TIP,
        forms=("paper", "released"),
        equations="Eq. 5",
    ),
    ContextCard(
        name="lstm-sa-nonlinear",
        title="LSTM-SA with the ReLU of products in place of means",
        entry="LSTMCoupledSA",
        paper=f"{TIP}, Table IV",
        forms=("paper", "released"),
        kind="ablation",
        equations="Eq. 4 (second line), Eq. 5",
        options={"combination": "relu"},
    ),
)

RELEASED_MAPS = {"query": "q_matrix", "key": "k_matrix", "value": "v_matrix"}


class LSTMCoupledSA(LSTMCoupledAttention):
    """LSTM-SA (TIP 2024, Eq. 5): Q = W_Q ⊙ h, K = W_K ⊙ h, V = W_V ⊙ h of the last step and layer
    enter one self-attention; W_Q = (f + c) / 2, W_K = (g + h) / 2, W_V = h are those of Eq. 4. With
    when="each-step" every cell has such an attention, and its result is the cell's h.

    Form `paper`: no learned maps by default, so that V = h² and the attention's result lies in
    [0, 1); attention between positions, scaled by the width. Form `released`: h passes through a
    linear map over channels with bias before it is weighed (so the last hidden width must equal
    `channels`), attention between channels, divided by √`attention_size`; kernel 5.
    `LSTMCoupledAttention` explains the options. Sequence (B, T, C, H, W) → (B, C_out, H, W).
    """

    weighs_h = True

    def _projections(self, given: bool | None, channels: int, width: int) -> bool:
        if self.form == "paper":
            return bool(given)
        if width != channels:
            raise UsageError(
                "creating the context module 'lstm-sa' in form released",
                expected=f"a last hidden width equal to the {channels} input channels: the "
                "learned maps of h have that side",
                found=f"hidden_channels ending in {width}",
                remedy=f'hidden_channels=(..., {channels}), or form="paper"',
            )
        if given is False:
            raise UsageError(
                "creating the context module 'lstm-sa' in form released",
                expected="projections=True: that code has learned maps of h",
                found="projections=False",
                remedy='form="paper"',
            )
        return True

    def _map(self, width: int) -> nn.Module:
        return nn.Linear(width, width)

    def _released_name(self, name: str) -> str:
        for role, matrix in RELEASED_MAPS.items():
            name = name.replace(f"maps.{role}.", f"attention.{matrix}.")
        return super()._released_name(name)
