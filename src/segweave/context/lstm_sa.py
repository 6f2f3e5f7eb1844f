"""LSTM-SA: LSTM states weigh h, element by element, to give query, key and value of self-attention;
also its non-linear form.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from segweave.context import _options as options
from segweave.context._cells import Step
from segweave.context._coupled import LSTMCoupledAttention
from segweave.errors import UsageError
from segweave.registry import ContextCard

CARDS = (
    ContextCard(
        name="lstm-sa",
        title="LSTM-SA: LSTM states as weights of h in query, key and value",
        entry="LSTMCoupledSA",
        paper="Sparse Coding Inspired LSTM and Self-Attention Integration (TIP 2024)",
        forms=("paper", "released"),
        equations="Eq. 5",
    ),
    ContextCard(
        name="lstm-sa-nonlinear",
        title="LSTM-SA with the ReLU of products in place of means",
        entry="LSTMCoupledSA",
        paper="Sparse Coding Inspired LSTM and Self-Attention Integration (TIP 2024), Table IV",
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
    √`attention_size`; kernel 5; `bias` is ignored. Other options as in `SACoupledLSTM`. Sequence
    (B, T, C, H, W) → (B, C_out, H, W). Raises UsageError for options that don't fit.
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
        self.maps = nn.ModuleDict()
        if form == "released":
            if width != channels:
                raise UsageError(
                    "creating the context module 'lstm-sa' in form released",
                    expected=f"a last hidden width equal to the {channels} input channels: the "
                    "learned maps of h have that side",
                    found=f"hidden_channels ending in {width}",
                    remedy=f'hidden_channels=(..., {channels}), or form="paper"',
                )
            self.maps = nn.ModuleDict({role: nn.Linear(width, width) for role in RELEASED_MAPS})
        coefficients = tuple(f"coefficient_{role}" for role in self.combined)
        projected = tuple(f"projected_{role}" for role in self.maps)
        self.end_names = (*self.combined, "attention", *coefficients, *projected)

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
