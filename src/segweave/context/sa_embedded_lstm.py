"""SA-embedded LSTM: self-attention inside every step of an LSTM; also its ablations."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

from torch import Tensor, nn

from segweave.author_weights import ReleasedNames
from segweave.context import _options as options
from segweave.context._cells import Cell, Step
from segweave.context._embedded_cell import EmbeddedCell, EmbeddedSettings, embedded_states
from segweave.context._recurrent import RecurrentContext, with_prefix
from segweave.context._state_space import RELEASED_NAMES, RELEASED_TABLES, StateSpaceCell
from segweave.context.base import Prepared
from segweave.errors import UsageError
from segweave.registry import ContextCard

PAPER = "Enhancing Medical Image Segmentation with Self-Attention-Embedded LSTM Mechanism"

CARDS = (
    ContextCard(
        name="sa-embedded-lstm",
        title="SA-embedded LSTM: self-attention inside every LSTM step",
        entry="SAEmbeddedLSTM",
        paper=PAPER,
        forms=("paper", "released"),
        equations="Algorithm 1",
    ),
    ContextCard(
        name="sa-embedded-lstm-no-position",
        title="SA-embedded LSTM without position code",
        entry="SAEmbeddedLSTM",
        paper=f"{PAPER}, Table III",
        forms=("paper", "released"),
        kind="ablation",
        options={"position_code": "none"},
    ),
    ContextCard(
        name="sa-xxx",
        title="SA-embedded LSTM with the input as query, key and value",
        entry="SAEmbeddedLSTM",
        paper=f"{PAPER}, Table III",
        forms=("paper", "released"),
        kind="ablation",
        options={"query": ("x",), "key": ("x",), "value": ("x",)},
    ),
    ContextCard(
        name="sa-hhh",
        title="SA-embedded LSTM with the hidden state as query, key and value",
        entry="SAEmbeddedLSTM",
        paper=f"{PAPER}, Table III",
        forms=("paper", "released"),
        kind="ablation",
        options={"query": ("h_lstm",), "key": ("h_lstm",), "value": ("h_lstm",)},
    ),
    ContextCard(
        name="hidden-as-query",
        title="SA-embedded LSTM: h as query, D (form released: x) as key and value",
        entry="SAEmbeddedLSTM",
        paper=f"{PAPER}, Fig. 8",
        forms=("paper", "released"),
        kind="ablation",
        equations="Algorithm 1, line 10 with other roles",
        options={"hidden_as": "query"},
    ),
    ContextCard(
        name="hidden-as-key",
        title="SA-embedded LSTM: h as key, D (form released: x) as query and value",
        entry="SAEmbeddedLSTM",
        paper=f"{PAPER}, Fig. 8",
        forms=("paper", "released"),
        kind="ablation",
        equations="Algorithm 1",
        options={"hidden_as": "key"},
    ),
    ContextCard(
        name="hidden-as-value",
        title="SA-embedded LSTM: h as value, D (form released: x) as query and key",
        entry="SAEmbeddedLSTM",
        paper=f"{PAPER}, Fig. 8",
        forms=("paper", "released"),
        kind="ablation",
        equations="Algorithm 1, line 10 with other roles",
        options={"hidden_as": "value"},
    ),
    ContextCard(
        name="lstm-as-query",
        title="SA-embedded LSTM: D as query, input as key and value",
        entry="SAEmbeddedLSTM",
        paper=f"{PAPER}, Fig. 8",
        forms=("paper", "released"),
        kind="ablation",
        options={"query": ("D",), "key": ("x",), "value": ("x",)},
    ),
    ContextCard(
        name="lstm-as-key",
        title="SA-embedded LSTM: D as key, input as query and value",
        entry="SAEmbeddedLSTM",
        paper=f"{PAPER}, Fig. 8",
        forms=("paper", "released"),
        kind="ablation",
        options={"query": ("x",), "key": ("D",), "value": ("x",)},
    ),
    ContextCard(
        name="lstm-as-value",
        title="SA-embedded LSTM: D as value, input as query and key",
        entry="SAEmbeddedLSTM",
        paper=f"{PAPER}, Fig. 8",
        forms=("paper", "released"),
        kind="ablation",
        options={"query": ("x",), "key": ("x",), "value": ("D",)},
    ),
)


class SAEmbeddedLSTM(RecurrentContext):
    """The LSTM with self-attention in each step (LSTMSA paper, Algorithm 1; `EmbeddedCell` has the
    arithmetic of both forms). Output: h of the last step and layer.

    Form `paper`: Q = V = D, K = h, a trainable position code that is interpolated to the size of
    the map; layers run side by side, each with separate states. Form `released`: Q = V = x, K = h,
    a table of sines as position code; all widths equal `channels` (even, or 1); a layer runs over
    the whole sequence before the next one, which starts from its last states. Sequence (B, T, C, H,
    W) → (B, C_out, H, W).

    In form `paper` the first step that a direction reads reaches the result as one number per
    channel: its K = h = 0, so that the attention is a mean over all places. In a window of three
    both neighbours are such steps. About four in ten channels of the fusion's ReLU are dead at the
    start, and with one to four channels now and then all of a direction.

    Args:
        channels: channels of the maps that it reads.
        out_channels: channels of the map that it returns; another number than the last hidden width
            adds a 1×1 convolution. Default: the last hidden width.
        form: "paper" or "released".
        cell: "lstm" or "gru".
        query: the states that are combined to the query: x, the c and h before the step, i, f, o,
            g, D, h_lstm; a GRU has r in place of o. Default: D in form paper, x in form released.
        key: those that are combined to the key; default: h.
        value: those that are combined to the value; default as for the query.
        hidden_as: which of query, key and value is the h before the step, where they are not given;
            the other two are the default of the query.
        combination: "linear" (the mean of the states) or "relu" (the ReLU of their product).
        attention: what attends to what, "positions" (default in form paper) or "channels" (default
            in form released).
        attention_size: the number under the root; default: the length of the vectors in form
            paper, 224² in form released, where it also is the length of the position table.
        heads: number of heads, a divisor of the width.
        hidden_channels: hidden width of each layer; default: one layer of `channels`.
        kernel_size: side of the gates' kernels, odd; default: 3 in form paper, 5 in form released.
        bias: whether the gates have a bias.
        position_code: "trainable" (form paper), "sine" (form released) or "none".
        dropout: probability of the dropout after the position code in form released; default 0.1.
        use_lambda_skip_connections: mix each new h with the one before by a learned gate.
        use_state_space_sequencing: form released only; S4 models replace the cells and never read
            the input.

    Raises:
        UsageError: options or sizes that do not fit.
    """

    def __init__(
        self,
        channels: int,
        *,
        out_channels: int | None = None,
        form: options.Form = "paper",
        cell: options.CellKind = "lstm",
        query: options.StateNames | None = None,
        key: options.StateNames | None = None,
        value: options.StateNames | None = None,
        hidden_as: Literal["query", "key", "value"] = "key",
        combination: options.Combination = "linear",
        attention: options.Axis | None = None,
        attention_size: float | None = None,
        heads: int = 1,
        hidden_channels: int | Sequence[int] | None = None,
        kernel_size: int | None = None,
        bias: bool = True,
        position_code: options.PositionCode | None = None,
        dropout: float | None = None,
        use_lambda_skip_connections: bool = False,
        use_state_space_sequencing: bool = False,
    ) -> None:
        super().__init__()
        released = form == "released"
        options.check_cell(form, cell)
        options.choice("combination", combination, ("linear", "relu"))
        axis, size = options.attention_of(form, attention, attention_size, 224 * 224)
        codes = ("sine", "none") if released else ("trainable", "none")
        chosen = options.choice("position_code", position_code or codes[0], codes)
        hidden = options.widths(hidden_channels, channels)
        states = embedded_states(cell)
        options.choice("hidden_as", hidden_as, ("query", "key", "value"))
        usual = dict.fromkeys(("query", "key", "value"), "x" if released else "D")
        usual[hidden_as] = "h"
        roles = {
            role: options.state_names(role, usual[role] if names is None else names, states)
            for role, names in (("query", query), ("key", key), ("value", value))
        }
        settings = EmbeddedSettings(
            form=form,
            kernel_size=options.odd_kernel(kernel_size, form),
            bias=bias,
            cell=cell,
            combination=combination,
            **roles,
            attention=axis,
            attention_size=size,
            heads=heads,
            position_code="none" if chosen == "none" else "sine" if released else "trainable",
            positions=_table_length(size) if released else 0,
            dropout=(0.1 if released else 0.0) if dropout is None else dropout,
            lambda_skip=use_lambda_skip_connections,
        )
        _check_widths(settings, channels, hidden)
        self.form = form
        self.state_space = use_state_space_sequencing
        self.inner_names: tuple[str, ...] = ()
        pairs = list(zip((channels, *hidden), hidden, strict=False))
        if use_state_space_sequencing:
            if not released:
                raise UsageError(
                    "creating a context module: option use_state_space_sequencing",
                    expected='form="released"',
                    found=f'form="{form}": no paper describes it',
                )
            self.cells = nn.ModuleList(
                StateSpaceCell(before, width, settings.positions) for before, width in pairs
            )
        else:
            self.cells = nn.ModuleList(
                EmbeddedCell(before, width, settings) for before, width in pairs
            )
            self.inner_names = (
                *(options.gate_names(cell) if settings.uses_gates else ()),
                *("query", "key", "value", "attention", "cross_attention", "fused", "positioned"),
                *(("lambda_gate",) if use_lambda_skip_connections else ()),
            )
        self.finish(channels, out_channels)

    def read_out(self, step: Step) -> Tensor:
        """The hidden state."""
        return step.h

    def read_inner(self, cell: Cell, step: Step, names: Collection[str]) -> dict[str, Tensor]:
        """States of one step; the attention's weights are computed only where asked for."""
        result = super().read_inner(cell, step, names)
        if "attention" in names and isinstance(cell, EmbeddedCell):
            result["attention"] = cell.attention.weights(step.inner["query"], step.inner["key"])
        return result

    def forward(self, sequence: Tensor) -> Tensor:
        """(B, T, C, H, W) → (B, C_out, H, W)."""
        if self.form == "paper" or len(self.cells) == 1:
            return super().forward(sequence)
        first, *later = sequence.unbind(1)
        cell = self._cell(0)
        steps = [cell.first(first)]
        for x in later:
            steps.append(cell(x, steps[-1].c, steps[-1].h))
        return self._output(self._run_on(steps)[-1][-1])

    def prepare(self, step: Tensor) -> Prepared:
        """As in all recurrent modules; in form released only the first layer depends on one step
        alone.
        """
        if self.form == "paper":
            return super().prepare(step)
        cell = self._cell(0)
        inputs = cell.prepare_input(step)
        begun = cell.prepare_state(cell.begin(inputs))
        return {
            **{f"0.input.{name}": value for name, value in inputs.items()},
            **{f"0.state.{name}": value for name, value in begun.items()},
        }

    def fuse(self, prepared: Sequence[Prepared]) -> Tensor:
        """Prepared steps in reading order → (B, C_out, H, W)."""
        if self.form == "paper":
            return super().fuse(prepared)
        cell = self._cell(0)
        state = with_prefix(prepared[0], "0.state.")
        steps = [Step(state.get("c", state["h"]), state["h"], {})]
        for current in prepared[1:]:
            steps.append(cell.combine(with_prefix(current, "0.input."), state))
            if len(steps) < len(prepared):
                state = cell.prepare_state(steps[-1])
        return self._output(self._run_on(steps)[-1][-1])

    def released_names(self) -> ReleasedNames:
        """As in all recurrent modules, and the position tables; with state-space sequencing the
        released convolution and fusion are dead.
        """
        names = super().released_names()
        cells = [f"cell{layer}." for layer in range(len(self.cells))]
        fixed = {f"{cell}position_encoding.pe" for cell in cells}
        if not self.state_space:
            return ReleasedNames(names.tensors, frozenset(fixed))
        fixed.update(
            f"{cell}state_space_sequencing.s4.{table}"
            for cell in cells
            for table in RELEASED_TABLES
        )
        unread = ("conv.weight", "conv.bias", "fusion.linear.weight", "fusion.linear.bias")
        dead = {f"{cell}{name}" for cell in cells for name in (*unread, "lambda_scale")}
        return ReleasedNames(names.tensors, frozenset(fixed), frozenset(dead))

    def _released_name(self, name: str) -> str:
        cell, separator, leaf = name.partition(".s4.")
        if separator:
            return (
                f"{cell.replace('cells.', 'cell')}.state_space_sequencing.s4.{RELEASED_NAMES[leaf]}"
            )
        return super()._released_name(name)

    def _trace(self, sequence: Tensor) -> list[list[Step]]:
        if self.form == "paper":
            return super()._trace(sequence)
        steps: list[Step] = []
        cell = self._cell(0)
        for x in sequence.unbind(1):
            zero = cell.zero_state(x)
            steps.append(cell(x, *(steps[-1][:2] if steps else (zero, zero))))
        return self._run_on(steps)

    def _run_on(self, steps: list[Step]) -> list[list[Step]]:
        """The layers above the first one, released order: each starts from the last states of the
        one below.
        """
        layers = [steps]
        for cell in self._cells()[1:]:
            last = layers[-1][-1]
            above: list[Step] = []
            for step in layers[-1]:
                last = cell(step.h, last.c, last.h)
                above.append(last)
            layers.append(above)
        return layers


def _table_length(attention_size: float | None) -> int:
    if attention_size is None or attention_size != int(attention_size) or attention_size < 1:
        raise UsageError(
            "creating a context module: option attention_size",
            expected="a whole number of positions: it is the length of the released position table",
            found=str(attention_size),
        )
    return int(attention_size)


def _check_widths(settings: EmbeddedSettings, channels: int, hidden: tuple[int, ...]) -> None:
    if settings.form == "released":
        if set(hidden) != {channels}:
            raise UsageError(
                "creating the context module 'sa-embedded-lstm' in form released",
                expected=f"hidden_channels all equal to the {channels} input channels: the states "
                "run on from layer to layer and meet the input in the attention",
                found=str(hidden),
                remedy='equal widths, or form="paper"',
            )
        return
    reads_input = "x" in (*settings.query, *settings.key, *settings.value)
    if reads_input and set(hidden) != {channels}:
        raise UsageError(
            "creating the context module 'sa-embedded-lstm' with the input x in its attention",
            expected=f"hidden_channels all equal to the {channels} input channels",
            found=str(hidden),
        )
