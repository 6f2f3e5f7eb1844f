"""Costs that are counted equal those in closed form and those of the reference files."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import nn

from segweave import create_context, create_network, weave
from segweave.errors import UsageError
from segweave.weaving.costs import _counted, measure_costs
from tests.networks.agreement import FOLDER


def test_a_convolution_and_an_attention_layer_in_closed_form() -> None:
    convolution = nn.Conv2d(3, 5, 3, padding=1)
    _, counted = _counted(lambda: convolution(torch.zeros(2, 3, 8, 6)))
    assert counted == 2 * 5 * 8 * 6 * 3 * 9
    query = torch.zeros(2, 4, 7, 16)
    _, counted = _counted(lambda: nn.functional.scaled_dot_product_attention(query, query, query))
    assert counted == 2 * 4 * (7 * 7 * 16 + 7 * 16 * 7)


def test_a_convlstm_in_closed_form() -> None:
    """Four gates of a 3×3 convolution over input and state at each step, without attention."""
    channels, height, width, steps = 8, 6, 4, 3
    module = create_context("lstm-only", channels)
    _, counted = _counted(lambda: module(torch.zeros(1, steps, channels, height, width)))
    gate = channels * 2 * channels * 9 * height * width
    # At the first step the state is zero: three gates read the input alone, none forgets.
    assert counted == 3 * gate // 2 + (steps - 1) * 4 * gate


@pytest.mark.parametrize("name", ["unet", "attention-unet", "unetpp", "dcsau-net"])
def test_costs_of_the_reference_files(name: str) -> None:
    spec: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    network = create_network(name, in_channels=3, classes=1)
    costs = measure_costs(weave(network, "identity"), (64, 64))
    # All are convolutions: proportional to the area, but for maps of one pixel.
    expected = spec["multiply_accumulates"] / 16
    assert costs.multiply_accumulates <= expected * 1.001
    assert costs.multiply_accumulates >= expected * (0.8 if name == "attention-unet" else 0.999)
    assert costs.parameters == spec["parameter_count"]
    assert sum(step.parameters for step in costs.steps) == costs.parameters


@pytest.mark.parametrize("at", ["encoder", "bottleneck", "skips", "decoder", "output"])
def test_the_steps_add_up(at: str) -> None:
    network = create_network("unet", in_channels=1, classes=2, width=4)
    woven = weave(network, "sa-lstm", at=at, slices=3)
    costs = measure_costs(woven, (32, 48))
    assert costs.parameters == sum(p.numel() for p in woven.parameters())
    assert sum(step.parameters for step in costs.steps) == costs.parameters
    assert costs.seconds is not None
    assert costs.seconds > 0
    assert costs.peak_bytes is not None
    assert costs.peak_bytes > 32 * 48 * 4 * 4
    bare = measure_costs(weave(network, "identity", at=at, slices=3), (32, 48))
    assert bare.multiply_accumulates < costs.multiply_accumulates
    assert len(bare.steps) == len(costs.steps) - 1 == 3
    if at == "bottleneck":
        assert sum(step.multiply_accumulates for step in costs.steps) == costs.multiply_accumulates


def test_a_wrong_size_names_one_that_works() -> None:
    network = create_network("unet", in_channels=1, classes=2, width=4)
    with pytest.raises(UsageError, match="32×48"):
        measure_costs(weave(network, "identity"), (33, 48))


@pytest.mark.parametrize(
    ("name", "form"), [("unet", "released"), ("fanet", "paper"), ("mt-unet", "paper")]
)
def test_counting_without_running_gives_the_same_numbers(name: str, form: str) -> None:
    network = create_network(name, in_channels=3, classes=2, width=4)
    woven = weave(network, "sa-lstm", at="bottleneck", slices=3, form=form)
    before = {key: value.clone() for key, value in woven.state_dict().items()}
    counted = measure_costs(woven, (64, 64), run=False)
    assert (counted.seconds, counted.peak_bytes) == (None, None)
    assert all(torch.equal(before[key], value) for key, value in woven.state_dict().items())
    ran = measure_costs(woven, (64, 64))
    assert counted.steps == ran.steps
    assert counted.parameters == ran.parameters
    assert counted.multiply_accumulates == ran.multiply_accumulates
