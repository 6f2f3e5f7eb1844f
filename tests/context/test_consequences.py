"""What follows from the printed equations and a user would not expect: measured, as the docs state
it.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from segweave.context import ContextModule, create_context
from tests.context.made import make, sequence

CHANNELS, SIDE = 4, 4
PLACES = SIDE * SIDE


def rank_of(module: ContextModule, steps: Tensor, step: int) -> int:
    """Rank of the Jacobian of the output by one step of the window."""

    def output(x: Tensor) -> Tensor:
        whole = torch.cat([steps[:, :step], x[:, None], steps[:, step + 1 :]], 1)
        return module(whole)

    jacobian = torch.autograd.functional.jacobian(output, steps[:, step], vectorize=True)
    numbers = CHANNELS * PLACES
    return int(torch.linalg.matrix_rank(jacobian.reshape(numbers, numbers), rtol=1e-10))


def first_fused(module: ContextModule, steps: Tensor, direction: str) -> Tensor:
    """F of the first step that a direction reads, (C, H, W)."""
    name = f"{direction}.fused"
    return module.states(steps, [name])[name][0, 0, 0]


@pytest.mark.parametrize("window", [3, 5])
@pytest.mark.parametrize("seed", range(4))
def test_an_outermost_neighbour_is_one_number_per_channel(seed: int, window: int) -> None:
    module = make("sa-embedded-lstm", CHANNELS, seed=seed, both_sides=True)
    steps = sequence(1, window, CHANNELS, SIDE, SIDE)
    for step, direction in ((0, "forward"), (window - 1, "reverse")):
        fused = first_fused(module, steps, direction).detach()
        torch.testing.assert_close(fused, fused.mean((1, 2), keepdim=True).expand_as(fused))
        alive = int((fused[:, 0, 0] > 0).sum())
        assert rank_of(module, steps, step) == alive <= CHANNELS
    assert rank_of(module, steps, window // 2) > CHANNELS


def test_the_rank_at_the_start_values_is_about_2_of_64() -> None:
    ranks = []
    for seed in range(6):
        torch.manual_seed(seed)
        module = create_context("sa-embedded-lstm", CHANNELS, both_sides=True).double()
        ranks.append(rank_of(module, sequence(1, 3, CHANNELS, SIDE, SIDE), 0))
    assert max(ranks) <= CHANNELS
    assert 1 <= sum(ranks) / len(ranks) <= 3.5


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, {}) for name in ("sa-lstm", "lstm-sa", "lstm-only", "separate", "sa-only")),
        ("sa-lstm", {"when": "each-step"}),
        ("lstm-sa", {"when": "each-step"}),
        ("sa-embedded-lstm", {"form": "released", "dropout": 0.0}),
    ],
)
def test_other_modules_keep_all_of_a_neighbour(name: str, options: dict[str, Any]) -> None:
    module = make(name, CHANNELS, both_sides=True, **options)
    steps = sequence(1, 3, CHANNELS, SIDE, SIDE)
    assert rank_of(module, steps, 0) == CHANNELS * PLACES


def test_places_of_a_neighbour_may_be_shuffled() -> None:
    def change(name: str) -> float:
        module = make(name, CHANNELS, both_sides=True, kernel_size=1)
        steps = sequence(1, 3, CHANNELS, SIDE, SIDE)
        other = steps.clone()
        order = torch.randperm(PLACES, generator=torch.Generator().manual_seed(0))
        other[:, 0] = steps[:, 0].flatten(2)[..., order].reshape(1, CHANNELS, SIDE, SIDE)
        with torch.no_grad():
            return float((module(steps) - module(other)).abs().max())

    assert change("sa-embedded-lstm") < 1e-12
    assert change("sa-lstm") > 1e-3


def dead_channels(name: str, channels: int, window: int, seed: int) -> Tensor:
    """Which of the fusion's channels get no gradient from a batch, at the start values:
    (directions, channels).
    """
    torch.manual_seed(seed)
    module = create_context(name, channels, both_sides=window > 1)
    module(torch.randn(4, window, channels, 8, 8)).square().sum().backward()
    nets = (module.forward_net, module.reverse_net) if window > 1 else (module,)
    return torch.stack([net.cells[0].fusion.linear.bias.grad == 0 for net in nets])


def dead_share(name: str, window: int) -> float:
    """The share of them in four modules of 64 channels."""
    dead = [dead_channels(name, 64, window, seed) for seed in range(4)]
    return float(torch.stack(dead).double().mean())


@pytest.mark.parametrize("window", [1, 3])
def test_four_in_ten_channels_of_the_fusion_are_dead_at_the_start(window: int) -> None:
    assert 0.3 < dead_share("sa-embedded-lstm", window) < 0.55
    assert dead_share("sa-xxx", window) == 0


def test_with_few_channels_a_whole_direction_is_dead() -> None:
    def seeds(channels: int) -> int:
        every = (dead_channels("sa-embedded-lstm", channels, 3, seed) for seed in range(20))
        return sum(bool(dead.all(1).any()) for dead in every)

    assert seeds(1) >= 5
    assert seeds(16) == 0


def test_lstm_sa_attends_to_squares() -> None:
    steps = 5 * sequence(2, 3, CHANNELS, SIDE, SIDE)
    for seed in range(4):
        out = make("lstm-sa", CHANNELS, seed=seed)(steps)
        assert out.min() >= 0
        assert out.max() < 1
    signed = make("lstm-sa", CHANNELS, projections=True)(steps)
    assert signed.min() < 0 < signed.max()


@pytest.mark.parametrize(
    ("name", "share"),
    [("sa-lstm", 0.50), ("lstm-sa", 0.50), ("sa-embedded-lstm", 0.50), ("lstm-only", 0.625)],
)
def test_one_image_alone_trains_half_of_the_parameters(name: str, share: float) -> None:
    def untrained(steps: int) -> float:
        """The share of parameters without a gradient under several start values."""
        idle: list[Tensor] = []
        for seed in range(8):
            torch.manual_seed(seed)
            module = create_context(name, 16)
            module(torch.randn(2, steps, 16, 16, 16)).square().sum().backward()
            gradients = [
                torch.zeros_like(p) if p.grad is None else p.grad for p in module.parameters()
            ]
            idle.append(torch.cat([g.flatten() == 0 for g in gradients]))
        return float(torch.stack(idle).all(0).double().mean())

    assert untrained(1) == pytest.approx(share, abs=0.03)
    assert untrained(2) < 0.01
