"""Trying every network with context modules at every position."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from segweave import create_network
from segweave.errors import UsageError
from segweave.networks.base import Output
from segweave.workflow import check_networks as checked
from segweave.workflow.check_networks import check_networks, failed_networks


def test_two_networks_work_alone_and_woven() -> None:
    """One of them reads its own mask."""
    seen: list[tuple[float, float, str]] = []

    def progress(done: float, total: float, name: str) -> None:
        seen.append((done, total, name))

    before = torch.get_rng_state()
    trials = list(
        check_networks(["unet", "fanet"], positions=("skips", "output"), progress=progress)
    )
    assert [trial.error for trial in trials] == [""] * 10
    assert [trial.place for trial in trials[:5]] == [
        "alone",
        "sa-lstm at skips",
        "sa-lstm at output",
        "conv at skips",
        "conv at output",
    ]
    assert [trial.network for trial in trials] == ["unet"] * 5 + ["fanet"] * 5
    assert {trial.size for trial in trials} == {(32, 32)}
    assert failed_networks(trials) == []
    assert seen[0] == (0, 10, "unet")
    assert seen[7] == (7, 10, "fanet, sa-lstm at output")
    assert seen[-1] == (10, 10, "")
    assert torch.equal(before, torch.get_rng_state())


class Cut(torch.nn.Module):
    """A head whose gradient or whose logits are wrong."""

    def __init__(self, wrong: str) -> None:
        super().__init__()
        self.wrong = wrong

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        if self.wrong == "detached":
            return logits.detach() + 0 * logits.sum().detach().requires_grad_()
        if self.wrong == "nan" and not torch.is_grad_enabled():
            return logits * torch.nan
        return logits * torch.inf if self.wrong == "inf" else logits


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("detached", "gradients in the context module"),
        ("inf", "a finite loss"),
        ("nan", "finite logits"),
    ],
)
def test_what_does_not_work_is_reported_and_the_next_is_tried(
    wrong: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(name: str, **options: Any) -> torch.nn.Module:
        network = create_network(name, **options)
        if name == "unetpp":
            cut, head = Cut(wrong), network.head

            def wrong_head(*given: Any) -> Output:
                return Output(cut(head(*given).logits), {})

            network.head = wrong_head  # type: ignore[method-assign]
        return network

    monkeypatch.setattr(checked, "create_network", broken)
    trials = list(check_networks(["unetpp", "unet"], contexts=["conv"], positions=["skips"]))
    assert message in trials[1].error
    assert failed_networks(trials) == ["unetpp"]
    assert not trials[2].error
    assert not trials[3].error


def test_an_unknown_name_is_refused_before_anything_runs() -> None:
    with pytest.raises(UsageError, match="did you mean unet"):
        next(check_networks(["unet", "unett"]))
    with pytest.raises(UsageError, match="did you mean conv"):
        next(check_networks(["unet"], contexts=["convv"]))
