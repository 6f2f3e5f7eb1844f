"""Released checkpoints are mapped name by name; a misfit changes nothing and says what differs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from segweave.author_weights import HasReleasedNames, ReleasedNames, load_released
from segweave.errors import InputError, UsageError


class Mapped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(2, 3)
        self.register_buffer("count", torch.zeros(1))

    def released_names(self) -> ReleasedNames:
        return ReleasedNames(
            tensors={"first.weight": "net.w", "first.bias": "net.b", "count": "net.n"},
            fixed=frozenset({"net.pe"}),
            dead=frozenset({"net.unused"}),
        )


def released() -> dict[str, Tensor]:
    return {
        "net.w": torch.full((3, 2), 2.0),
        "net.b": torch.full((3,), 3.0),
        "net.n": torch.full((1,), 4.0),
        "net.pe": torch.zeros(7),
        "net.unused": torch.zeros(9),
    }


def test_everything_matches_and_the_report_says_so() -> None:
    module = Mapped()
    report = load_released(module, released())
    assert report.matched == ("net.w", "net.b", "net.n")
    assert (report.missing, report.unexpected, report.dead) == ((), (), ("net.unused",))
    assert module.first.weight.unique().item() == 2.0
    assert module.first.bias.unique().item() == 3.0
    assert module.count.item() == 4.0, "buffers are loaded like parameters"
    assert isinstance(module, HasReleasedNames)


def test_the_prefix_of_data_parallel_is_taken_off() -> None:
    module = Mapped()
    load_released(module, {f"module.{name}": value for name, value in released().items()})
    assert module.first.bias.unique().item() == 3.0


def test_gradients_still_flow_after_loading() -> None:
    module = Mapped()
    load_released(module, released())
    module.first(torch.ones(1, 2)).sum().backward()
    assert module.first.weight.grad is not None


@pytest.mark.parametrize("damage", ["missing", "unexpected", "shape"])
def test_a_misfit_is_refused_and_changes_nothing(damage: str) -> None:
    module, given = Mapped(), released()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    if damage == "missing":
        del given["net.b"]
    elif damage == "unexpected":
        given["stranger"] = torch.zeros(1)
    else:
        given["net.n"] = torch.zeros(2)
    with pytest.raises(InputError, match="stranger" if damage == "unexpected" else r"net\.[bn]"):
        load_released(module, given)
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


def test_not_strict_loads_what_is_there() -> None:
    module, given = Mapped(), released()
    del given["net.b"]
    given["stranger"] = torch.zeros(1)
    report = load_released(module, given, strict=False)
    assert report.missing == ("net.b",)
    assert report.unexpected == ("stranger",)
    assert module.first.weight.unique().item() == 2.0


def test_a_module_without_released_names_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="Linear"):
        load_released(nn.Linear(1, 1), {})
