"""The ablation without LSTM: self-attention alone, from the current map to all steps."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from segweave.context import _options as options
from segweave.context._attention import Attention
from segweave.context.base import ContextModule, Prepared
from segweave.errors import UsageError, nearest
from segweave.registry import ContextCard

CARD = ContextCard(
    name="sa-only",
    title="Self-attention without LSTM",
    entry="SAOnly",
    paper="Sparse Coding Inspired LSTM and Self-Attention Integration (TIP 2024), Table IV",
    forms=("paper", "released"),
    kind="ablation",
)

ROLES = ("query", "key", "value")


class SAOnly(ContextModule):
    """Self-attention whose query is the current (last) map.

    Keys and values come from all steps (`reads` "window") or from the current one alone ("step").
    `projections` puts a learned map without bias on each of them. `attention`, `attention_size`,
    `heads` as in `SACoupledLSTM`. Sequence (B, T, C, H, W) → (B, C_out, H, W). Raises UsageError
    for options that don't fit.
    """

    def __init__(
        self,
        channels: int,
        *,
        out_channels: int | None = None,
        form: options.Form = "paper",
        attention: options.Axis | None = None,
        attention_size: float | None = None,
        heads: int = 1,
        projections: bool = True,
        reads: Literal["window", "step"] = "window",
    ) -> None:
        super().__init__()
        options.choice("form", form, ("paper", "released"))
        options.choice("reads", reads, ("window", "step"))
        axis, size = options.attention_of(form, attention, attention_size, 88 * 88)
        (width,) = options.widths(None, channels)
        self.channels = width
        self.reads = reads
        self.attention = Attention(axis, width, heads, size)
        self.maps = nn.ModuleDict(
            {role: nn.Conv2d(width, width, 1, bias=False) for role in ROLES} if projections else {}
        )
        self.out_channels = width if out_channels is None else out_channels
        self.project: nn.Module = (
            nn.Identity() if width == self.out_channels else nn.Conv2d(width, self.out_channels, 1)
        )

    def forward(self, sequence: Tensor) -> Tensor:
        """(B, T, C, H, W) → (B, C_out, H, W)."""
        steps = sequence.unbind(1)
        return self._output(self._prepare(steps[-1], ROLES), self._earlier(steps[:-1]))

    def prepare(self, step: Tensor) -> Prepared:
        """Query, key and value of one step."""
        return self._prepare(step, ROLES)

    def fuse(self, prepared: Sequence[Prepared]) -> Tensor:
        """Prepared steps in reading order → (B, C_out, H, W)."""
        *earlier, current = prepared
        return self._output(current, earlier if self.reads == "window" else [])

    def states(self, sequence: Tensor, names: Collection[str]) -> dict[str, Tensor]:
        """`query` of the current step (B, C, H, W), `key` and `value` of all steps that are read
        (batch, time, C, H, W), `attention` (batch, query tokens, key tokens; with heads before the
        tokens where there are several), `output`. Raises UsageError for other names.
        """
        known = (*ROLES, "attention", "output")
        for name in names:
            if name not in known:
                raise UsageError(
                    f"reading states of {type(self).__name__}",
                    expected=", ".join(known),
                    found=name,
                    remedy=nearest(name, known),
                )
        steps = sequence.unbind(1)
        current = self._prepare(steps[-1], ROLES)
        earlier = self._earlier(steps[:-1])
        result = {"query": current["query"]}
        for role in ("key", "value"):
            result[role] = torch.stack([step[role] for step in (*earlier, current)], 1)
        if "attention" in names:
            weights = self.attention.token_weights(
                self.attention.tokens(current["query"]), self._tokens("key", current, earlier)
            )
            result["attention"] = weights[:, 0] if self.attention.heads == 1 else weights
        if "output" in names:
            result["output"] = self._output(current, earlier)
        return {name: result[name] for name in names}

    def _prepare(self, step: Tensor, roles: Sequence[str]) -> Prepared:
        return {role: self.maps[role](step) if role in self.maps else step for role in roles}

    def _earlier(self, steps: Sequence[Tensor]) -> list[Prepared]:
        if self.reads == "step":
            return []
        return [self._prepare(step, ("key", "value")) for step in steps]

    def _tokens(self, role: str, current: Prepared, earlier: Sequence[Prepared]) -> Tensor:
        return torch.cat([self.attention.tokens(step[role]) for step in (*earlier, current)], 2)

    def _output(self, current: Prepared, earlier: Sequence[Prepared]) -> Tensor:
        query = current["query"]
        attended = self.attention.attend(
            self.attention.tokens(query),
            self._tokens("key", current, earlier),
            self._tokens("value", current, earlier),
        )
        result: Tensor = self.project(self.attention.maps(attended, *query.shape[2:]))
        return result
