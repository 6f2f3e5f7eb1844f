"""SA-LSTM and LSTM-SA with attention in every cell, and with learned maps, against loops over the
cells that are written from the printed words alone.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from segweave.context import ContextModule, create_context
from segweave.errors import UsageError
from tests.context.made import make, prepared, sequence


def combined(states: list[Tensor], combination: str) -> Tensor:
    """Eq. 4: the mean of two states, or the ReLU of their product."""
    if len(states) == 1:
        return states[0]
    first, second = states
    return (first + second) / 2 if combination == "linear" else torch.relu(first * second)


def self_attention(q: Tensor, k: Tensor, v: Tensor, axis: str) -> Tensor:
    """softmax(QKᵀ / √d) V, one place (or one channel) after the other."""
    out = torch.empty_like(v)
    for b in range(len(q)):
        rows = [m[b].flatten(1) for m in (q, k, v)]
        if axis == "positions":
            rows = [m.T for m in rows]
        queries, keys, values = rows
        attended = []
        for query in queries:
            energy = torch.stack([(query * key).sum() for key in keys]) / len(query) ** 0.5
            weights = energy.exp() / energy.exp().sum()
            attended.append(sum(w * value for w, value in zip(weights, values, strict=True)))
        whole = torch.stack(attended)
        out[b] = (whole.T if axis == "positions" else whole).reshape(v[b].shape)
    return out


def through(maps: nn.ModuleDict, role: str, x: Tensor) -> Tensor:
    """The learned map of a role over the channels."""
    if role not in maps:
        return x
    module = maps[role]
    weight = module.weight.flatten(1)
    y = torch.einsum("oc,bchw->bohw", weight, x)
    return y if module.bias is None else y + module.bias[:, None, None]


def attention_of(
    name: str, s: dict[str, Tensor], maps: nn.ModuleDict, combination: str, axis: str
) -> Tensor:
    """Eq. 3 (SA-LSTM: the combination is the input of Q, K and V) or Eq. 5 (LSTM-SA: it weighs h)
    of the states at one step.
    """
    roles = {"query": ["f", "c"], "key": ["g", "h"], "value": ["h"]}
    matrices = []
    for role, names in roles.items():
        state = combined([s[n] for n in names], combination)
        if name == "sa-lstm":
            matrices.append(through(maps, role, state))
        else:
            matrices.append(state * through(maps, role, s["h"]))
    return self_attention(*matrices, axis)


def lstm(cell: Any, x: Tensor, c: Tensor, h: Tensor) -> dict[str, Tensor]:
    """The states of an LSTM after one step."""
    i, f, o, g = cell.gates.conv(torch.cat([x, h], 1)).chunk(4, 1)
    i, f, o, g = i.sigmoid(), f.sigmoid(), o.sigmoid(), g.tanh()
    c = f * c + i * g
    return {"i": i, "f": f, "o": o, "g": g, "c": c, "h": o * c.tanh()}


def plain(
    name: str, module: ContextModule, steps: Tensor, combination: str, axis: str, when: str
) -> Tensor:
    """The output after the last step of the last layer."""
    cells: list[Any] = list(module.cells)
    shape = [(len(steps), cell.gates.width, *steps.shape[3:]) for cell in cells]
    c = [steps.new_zeros(s) for s in shape]
    h = [steps.new_zeros(s) for s in shape]
    out = steps
    for t in range(steps.shape[1]):
        x = steps[:, t]
        for layer, cell in enumerate(cells):
            s = lstm(cell, x, c[layer], h[layer])
            c[layer] = s["c"]
            if when == "each-step":
                # "fuses the characteristics of LSTM and SA in each cell" (Fig. 2b)
                h[layer] = attention_of(name, s, cell.maps, combination, axis)
            else:
                h[layer] = s["h"]
            x = h[layer]
            if when == "last-step" and layer == len(cells) - 1:
                out = attention_of(name, s, module.maps, combination, axis)
    return out if when == "last-step" else x


def gradients(out: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    """Those of the sum of squares, zero where an input has no part."""
    found = torch.autograd.grad(out.square().sum(), inputs, allow_unused=True)
    return [torch.zeros_like(one) if g is None else g for g, one in zip(found, inputs, strict=True)]


@settings(max_examples=15)
@given(data=st.data())
@pytest.mark.parametrize("when", ["each-step", "last-step"])
@pytest.mark.parametrize("name", ["sa-lstm", "lstm-sa"])
def test_numbers_and_gradients_are_those_of_the_loops(
    name: str, when: str, data: st.DataObject
) -> None:
    combination = data.draw(st.sampled_from(["linear", "relu"]))
    axis = data.draw(st.sampled_from(["positions", "channels"]))
    widths = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    module = make(
        name,
        3,
        out_channels=widths[-1],
        seed=data.draw(st.integers(0, 9)),
        when=when,
        combination=combination,
        attention=axis,
        hidden_channels=widths,
        projections=data.draw(st.booleans()),
        kernel_size=data.draw(st.sampled_from([1, 3])),
    )
    shape = [data.draw(st.integers(1, high)) for high in (2, 3)]
    steps = sequence(*shape, 3, 3, 2).requires_grad_()
    wanted = plain(name, module, steps, combination, axis, when)
    inputs = [steps, *module.parameters()]
    theirs = gradients(wanted, inputs)
    for found in (module(steps), prepared(module, steps)):
        torch.testing.assert_close(found, wanted)
        for ours, other in zip(gradients(found, inputs), theirs, strict=True):
            torch.testing.assert_close(ours, other)


@pytest.mark.parametrize("projections", [False, True])
@pytest.mark.parametrize("name", ["sa-lstm", "lstm-sa"])
def test_every_parameter_and_every_step_has_a_part(name: str, projections: bool) -> None:
    module = make(
        name, when="each-step", projections=projections, hidden_channels=(4, 4), both_sides=True
    )
    steps = sequence(2, 3, 4, 5, 5).requires_grad_()
    module(steps).square().sum().backward()
    for key, parameter in module.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.abs().max() > 1e-9, key
    assert steps.grad is not None
    assert all(steps.grad[:, t].abs().max() > 1e-9 for t in range(3))


@pytest.mark.parametrize("name", ["sa-lstm", "lstm-sa", "sa-lstm-nonlinear", "separate"])
def test_one_step_of_one_layer_is_the_same_in_both(name: str) -> None:
    once, inside = make(name), make(name, when="each-step")
    weights = {key.replace("cells.0.maps", "maps"): v for key, v in inside.state_dict().items()}
    once.load_state_dict(weights)
    steps = sequence(2, 2, 4, 4, 5)
    torch.testing.assert_close(once(steps[:, :1]), inside(steps[:, :1]))
    assert (once(steps) - inside(steps)).abs().max() > 1e-3


def test_a_gru_goes_on_with_the_attention() -> None:
    module = make("sa-lstm", when="each-step", cell="gru")
    (cell,) = module.cells
    weights, biases = cell.gates.conv.weight.chunk(3), cell.gates.conv.bias.chunk(3)

    def gate(part: int, x: Tensor, h: Tensor) -> Tensor:
        both = torch.cat([x, h], 1)
        return torch.conv2d(both, weights[part], biases[part], padding=1)

    steps = sequence(2, 3, 4, 3, 4)
    h = torch.zeros_like(steps[:, 0])
    for x in steps.unbind(1):
        z, r = gate(0, x, h).sigmoid(), gate(1, x, h).sigmoid()
        g = gate(2, x, r * h).tanh()
        new = (1 - z) * h + z * g
        states = {"f": 1 - z, "c": new, "g": g, "h": new}
        h = attention_of("sa-lstm", states, cell.maps, "linear", "positions")
    torch.testing.assert_close(module(steps), h)
    torch.testing.assert_close(prepared(module, steps), h)


@pytest.mark.parametrize("projections", [False, True])
@pytest.mark.parametrize("name", ["sa-lstm", "lstm-sa"])
def test_states_of_every_step(name: str, projections: bool) -> None:
    module = make(name, when="each-step", projections=projections, hidden_channels=(4, 4))
    steps = sequence(2, 3, 4, 3, 5)
    names = [*module.inner_names, "c", "h", "output"]
    read = module.states(steps, names)
    assert read["attention"].shape == (2, 2, 3, 15, 15)
    attended = read["value"].flatten(-2) @ read["attention"].transpose(-1, -2)
    torch.testing.assert_close(attended, read["h"].flatten(-2))
    torch.testing.assert_close(read["h_lstm"], read["o"] * read["c"].tanh())
    torch.testing.assert_close(read["output"], read["h"][-1, :, -1])
    torch.testing.assert_close(read["output"], module(steps))
    assert ("projected_key" in read) == (name == "lstm-sa" and projections)


@pytest.mark.parametrize(("name", "added"), [("sa-lstm", 3 * 6 * 6), ("lstm-sa", 3 * (6 * 6 + 6))])
def test_learned_maps_are_of_the_width_of_their_layer(name: str, added: int) -> None:
    def count(**options: Any) -> int:
        module = create_context(name, 6, hidden_channels=(6, 6), **options)
        return sum(p.numel() for p in module.parameters())

    assert count(projections=True) - count() == added
    assert count(projections=True, when="each-step") - count() == 2 * added


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("sa-lstm", {"when": "each-step", "form": "released"}, "attends once"),
        ("lstm-sa", {"when": "each-step", "form": "released"}, "attends once"),
        ("lstm-sa", {"projections": False, "form": "released"}, "learned maps of h"),
        ("sa-lstm", {"when": "every-step"}, "each-step"),
        ("sa-lstm", {"when": "each-step", "heads": 3, "hidden_channels": (6, 4)}, "divisor of"),
    ],
)
def test_wrong(name: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        create_context(name, 4, **options)


def test_export() -> None:
    module = make("lstm-sa", when="each-step", projections=True, both_sides=True)
    steps = sequence(2, 3, 4, 4, 5)
    exported = torch.export.export(module, (steps,)).module()
    torch.testing.assert_close(exported(steps), module(steps))
