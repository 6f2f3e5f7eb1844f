"""The released forms' limits, their position table, their checkpoints and state-space option."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from segweave.author_weights import load_released
from segweave.context import BothSides, create_context
from segweave.context._position import SinePositionCode
from segweave.context._state_space import StateSpace, _hippo
from segweave.errors import InputError, UsageError
from tests.context.made import make, sequence


@pytest.mark.parametrize(
    ("name", "channels", "options", "words"),
    [
        ("lstm-sa", 8, {"hidden_channels": [8, 6]}, "equal to the 8 input channels"),
        ("lstm-sa", 8, {"hidden_channels": [6]}, "equal to the 8 input channels"),
        ("sa-embedded-lstm", 8, {"hidden_channels": [6]}, "equal to the 8 input channels"),
        ("sa-embedded-lstm", 8, {"hidden_channels": [6, 8]}, "equal to the 8 input channels"),
        ("sa-embedded-lstm", 7, {}, "even width"),
        ("sa-embedded-lstm", 8, {"attention_size": 1.5}, "whole number"),
        ("sa-embedded-lstm", 8, {"position_code": "trainable"}, "'sine' or 'none'"),
        ("sa-embedded-lstm", 32, {"use_state_space_sequencing": True}, "64 channels"),
        ("sa-lstm", 8, {"kernel_size": 4}, "odd number"),
    ],
)
def test_limits(name: str, channels: int, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        create_context(name, channels, form="released", both_sides=True, **options)
    if name in ("lstm-sa", "sa-embedded-lstm") and "hidden_channels" in options:
        create_context(name, channels, both_sides=True, **options)  # form paper takes any


def test_more_positions_than_the_table() -> None:
    module = make("sa-embedded-lstm", form="released", attention_size=20)
    assert module(sequence(1, 2, 4, 4, 5)).shape == (1, 4, 4, 5)
    assert module(sequence(1, 2, 4, 2, 3)).shape == (1, 4, 2, 3)
    with pytest.raises(UsageError, match="attention_size=21"):
        module(sequence(1, 2, 4, 3, 7))


@pytest.mark.parametrize("name", ["sa-lstm", "lstm-sa"])
def test_bias_is_ignored_by_the_first_two(name: str) -> None:
    module = make(name, form="released", bias=False)
    assert module.cells[0].gates.conv.bias is not None
    assert make(name, bias=False).cells[0].gates.conv.bias is None


def test_bias_is_obeyed_by_the_third() -> None:
    module = make("sa-embedded-lstm", form="released", bias=False)
    assert module.cells[0].gates.conv.bias is None
    assert module.cells[0].fusion.linear.bias is not None


@pytest.mark.parametrize("name", ["sa-lstm", "lstm-sa", "sa-embedded-lstm"])
def test_defaults_are_the_released_ones(name: str) -> None:
    released, paper = make(name, form="released"), make(name)
    assert released.cells[0].gates.conv.kernel_size == (5, 5)
    assert paper.cells[0].gates.conv.kernel_size == (3, 3)
    attention = released.cells[0].attention if "embedded" in name else released.attention
    assert attention.size == (224 * 224 if "embedded" in name else 88 * 88)
    assert attention.axis == "channels"


@pytest.mark.parametrize(("name", "count"), [("sa-lstm", 1_639_428), ("lstm-sa", 1_664_388)])
def test_parameters(name: str, count: int) -> None:
    with torch.device("meta"):
        module = create_context(name, 64, out_channels=4, form="released", both_sides=True)
    assert sum(p.numel() for p in module.parameters()) == count


def test_parameters_of_the_embedded_one() -> None:
    options: dict[str, Any] = {"attention_size": 16, "form": "released", "both_sides": True}
    module = create_context("sa-embedded-lstm", 64, out_channels=4, **options)
    assert sum(p.numel() for p in module.parameters()) == 1_655_940
    assert not [key for key in module.state_dict() if "table" in key]
    skip = create_context(
        "sa-embedded-lstm", 64, out_channels=4, use_lambda_skip_connections=True, **options
    )
    assert sum(p.numel() for p in skip.parameters()) == 1_655_942


@pytest.mark.parametrize("channels", [1, 6])
def test_the_table_is_computed_in_float32(channels: int) -> None:
    code = SinePositionCode(channels, 3000).double()(50, 60)
    assert code.dtype is torch.float64
    assert torch.equal(code, code.float().double())
    table = code[0].flatten(1).numpy()
    place = np.arange(3000)
    for pair in range((channels + 1) // 2):
        angle = place * math.exp(-2 * pair * math.log(10000) / channels)
        np.testing.assert_allclose(table[2 * pair], np.sin(angle), atol=3e-4)
        if channels > 1:
            np.testing.assert_allclose(table[2 * pair + 1], np.cos(angle), atol=3e-4)


def test_dropout_acts_in_training_only() -> None:
    module = make("sa-embedded-lstm", form="released")
    steps = sequence(1, 2, 4, 6, 6)
    assert torch.equal(module(steps), module(steps))
    module.train()
    assert not torch.equal(module(steps), module(steps))
    assert make("sa-embedded-lstm").cells[0].settings.dropout == 0


class TestLoading:
    """Checkpoints are taken whole or not at all."""

    def state(self, module: BothSides) -> dict[str, torch.Tensor]:
        names = module.released_names().tensors
        return {names[key]: torch.randn_like(value) for key, value in module.state_dict().items()}

    def made(self, name: str = "sa-lstm", **options: Any) -> BothSides:
        module = make(name, form="released", both_sides=True, **options)
        assert isinstance(module, BothSides)
        return module

    @pytest.mark.parametrize("name", ["sa-lstm", "lstm-sa", "sa-embedded-lstm"])
    @pytest.mark.parametrize("prefix", ["", "module."])
    def test_round_trip(self, name: str, prefix: str) -> None:
        module = self.made(name)
        state = self.state(module)
        assert set(state) >= {"conv.bias", "forward_net.cell0.conv.weight"}
        report = load_released(module, {prefix + key: value for key, value in state.items()})
        assert set(report.matched) == set(state)
        assert report.missing == report.unexpected == report.dead == ()
        names = module.released_names().tensors
        for key, value in module.state_dict().items():
            assert torch.equal(value, state[names[key]])

    def test_stored_position_tables_are_accepted(self) -> None:
        module = self.made("sa-embedded-lstm", attention_size=9)
        state = self.state(module)
        steps = sequence(1, 3, 4, 3, 3)
        load_released(module, state)
        out = module(steps)
        for side in ("forward", "reverse"):
            state[f"{side}_net.cell0.position_encoding.pe"] = torch.zeros(1, 9, 4)
        assert not load_released(module, state).unexpected
        assert torch.equal(module(steps), out)

    def test_dead_tensors_of_the_state_space_option(self) -> None:
        options = {"attention_size": 9, "use_state_space_sequencing": True}
        module = make("sa-embedded-lstm", 64, form="released", both_sides=True, **options)
        assert isinstance(module, BothSides)
        state = self.state(module)
        state["forward_net.cell0.conv.weight"] = torch.zeros(1)
        assert load_released(module, state).dead == ("forward_net.cell0.conv.weight",)

    def test_another_size(self) -> None:
        state = self.state(self.made(kernel_size=3))
        module = self.made()
        before = {key: value.clone() for key, value in module.state_dict().items()}
        with pytest.raises(InputError, match="16 × 8 × 3 × 3, not 16 × 8 × 5 × 5"):
            load_released(module, state)
        assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())

    def test_another_module(self) -> None:
        with pytest.raises(InputError, match="is not part of it"):
            load_released(self.made("sa-lstm"), self.state(self.made("lstm-sa")))

    def test_form_paper_has_none(self) -> None:
        module = make("sa-lstm", both_sides=True)
        with pytest.raises(UsageError, match="released"):
            load_released(module, {})

    def test_modules_without_released_names(self) -> None:
        module = make("sa-only", form="released", both_sides=True)
        with pytest.raises(UsageError, match="released names"):
            load_released(module, {})


class TestStateSpace:
    """The option that never reads its input."""

    def made(self, **options: Any) -> BothSides:
        settings = {"attention_size": 6, "use_state_space_sequencing": True, **options}
        module = make("sa-embedded-lstm", 64, form="released", both_sides=True, **settings)
        assert isinstance(module, BothSides)
        return module

    @pytest.mark.parametrize("layers", [1, 2])
    def test_the_output_does_not_depend_on_the_input(self, layers: int) -> None:
        module = self.made(hidden_channels=[64] * layers)
        steps = sequence(2, 3, 64, 2, 3).requires_grad_()
        out = module(steps)
        assert torch.equal(out, module(torch.zeros_like(steps)))
        out.sum().backward()
        assert steps.grad is None or not steps.grad.any()
        again = module.fuse([module.prepare(step) for step in steps.unbind(1)])
        torch.testing.assert_close(out, again, rtol=0, atol=1e-12)
        read = module.states(steps, ["h", "c", "output"])
        assert torch.equal(read["forward.h"], read["forward.c"])
        torch.testing.assert_close(read["output"], out)

    def test_the_size_is_fixed(self) -> None:
        with pytest.raises(UsageError, match="attention_size=4"):
            self.made()(sequence(1, 3, 64, 2, 2))

    def test_every_parameter_is_alive(self) -> None:
        module = self.made().float()
        module(sequence(1, 5, 64, 2, 3).float()).square().sum().backward()
        assert all(p.grad is not None and p.grad.abs().max() > 0 for p in module.parameters())

    def test_autocast(self) -> None:
        module = self.made().float()
        steps = sequence(1, 3, 64, 2, 3).float()
        with torch.autocast("cpu", torch.bfloat16):
            out = module(steps)
        torch.testing.assert_close(out.float(), module(steps), rtol=0.05, atol=0.05)

    def test_start_values_are_those_of_hippo(self) -> None:
        p, q, eigenvalues = (torch.view_as_complex(part) for part in _hippo(8))
        n = torch.arange(1, 9)
        # The trace of the matrix −(n + 1) on the diagonal is that of normal minus low rank.
        trace = eigenvalues.sum() - (p * q.conj()).sum()
        torch.testing.assert_close(trace.real, -(n + 1).sum().float(), rtol=1e-4, atol=1e-3)
        assert (eigenvalues.real < 0).all()

    def test_the_kernel_is_that_of_the_bilinear_recurrence(self) -> None:
        torch.manual_seed(0)
        model = StateSpace(5, 3).double()
        p, q, eigenvalues, b, c = (
            torch.view_as_complex(part.detach())
            for part in (model.p, model.q, model.eigenvalues[0, 0], model.B, model.C)
        )
        matrix = torch.diag(eigenvalues) - torch.outer(p, q.conj())
        eye = torch.eye(8, dtype=matrix.dtype)
        for feature in range(3):
            step = float(model.log_step[feature].detach().exp())
            inverse = torch.linalg.inv(eye - step / 2 * matrix)
            transition = inverse @ (eye + step / 2 * matrix)
            # The stored C is that of a kernel cut at 64 steps; its generating function then is a
            # plain sum over the powers of the transition, wrapped around.
            wrapped = torch.linalg.inv(eye - torch.linalg.matrix_power(transition, 64))
            state = wrapped @ (step * inverse @ b[feature])
            kernel = []
            for _ in range(64):
                kernel.append(float((c[feature].conj() @ state).real))
                state = transition @ state
            found = model.kernel()[feature].detach().numpy()
            np.testing.assert_allclose(found, kernel, rtol=1e-6, atol=1e-6 * np.abs(found).max())
