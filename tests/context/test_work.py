"""Work is counted: nothing is spent on a zero state, and what depends on one slice is done once."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.context.made import make, sequence

SIZE = 5, 6
CHANNELS = 4
KERNEL = 3
# Two operations a multiply-accumulate of one gate's convolution from C to C channels.
UNIT = 2 * CHANNELS**2 * KERNEL**2 * SIZE[0] * SIZE[1]
RECURRENT = ["lstm-only", "sa-lstm", "lstm-sa", "sa-embedded-lstm"]


def gate_units(run: object) -> float:
    """How many gate convolutions `run` does; 1×1 convolutions are less than half of one each."""
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        run()  # type: ignore[operator]
    counts = counter.get_flop_counts()["Global"]
    return sum(v for k, v in counts.items() if "convolution" in str(k)) / UNIT


@pytest.mark.parametrize("form", ["paper", "released"])
@pytest.mark.parametrize("name", RECURRENT)
def test_a_window_of_three_costs_eleven_of_sixteen(name: str, form: str) -> None:
    module = make(name, form=form, both_sides=True, kernel_size=KERNEL)
    steps = sequence(1, 3, CHANNELS, *SIZE)
    small = 2 / KERNEL**2 + (4 / KERNEL**2 if "embedded" in name else 0)
    if name == "lstm-sa" and form == "released":
        small += 6 / KERNEL**2
    if "embedded" in name:
        small += 2 / KERNEL**2
    found = gate_units(lambda: module(steps))
    assert 2 * 11 < found <= 2 * 11 + small + 1e-9


@pytest.mark.parametrize("form", ["paper", "released"])
@pytest.mark.parametrize(("name", "units"), [("lstm-only", 3), ("sa-lstm", 4), ("lstm-sa", 4)])
def test_one_step_computes_the_gates_that_are_read(name: str, form: str, units: int) -> None:
    module = make(name, form=form, kernel_size=KERNEL)
    found = gate_units(lambda: module(sequence(1, 1, CHANNELS, *SIZE)))
    assert units <= found < units + 0.5


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("name", RECURRENT)
def test_fusing_three_runs_no_convolution_of_a_first_layer(name: str, layers: int) -> None:
    module = make(name, both_sides=True, kernel_size=KERNEL, hidden_channels=(CHANNELS,) * layers)
    steps = sequence(1, 3, CHANNELS, *SIZE)
    with torch.no_grad():
        prepared = [module.prepare(step) for step in steps.unbind(1)]
    found = gate_units(lambda: module.fuse(prepared))
    # The second layer's input at the second step is all that is left.
    wanted = 2 * 4 * (layers - 1)
    assert wanted <= found < wanted + 1.5


@pytest.mark.parametrize("name", RECURRENT)
def test_preparing_is_two_convolutions_of_four_gates(name: str) -> None:
    module = make(name, kernel_size=KERNEL)
    step = sequence(1, 1, CHANNELS, *SIZE)[:, 0]
    assert 8 <= gate_units(lambda: module.prepare(step)) < 8.5


def test_the_first_step_forgets_nothing() -> None:
    module = make("lstm-only", kernel_size=KERNEL)
    conv = module.cells[0].gates.conv
    steps = sequence(1, 1, CHANNELS, *SIZE)
    out = module(steps)
    with torch.no_grad():
        conv.weight[CHANNELS : 2 * CHANNELS] += 1
        conv.weight[:, CHANNELS:] += 1
    assert torch.equal(module(steps), out)
