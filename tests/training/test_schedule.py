"""The learning rate: the published sequence, and what holds for every schedule."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from segweave.recipes.sections import Schedule
from segweave.training.schedule import falls_now, rate_at

POLY = json.loads((Path(__file__).parent.parent / "reference" / "protocol_cases.json").read_text())[
    "poly"
]


def test_the_published_rates() -> None:
    schedule = Schedule(name="poly", power=0.9, released=True)
    rates = [rate_at(schedule, POLY["base"], step, POLY["iterations"]) for step in range(10)]
    assert rates == pytest.approx(POLY["rate_used_by_step"], rel=1e-12)


def test_the_printed_formula_has_no_doubled_first_step() -> None:
    rates = [rate_at(Schedule(), 1.0, step, 4) for step in range(4)]
    assert rates == pytest.approx([1.0, 0.75**0.9, 0.5**0.9, 0.25**0.9])


@given(
    name=st.sampled_from(["poly", "cosine", "constant"]),
    steps=st.integers(1, 300),
    power=st.floats(0.1, 3),
)
def test_rates_start_full_and_never_rise(name: str, steps: int, power: float) -> None:
    schedule = Schedule(name=name, power=power)
    rates = [rate_at(schedule, 0.5, step, steps) for step in range(steps)]
    assert rates[0] == pytest.approx(0.5)
    assert all(a >= b > 0 for a, b in itertools.pairwise(rates))
    if name == "constant":
        assert rates[-1] == 0.5


def test_a_warm_up_rises_to_the_full_rate() -> None:
    schedule = Schedule(name="constant", warm_up=4)
    rates = [rate_at(schedule, 1.0, step, 10) for step in range(6)]
    assert rates == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0])


def test_cosine_is_half_way_at_half_time() -> None:
    assert rate_at(Schedule(name="cosine"), 2.0, 5, 10) == pytest.approx(1.0)


def test_step_falls_after_every_so_many_epochs() -> None:
    schedule = Schedule(name="step", factor=0.5, every=2)
    rates = [rate_at(schedule, 1.0, step, 18, steps_per_epoch=3) for step in range(18)]
    assert rates == [1.0] * 6 + [0.5] * 6 + [0.25] * 6


def test_plateau_falls_when_torch_s_does() -> None:
    """Against ReduceLROnPlateau with the published settings of FCBFormer (patience shortened)."""
    schedule = Schedule(name="plateau", factor=0.5, patience=2, lowest=0.15)
    parameter = torch.zeros(1, requires_grad=True)
    optimiser = torch.optim.SGD([parameter], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimiser, mode="max", factor=0.5, patience=2, threshold=0, min_lr=0.15
    )
    best, stale, falls = -1.0, 0, 0
    for dice in [0.1, 0.2, 0.2, 0.1, 0.2, 0.3, *[0.3] * 7, 0.4, *[0.2] * 9]:
        stale = 0 if dice > best else stale + 1
        best = max(dice, best)
        falls += falls_now(schedule, stale)
        theirs.step(dice)
        assert rate_at(schedule, 1.0, 5, 10, falls=falls) == optimiser.param_groups[0]["lr"]
    assert falls >= 3
    assert not falls_now(Schedule(name="step", patience=2), 3)
