"""What all recurrent context modules share: layers of cells over the steps, the result from the
last step, states by name.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn

from segweave.author_weights import ReleasedNames
from segweave.context._cells import Cell, Step
from segweave.context._options import Form
from segweave.context.base import ContextModule, Prepared
from segweave.errors import UsageError, nearest


def with_prefix(prepared: Prepared, prefix: str) -> Prepared:
    """The tensors whose names start with `prefix`, without it."""
    return {
        name.removeprefix(prefix): value
        for name, value in prepared.items()
        if name.startswith(prefix)
    }


class RecurrentContext(ContextModule):
    """Cells in layers, each with separate states from zero; the h of a layer is the input of the
    next one at the same step.

    `read_out` turns the last step of the last layer into the result. A last hidden width other
    than `out_channels` ends in a 1×1 convolution `project`.
    """

    cells: nn.ModuleList
    form: Form
    inner_names: tuple[str, ...]  # states of each layer and step, besides c and h
    end_names: tuple[str, ...] = ()  # what exists once, after the last step
    reads_gates: bool = False  # whether `read_out` reads the gates of the last step

    def finish(self, channels: int, out_channels: int | None) -> None:
        """Set the attributes of a context module and the last convolution, once `cells` exist."""
        self.channels = channels
        width = self._cell(-1).width
        self.out_channels = width if out_channels is None else out_channels
        self.project: nn.Module = (
            nn.Identity() if width == self.out_channels else nn.Conv2d(width, self.out_channels, 1)
        )

    @abstractmethod
    def read_out(self, step: Step) -> Tensor:
        """The last step of the last layer → (B, hidden, H, W)."""

    def read_end(self, step: Step, names: Collection[str]) -> dict[str, Tensor]:
        """Those of `end_names` that are asked for."""
        return {}

    def read_inner(self, cell: Cell, step: Step, names: Collection[str]) -> dict[str, Tensor]:
        """Those of `inner_names`, c and h that are asked for."""
        every = {**step.inner, "c": step.c, "h": step.h}
        return {name: every[name] for name in names if name in every}

    def forward(self, sequence: Tensor) -> Tensor:
        """(B, T, C, H, W) → (B, C_out, H, W)."""
        first, *later = sequence.unbind(1)
        steps: list[Step] = []
        x = first
        for layer, cell in enumerate(self._cells()):
            read = len(later) == 0 and self.reads_gates and layer == len(self.cells) - 1
            steps.append(cell.first(x, everything=read))
            x = steps[-1].h
        for x in later:
            for layer, cell in enumerate(self._cells()):
                steps[layer] = cell(x, steps[layer].c, steps[layer].h)
                x = steps[layer].h
        return self._output(steps[-1])

    def prepare(self, step: Tensor) -> Prepared:
        """The gates' input convolutions of all layers, the first step from zero states, and the
        hidden convolutions of its states.
        """
        prepared: Prepared = {}
        x = step
        for layer, cell in enumerate(self._cells()):
            inputs = cell.prepare_input(x)
            begun = cell.begin(inputs)
            prepared.update({f"{layer}.input.{k}": v for k, v in inputs.items()})
            prepared.update({f"{layer}.state.{k}": v for k, v in cell.prepare_state(begun).items()})
            x = begun.h
        return prepared

    def fuse(self, prepared: Sequence[Prepared]) -> Tensor:
        """Prepared steps in reading order → (B, C_out, H, W)."""
        first, *later = prepared
        last = len(self.cells) - 1
        if not later:
            return self._output(self._cell(last).begin(with_prefix(first, f"{last}.input.")))
        states = [with_prefix(first, f"{layer}.state.") for layer in range(len(self.cells))]
        steps: list[Step] = []
        for number, current in enumerate(later):
            if number:
                states = [
                    cell.prepare_state(step)
                    for cell, step in zip(self._cells(), steps, strict=True)
                ]
            inputs = with_prefix(current, "0.input.")
            steps = []
            for layer, cell in enumerate(self._cells()):
                if layer:
                    inputs = cell.prepare_input(steps[-1].h)
                steps.append(cell.combine(inputs, states[layer]))
        return self._output(steps[-1])

    def states(self, sequence: Tensor, names: Collection[str]) -> dict[str, Tensor]:
        """Inner states by name.

        i, f, g, o, c, h and what else each step has: (layers, batch, time, C, H, W); one layer
        alone as "layer0.h": (batch, time, C, H, W), the only way where layers differ in width.
        What exists once, after the last step: (batch, ...). `output`: (batch, C_out, H, W). Raises
        UsageError for a name that this module does not have.
        """
        every_step = {*self.inner_names, "c", "h"}
        layered = {f"layer{n}.{name}" for n in range(len(self.cells)) for name in every_step}
        known = {*every_step, *layered, *self.end_names, "output"}
        for name in names:
            if name not in known:
                raise UsageError(
                    f"reading states of {type(self).__name__}",
                    expected=", ".join(sorted(known - layered)),
                    found=name,
                    remedy=nearest(name, known),
                )
        leaves = {name.split(".")[-1] for name in names} & every_step
        layers = self._trace(sequence)
        read = [
            [self.read_inner(cell, step, leaves) for step in steps]
            for cell, steps in zip(self._cells(), layers, strict=True)
        ]
        end = layers[-1][-1]
        result = self.read_end(end, names)
        if "output" in names:
            result["output"] = self._output(end)
        for name in names:
            if name in every_step:
                result[name] = self._stack_layers(
                    name, [torch.stack([s[name] for s in steps], 1) for steps in read]
                )
            elif name in layered:
                layer, leaf = name.removeprefix("layer").split(".")
                result[name] = torch.stack([s[leaf] for s in read[int(layer)]], 1)
        return {name: result[name] for name in names}

    def released_names(self) -> ReleasedNames:
        """The released name of each tensor; raises UsageError in form paper."""
        if self.form != "released":
            raise UsageError(
                f"loading a released checkpoint into {type(self).__name__}",
                expected='form="released"',
                found=f'form="{self.form}", which has other weights',
            )
        names = [name for name in self.state_dict() if not name.startswith("project.")]
        return ReleasedNames({name: self._released_name(name) for name in names})

    def _released_name(self, name: str) -> str:
        return name.replace("cells.", "cell").replace(".gates.", ".")

    def _trace(self, sequence: Tensor) -> list[list[Step]]:
        """Every step of every layer, [layer][time], in full from zero states."""
        layers: list[list[Step]] = [[] for _ in self.cells]
        for x in sequence.unbind(1):
            for steps, cell in zip(layers, self._cells(), strict=True):
                zero = cell.zero_state(x)
                steps.append(cell(x, *(steps[-1][:2] if steps else (zero, zero))))
                x = steps[-1].h
        return layers

    def _output(self, step: Step) -> Tensor:
        result: Tensor = self.project(self.read_out(step))
        return result

    def _cells(self) -> list[Cell]:
        return [cell for cell in self.cells if isinstance(cell, Cell)]

    def _cell(self, layer: int) -> Cell:
        return self._cells()[layer]

    def _stack_layers(self, name: str, layers: list[Tensor]) -> Tensor:
        if len({tuple(layer.shape) for layer in layers}) > 1:
            raise UsageError(
                f"reading state {name!r} of {type(self).__name__}",
                expected="layers of one width",
                found=f"widths {[layer.shape[2] for layer in layers]}",
                remedy=f"ask for one layer, such as 'layer0.{name}'",
            )
        return torch.stack(layers)
