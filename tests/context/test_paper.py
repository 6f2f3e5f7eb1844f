"""Form paper and the shared options against the printed equations, written out plainly."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segweave.context import ContextModule
from tests.context.made import make, prepared, sequence

Combine = Callable[..., Tensor]


def mean(*states: Tensor) -> Tensor:
    return sum(states[1:], states[0]) / len(states)


def relu_of_product(*states: Tensor) -> Tensor:
    return math.prod(states[1:], start=states[0]).relu() if len(states) > 1 else states[0]


def between_positions(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(QKᵀ / √width) V with one vector a position."""
    q, k, v = (m.flatten(2).transpose(1, 2) for m in (q, k, v))
    width = q.shape[-1]
    return (torch.softmax(q @ k.transpose(1, 2) / math.sqrt(width), -1) @ v).transpose(1, 2)


def between_channels(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The same with one vector a channel."""
    q, k, v = (m.flatten(2) for m in (q, k, v))
    return torch.softmax(q @ k.transpose(1, 2) / math.sqrt(q.shape[-1]), -1) @ v


def gates(conv: nn.Conv2d, x: Tensor, h: Tensor) -> tuple[Tensor, ...]:
    """i, f, o, g (Algorithm 1, step 1; products as convolutions)."""
    i, f, o, g = conv(torch.cat([x, h], 1)).chunk(4, 1)
    return i.sigmoid(), f.sigmoid(), o.sigmoid(), g.tanh()


def last_states(module: ContextModule, steps: Tensor) -> dict[str, Tensor]:
    """States of the LSTM after the last step (one layer)."""
    c = h = torch.zeros_like(steps[:, 0])
    for x in steps.unbind(1):
        i, f, o, g = gates(module.cells[0].gates.conv, x, h)
        c = f * c + i * g
        h = o * c.tanh()
    return {"i": i, "f": f, "o": o, "g": g, "c": c, "h": h}


@pytest.fixture
def steps() -> Tensor:
    return sequence(2, 3, 4, 4, 5)


@pytest.mark.parametrize("length", [1, 2, 3])
@pytest.mark.parametrize("attend", [between_positions, between_channels])
@pytest.mark.parametrize(("combination", "combine"), [("linear", mean), ("relu", relu_of_product)])
def test_sa_lstm_is_equations_3_and_4(
    steps: Tensor, combination: str, combine: Combine, attend: Combine, length: int
) -> None:
    axis = "positions" if attend is between_positions else "channels"
    module = make("sa-lstm", combination=combination, attention=axis)
    s = last_states(module, steps[:, :length])
    wanted = attend(combine(s["f"], s["c"]), combine(s["g"], s["h"]), s["h"])
    torch.testing.assert_close(module(steps[:, :length]).flatten(2), wanted)


@pytest.mark.parametrize(("combination", "combine"), [("linear", mean), ("relu", relu_of_product)])
def test_lstm_sa_is_equation_5(steps: Tensor, combination: str, combine: Combine) -> None:
    module = make("lstm-sa", combination=combination)
    assert [name for name, _ in module.named_parameters() if "map" in name] == []
    s = last_states(module, steps)
    h = s["h"]
    wanted = between_positions(combine(s["f"], s["c"]) * h, combine(s["g"], h) * h, h * h)
    torch.testing.assert_close(module(steps).flatten(2), wanted)


def algorithm_1(module: ContextModule, steps: Tensor, **roles: str) -> Tensor:
    """The printed steps; `roles` exchanges D, h and D in the attention."""
    cell = module.cells[0]
    c = h = torch.zeros_like(steps[:, 0])
    for x in steps.unbind(1):
        known = {"x": x, "h": h, "c": c}
        if cell.gates is not None:
            i, f, o, g = gates(cell.gates.conv, x, h)
            known["D"] = o + torch.tanh(c * f + i * g)
            known["h_lstm"] = o * torch.tanh(c * f + i * g)
        q, k, v = (known[roles.get(r, d)] for r, d in zip("qkv", "DhD", strict=True))
        attended = between_positions(q, k, v).view_as(x)
        fused = F.linear(
            torch.cat([c, attended], 1).movedim(1, -1),
            cell.fusion.linear.weight,
            cell.fusion.linear.bias,
        ).relu()
        positioned = fused.movedim(-1, 1)
        if cell.position_code is not None:
            positioned = positioned + F.interpolate(
                cell.position_code.grid, x.shape[2:], mode="bilinear"
            )
        c, h = c + positioned, positioned
    return h


@pytest.mark.parametrize("length", [1, 2, 3])
@pytest.mark.parametrize(
    ("name", "roles"),
    [
        ("sa-embedded-lstm", "DhD"),
        ("sa-embedded-lstm-no-position", "DhD"),
        ("sa-xxx", "xxx"),
        ("sa-hhh", ("h_lstm", "h_lstm", "h_lstm")),
        ("hidden-as-query", "hDD"),
        ("hidden-as-key", "DhD"),
        ("hidden-as-value", "DDh"),
        ("lstm-as-query", "Dxx"),
        ("lstm-as-key", "xDx"),
        ("lstm-as-value", "xxD"),
    ],
)
def test_embedded_is_algorithm_1(steps: Tensor, name: str, roles: Any, length: int) -> None:
    module = make(name)
    wanted = algorithm_1(module, steps[:, :length], **dict(zip("qkv", roles, strict=True)))
    torch.testing.assert_close(module(steps[:, :length]), wanted)


@pytest.mark.parametrize("form", ["paper", "released"])
def test_the_module_itself_is_among_the_variants_of_fig_8(steps: Tensor, form: str) -> None:
    variants = {role: make(f"hidden-as-{role}", form=form) for role in ("query", "key", "value")}
    assert torch.equal(variants["key"](steps), make("sa-embedded-lstm", form=form)(steps))
    other = "D" if form == "paper" else "x"
    for role, module in variants.items():
        roles = {name: "h" if name == role else other for name in variants}
        assert torch.equal(module(steps), make("sa-embedded-lstm", form=form, **roles)(steps))
    assert len({sum(p.numel() for p in m.parameters()) for m in variants.values()}) == 1
    outputs = [module(steps) for module in variants.values()]
    assert all((outputs[a] - outputs[b]).abs().max() > 1e-4 for a, b in ((0, 1), (0, 2), (1, 2)))


def test_the_position_code_is_kept_on_16x16_and_interpolated() -> None:
    module = make("sa-embedded-lstm", 2)
    code = module.cells[0].position_code
    assert code.grid.shape == (1, 2, 16, 16)
    assert torch.equal(code(16, 16), code.grid)
    assert code(7, 33).shape == (1, 2, 7, 33)
    # Twice as fine in both directions: means of four places give the grid back inside.
    fine = F.avg_pool2d(code(32, 32), 2)
    torch.testing.assert_close(fine.mean(), code.grid.mean(), rtol=0.02, atol=1e-3)


def test_gru(steps: Tensor) -> None:
    module = make("lstm-only", cell="gru")
    conv = module.cells[0].gates.conv
    assert conv.weight.shape[0] == 3 * 4
    (w_z, w_r, w_g), (b_z, b_r, b_g) = conv.weight.chunk(3), conv.bias.chunk(3)
    h = torch.zeros_like(steps[:, 0])
    for x in steps.unbind(1):
        both = torch.cat([x, h], 1)
        z = F.conv2d(both, w_z, b_z, padding=1).sigmoid()
        r = F.conv2d(both, w_r, b_r, padding=1).sigmoid()
        g = F.conv2d(torch.cat([x, r * h], 1), w_g, b_g, padding=1).tanh()
        h = (1 - z) * h + z * g
    torch.testing.assert_close(module(steps), h)
    read = module.states(steps, ["c", "h", "f", "i", "r", "g"])
    assert torch.equal(read["c"], read["h"])
    torch.testing.assert_close(read["f"], 1 - read["i"])
    torch.testing.assert_close(read["r"][0, :, -1], r)
    torch.testing.assert_close(read["g"][0, :, -1], g)


@pytest.mark.parametrize("axis", ["positions", "channels"])
def test_heads_attend_apart(steps: Tensor, axis: str) -> None:
    module = make("sa-lstm", heads=2, attention=axis)
    s = last_states(module, steps)
    matrices = mean(s["f"], s["c"]), mean(s["g"], s["h"]), s["h"]
    attend = between_positions if axis == "positions" else between_channels
    halves = [attend(*(m[:, part] for m in matrices)) for part in (slice(0, 2), slice(2, 4))]
    torch.testing.assert_close(module(steps).flatten(2), torch.cat(halves, 1))
    weights = module.states(steps, ["attention"])["attention"]
    tokens = 20 if axis == "positions" else 2
    assert weights.shape == (2, 2, tokens, tokens)


@pytest.mark.parametrize("roles", [("i", "o", "g"), (("i", "f", "o"), "c", ("g", "c"))])
def test_any_choice_of_states(steps: Tensor, roles: Any) -> None:
    module = make("sa-lstm", **dict(zip(("query", "key", "value"), roles, strict=True)))
    s = last_states(module, steps)
    q, k, v = (mean(*(s[n] for n in ((r,) if isinstance(r, str) else r))) for r in roles)
    torch.testing.assert_close(module(steps).flatten(2), between_positions(q, k, v))


def test_attention_size_stands_under_the_root(steps: Tensor) -> None:
    module = make("sa-lstm", attention_size=0.01)
    s = last_states(module, steps)
    q = mean(s["f"], s["c"]) * math.sqrt(4 / 0.01)
    wanted = between_positions(q, mean(s["g"], s["h"]), s["h"])
    torch.testing.assert_close(module(steps).flatten(2), wanted)


def test_lstm_only_is_the_hidden_state(steps: Tensor) -> None:
    module = make("lstm-only")
    torch.testing.assert_close(module(steps), last_states(module, steps)["h"])


def test_separate_is_self_attention_of_the_hidden_state(steps: Tensor) -> None:
    module = make("separate")
    h = last_states(module, steps)["h"]
    q, k, v = (module.maps[role](h) for role in ("query", "key", "value"))
    torch.testing.assert_close(module(steps).flatten(2), between_positions(q, k, v))
    extra = sum(p.numel() for p in module.maps.parameters())
    assert extra == 3 * 4 * 4


@pytest.mark.parametrize("reads", ["window", "step"])
@pytest.mark.parametrize("axis", ["positions", "channels"])
def test_sa_only_reads_the_window_or_the_step(steps: Tensor, axis: str, reads: str) -> None:
    module = make("sa-only", attention=axis, reads=reads)
    seen = steps if reads == "window" else steps[:, -1:]
    q = module.maps["query"](steps[:, -1]).flatten(2)
    k, v = (
        torch.stack([module.maps[role](x) for x in seen.unbind(1)], 1).flatten(3)
        for role in ("key", "value")
    )
    if axis == "positions":
        q, k, v = q.transpose(1, 2), k.transpose(2, 3).flatten(1, 2), v.transpose(2, 3)
        v = v.flatten(1, 2)
    else:
        k, v = k.flatten(1, 2), v.flatten(1, 2)
    weights = torch.softmax(q @ k.transpose(1, 2) / math.sqrt(q.shape[-1]), -1)
    wanted = weights @ v
    wanted = wanted.transpose(1, 2) if axis == "positions" else wanted
    torch.testing.assert_close(module(steps).flatten(2), wanted)
    torch.testing.assert_close(prepared(module, steps).flatten(2), wanted)
    read = module.states(steps, ["attention", "key", "output"])
    torch.testing.assert_close(read["attention"], weights)
    torch.testing.assert_close(read["output"], module(steps))


def test_lambda_skip_mixes_old_and_new_hidden_state(steps: Tensor) -> None:
    module = make("sa-embedded-lstm", use_lambda_skip_connections=True)
    assert module.cells[0].lambda_scale.shape == (1,)
    read = module.states(steps, ["h", "positioned", "lambda_gate"])
    gate, new = read["lambda_gate"][0], read["positioned"][0]
    before = torch.cat([torch.zeros_like(new[:, :1]), read["h"][0, :, :-1]], 1)
    torch.testing.assert_close(read["h"][0], gate * new + (1 - gate) * before)
    scale = module.cells[0].lambda_scale
    torch.testing.assert_close(gate, (scale * new.mean(2, keepdim=True)).sigmoid())


def test_gates_that_nothing_reads_are_not_there() -> None:
    assert make("sa-xxx").cells[0].gates is None
    assert make("sa-xxx", form="released").cells[0].gates is not None
