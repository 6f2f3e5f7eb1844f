"""Groups of parameters by name, and the moving average of weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from segweave.errors import UsageError
from segweave.recipes.sections import Optimiser, ParameterGroup
from segweave.training.averaging import WeightAverage
from segweave.training.optimisers import make_optimiser


def network() -> nn.Module:
    model = nn.Sequential()
    model.add_module("backbone", nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)))
    model.add_module("decoder", nn.Conv2d(2, 2, 1))
    return model


def groups(*given: dict[str, object], **options: object) -> list[tuple[set[str], float, float]]:
    """(parameter names, full rate, weight decay) of each group of the optimiser."""
    model = network()
    chosen = Optimiser(groups=tuple(ParameterGroup.model_validate(g) for g in given), **options)
    optimiser, rates = make_optimiser(chosen, model)
    names = {id(p): name for name, p in model.named_parameters()}
    return [
        ({names[id(p)] for p in group["params"]}, rate, group["weight_decay"])
        for group, rate in zip(optimiser.param_groups, rates, strict=True)
    ]


BACKBONE = {"backbone.0.weight", "backbone.0.bias", "backbone.1.weight", "backbone.1.bias"}
DECODER = {"decoder.weight", "decoder.bias"}


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_without_groups_there_is_one(name: str) -> None:
    assert groups(name=name, rate=0.1, weight_decay=0.3) == [(BACKBONE | DECODER, 0.1, 0.3)]


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_groups_take_what_they_match_in_order(name: str) -> None:
    found = groups(
        {"match": "*.bias", "weight_decay": 0},
        {"match": "backbone.*", "rate": 1e-4},
        name=name,
        rate=0.1,
        weight_decay=0.3,
    )
    assert found == [
        ({"decoder.weight"}, 0.1, 0.3),
        ({"backbone.0.bias", "backbone.1.bias", "decoder.bias"}, 0.1, 0),
        ({"backbone.0.weight", "backbone.1.weight"}, 1e-4, 0.3),
    ]


def test_groups_may_take_everything_and_leave_out_what_is_not_trained() -> None:
    assert groups({"match": "*", "rate": 0.5}) == [(BACKBONE | DECODER, 0.5, 1e-2)]
    model = network()
    for parameter in model.get_submodule("backbone").parameters():
        parameter.requires_grad_(False)
    optimiser, _ = make_optimiser(Optimiser(), model)
    assert sum(len(group["params"]) for group in optimiser.param_groups) == 2


def test_a_pattern_that_matches_nothing_names_near_parameters() -> None:
    with pytest.raises(UsageError, match=r"did you mean decoder\.\w+"):
        groups({"match": "decodr.weight"})
    with pytest.raises(UsageError, match="put the narrower pattern first"):
        groups({"match": "*"}, {"match": "decoder.*"})


def test_the_average_is_exponential_and_begins_with_the_first_weights() -> None:
    model, average = network().double(), WeightAverage(0.9)
    history = []
    for step in range(5):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn(parameter.shape, dtype=torch.float64))
            model.get_buffer("backbone.1.running_mean").add_(1.0)
            model.get_buffer("backbone.1.num_batches_tracked").add_(1)
        average.update(model)
        history.append({name: value.clone() for name, value in model.state_dict().items()})
        assert average.tensors is not None
        weights = [0.9**step] + [0.1 * 0.9 ** (step - k) for k in range(1, step + 1)]
        for name, value in average.tensors.items():
            if value.is_floating_point():
                expected = sum(w * h[name] for w, h in zip(weights, history, strict=True))
                torch.testing.assert_close(value, expected)
            else:
                assert value == step + 1


def test_the_average_is_applied_for_a_while() -> None:
    model, average = network(), WeightAverage(0.5)
    average.update(model)
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        model.get_parameter("decoder.weight").add_(1.0)
    parameter = model.get_parameter("decoder.weight")
    with average.applied(model):
        assert torch.equal(parameter, kept["decoder.weight"])
    assert model.get_parameter("decoder.weight") is parameter
    assert torch.equal(parameter.detach(), kept["decoder.weight"] + 1.0)
