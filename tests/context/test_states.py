"""States by name: shapes, agreement with what forward uses, and that forward builds none."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from segweave.context._attention import Attention
from segweave.context._recurrent import RecurrentContext
from segweave.errors import UsageError
from tests.context.made import MODULES, make, sequence

RECURRENT = [(name, form) for name, form in MODULES if name != "sa-only"]


@pytest.mark.parametrize(("name", "form"), RECURRENT)
def test_every_name_of_every_module(name: str, form: str) -> None:
    module = make(name, form=form, hidden_channels=(4, 4))
    assert isinstance(module, RecurrentContext)
    steps = sequence(2, 3, 4, 3, 5)
    every_step = (*module.inner_names, "c", "h")
    read = module.states(steps, [*every_step, *module.end_names, "output"])
    tokens = 15 if form == "paper" else 4
    for state in every_step:
        if state == "attention":
            assert read[state].shape == (2, 2, 3, tokens, tokens)
        else:
            assert read[state].shape == (2, 2, 3, 4, 3, 5)
        one = module.states(steps, [f"layer1.{state}"])[f"layer1.{state}"]
        assert torch.equal(one, read[state][1])
    for state in module.end_names:
        shape = (2, tokens, tokens) if state == "attention" else (2, 4, 3, 5)
        assert read[state].shape == shape
    torch.testing.assert_close(read["output"], module(steps))


@pytest.mark.parametrize("form", ["paper", "released"])
@pytest.mark.parametrize("name", ["sa-lstm", "lstm-sa", "sa-embedded-lstm"])
def test_attention_times_value(name: str, form: str) -> None:
    module = make(name, form=form)
    steps = sequence(2, 3, 4, 3, 5)
    read = module.states(steps, ["attention", "value", "output"])
    weights, value = read["attention"], read["value"].flatten(-2)
    torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]))
    result = weights @ value if form == "released" else value @ weights.transpose(-1, -2)
    if name == "sa-embedded-lstm":
        attended = module.states(steps, ["cross_attention"])["cross_attention"]
        torch.testing.assert_close(result, attended.flatten(-2))
    else:
        torch.testing.assert_close(result, read["output"].flatten(-2))


@pytest.mark.parametrize(("name", "form"), MODULES)
def test_forward_builds_no_attention_to_show(
    name: str, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = make(name, form=form, both_sides=True)

    def fail(*_: Any) -> None:
        raise AssertionError("weights were built")

    monkeypatch.setattr(Attention, "weights", fail)
    monkeypatch.setattr(RecurrentContext, "_trace", fail)
    if form == "paper":
        monkeypatch.setattr(Attention, "token_weights", fail)
    module(sequence(1, 3, 4, 3, 3))


def test_both_sides_name_the_direction() -> None:
    module = make("sa-lstm", both_sides=True)
    steps = sequence(1, 3, 4, 3, 3)
    read = module.states(steps, ["h", "output", "forward.c"])
    assert set(read) == {
        "forward.h",
        "reverse.h",
        "forward.output",
        "reverse.output",
        "output",
        "forward.c",
    }
    assert read["forward.h"].shape == (1, 1, 2, 4, 3, 3)
    torch.testing.assert_close(read["output"], module(steps))
    alone = module.reverse_net.states(steps[:, 1:].flip(1), ["h"])["h"]
    assert torch.equal(read["reverse.h"], alone)
    assert set(module.states(steps, ["reverse.o"])) == {"reverse.o"}


def test_layers_of_two_widths_are_read_one_by_one() -> None:
    module = make("sa-lstm", hidden_channels=(4, 6))
    steps = sequence(1, 2, 4, 3, 3)
    assert module.states(steps, ["layer1.h"])["layer1.h"].shape == (1, 2, 6, 3, 3)
    with pytest.raises(UsageError, match=r"layer0\.h"):
        module.states(steps, ["h"])


@pytest.mark.parametrize("both_sides", [False, True])
@pytest.mark.parametrize(("name", "state"), [("sa-lstm", "hh"), ("sa-only", "h"), ("conv", "h")])
def test_an_unknown_state(name: str, state: str, both_sides: bool) -> None:
    module = make(name, both_sides=both_sides)
    with pytest.raises(UsageError, match="reading states"):
        module.states(sequence(1, 2, 4, 3, 3), [state])


def test_a_gru_has_no_output_gate() -> None:
    with pytest.raises(UsageError):
        make("lstm-only", cell="gru").states(sequence(1, 2, 4, 3, 3), ["o"])


def test_gradients_reach_the_states() -> None:
    module = make("sa-lstm")
    steps = sequence(1, 2, 4, 3, 3).requires_grad_()
    module.states(steps, ["query"])["query"].sum().backward()
    assert steps.grad is not None
    assert steps.grad.abs().max() > 0
