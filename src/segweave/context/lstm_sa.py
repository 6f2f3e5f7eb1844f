"""LSTM-SA: LSTM states weigh h, element by element, to give query, key and value of self-attention;
also its non-linear form.
"""

from __future__ import annotations

from collections.abc import Collection

import torch.nn.functional as F
from torch import Tensor, nn

from segweave.context._cells import Step
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
    enter one self-attention; W_Q = (f + c) / 2, W_K = (g + h) / 2, W_V = h are those of Eq. 4.

    Form `paper`: no learned maps, attention between positions, scaled by the width. Form
    `released`: h passes through a linear map over channels with bias before it is weighed (so the
    last hidden width must equal `channels`), attention between channels, divided by
    √`attention_size`; kernel 5. `LSTMCoupledAttention` explains the options. Sequence (B, T, C, H,
    W) → (B, C_out, H, W).
    """

    def learned_maps(self, width: int) -> nn.ModuleDict:
        """In form released one linear map per role, with bias."""
        coefficients = tuple(f"coefficient_{role}" for role in self.combined)
        if self.form == "paper":
            self.end_names = (*self.end_names, *coefficients)
            return nn.ModuleDict()
        if width != self.channels:
            raise UsageError(
                "creating the context module 'lstm-sa' in form released",
                expected=f"a last hidden width equal to the {self.channels} input channels: the "
                "learned maps of h have that side",
                found=f"hidden_channels ending in {width}",
                remedy=f'hidden_channels=(..., {self.channels}), or form="paper"',
            )
        projected = tuple(f"projected_{role}" for role in RELEASED_MAPS)
        self.end_names = (*self.end_names, *coefficients, *projected)
        return nn.ModuleDict({role: nn.Linear(width, width) for role in RELEASED_MAPS})

    def projected(self, role: str, step: Step) -> Tensor:
        """h, in form released through the learned map of `role`."""
        if role not in self.maps:
            return step.h
        linear = self.maps[role]
        assert isinstance(linear, nn.Linear)
        return F.conv2d(step.h, linear.weight[:, :, None, None], linear.bias)

    def matrix(self, role: str, step: Step) -> Tensor:
        """Q, K or V (`role` "query", "key", "value") as a map (B, C, H, W)."""
        return self.combination_of(role, step) * self.projected(role, step)

    def read_end(self, step: Step, names: Collection[str]) -> dict[str, Tensor]:
        """query, key, value, their coefficients and projections (B, C, H, W), and attention."""
        result = super().read_end(step, names)
        for role in self.combined:
            if f"coefficient_{role}" in names:
                result[f"coefficient_{role}"] = self.combination_of(role, step)
            if f"projected_{role}" in names:
                result[f"projected_{role}"] = self.projected(role, step)
        return result

    def _released_name(self, name: str) -> str:
        for role, matrix in RELEASED_MAPS.items():
            name = name.replace(f"maps.{role}.", f"attention.{matrix}.")
        return super()._released_name(name)
