"""The learning rate: the published sequence, and what holds for every schedule."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segweave.recipes.recipe import Schedule
from segweave.training.schedule import rate_at

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
