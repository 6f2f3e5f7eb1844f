"""`weave`: what it makes of names, functions and settings, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from segweave.context import create_context
from segweave.errors import UsageError
from segweave.networks import create_network
from segweave.weaving import POSITIONS, weave
from segweave.weaving.wrappers import Narrowed, Plain, Tiled
from tests.weaving.toy import ToyNetwork, Weighted


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_a_name_means_create_context_on_both_sides() -> None:
    torch.manual_seed(0)
    network = ToyNetwork()
    torch.manual_seed(1)
    made = weave(network, "sa-lstm", context_options={"kernel_size": 3})
    torch.manual_seed(1)
    module = create_context("sa-lstm", 8, out_channels=8, both_sides=True, kernel_size=3)
    assert list(made.context[0].state_dict()) == list(module.state_dict())
    for own, alone in zip(made.context[0].parameters(), module.parameters(), strict=True):
        assert torch.equal(own, alone)  # nothing else draws from the stream of start values
    assert made.parameters_added == count(module)
    assert made.context[0].both_sides
    assert made.slices == 3
    assert made.current(3) == 1
    assert not weave(network, "sa-lstm", slices=1).context[0].both_sides
    assert f"parameters_added={made.parameters_added}" in repr(made)


@pytest.mark.parametrize("name", ["sa-lstm", "lstm-sa", "sa-embedded-lstm", "conv"])
def test_more_than_64_channels_are_narrowed_in_form_paper(name: str) -> None:
    network = ToyNetwork(width=40)  # 80 channels at the bottleneck
    made = weave(network, name)
    module = made.context[0]
    assert isinstance(module, Narrowed)
    assert module.inner.channels == 64
    assert module.out_channels == 80
    kernels = {m.kernel_size[0] for m in module.inner.modules() if isinstance(m, nn.Conv2d)}
    assert kernels == {1, 3}
    assert made(torch.rand(1, 3, 1, 4, 4)).logits.shape == (1, 2, 4, 4)
    wider = weave(network, name, context_options={"kernel_size": 5}).context[0]
    assert isinstance(wider, Narrowed)
    assert count(wider) > count(module)
    assert not isinstance(weave(network, name, form="released").context[0], Narrowed)
    assert not isinstance(weave(network, name, at="decoder").context[0], Narrowed)
    direct = weave(network, lambda c: create_context(name, c, out_channels=c, both_sides=True))
    assert not isinstance(direct.context[0], Narrowed)


@pytest.mark.parametrize("name", ["identity", "mean"])
def test_controls_without_parameters_are_never_narrowed(name: str) -> None:
    assert weave(ToyNetwork(width=40), name).parameters_added == 0


def test_skips_get_one_module_each() -> None:
    network = create_network("unet", in_channels=1, classes=2, width=2, levels=3)
    made = weave(network, "sa-lstm", at="skips")
    assert [module.channels for module in made.context] == [2, 4]
    seen: list[int] = []

    def once_a_place(channels: int) -> nn.Module:
        seen.append(channels)
        return Weighted(channels)

    weave(network, once_a_place, at="skips")
    assert seen == [2, 4]
    one = Weighted(2)
    with pytest.raises(UsageError, match="same module twice"):
        weave(create_two_equal_skips(), lambda _: one, at="skips")


def create_two_equal_skips() -> nn.Module:
    network = ToyNetwork()
    network.channels["skips"] = (2, 2)
    return network


def test_output_may_change_the_classes() -> None:
    network = ToyNetwork(classes=6)
    made = weave(network, "sa-lstm", at="output", classes=4, join="replace")
    assert (made.classes, made.network.classes) == (4, 6)
    assert made(torch.rand(1, 3, 1, 8, 8)).logits.shape == (1, 4, 8, 8)
    assert weave(network, lambda c: Weighted(c, 3), at="output", join="replace").classes == 3
    with pytest.raises(UsageError, match="join='add'"):
        weave(network, "sa-lstm", at="output", classes=4)
    with pytest.raises(UsageError, match="number of classes, 6"):
        weave(network, "sa-lstm", classes=4)


def test_a_plain_module_is_taken() -> None:
    class Last(nn.Module):
        def forward(self, sequence: torch.Tensor) -> torch.Tensor:
            return sequence[:, -1]

    made = weave(ToyNetwork().eval(), lambda _: Last())
    assert isinstance(made.context[0], Plain)
    window = torch.rand(1, 3, 1, 8, 8)
    made.eval()
    torch.testing.assert_close(
        made.fuse([made.prepare(x) for x in window.unbind(1)]).logits, made(window).logits
    )


def test_conv_is_made_for_the_window() -> None:
    assert weave(ToyNetwork(), "conv", slices=5).context[0].steps == 5
    tiled = weave(ToyNetwork(), "conv", slices=1, tiles=2).context[0]
    assert isinstance(tiled, Tiled)
    assert tiled.inner.steps == 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"join": "concatenate"}, "join='replace' or join='add'"),
        ({"slices": 2}, "odd number of slices"),
        ({"slices": 0}, "odd number of slices"),
        ({"tiles": 0, "slices": 1}, "tiles of at least 1"),
        ({"tiles": 2}, "slices=1"),
        ({"at": "bottelneck"}, "did you mean bottleneck"),
        ({"at": "shalow.0"}, "did you mean shallow"),
        ({"at": "deep"}, "channels="),
        ({"at": "skips", "channels": 3}, "no channels="),
        ({"context": "sa-lstn"}, "did you mean"),
        ({"context_options": {"kernel": 3}}, "kernel_size"),
        ({"context": Weighted, "context_options": {"kernel_size": 3}}, "a function"),
        ({"context": lambda c: Weighted(c, 5)}, "from 8 to 8 channels"),
        ({"context": lambda c: Weighted(c), "slices": 1, "tiles": 2}, "one-sided"),
        ({"form": "printed"}, "form"),
    ],
)
def test_wrong_settings_are_refused(settings: dict, message: str) -> None:
    settings = {"context": "sa-lstm", **settings}
    with pytest.raises(UsageError, match=message):
        weave(ToyNetwork(), **settings)


def test_a_network_that_lacks_the_contract_says_what_is_missing() -> None:
    with pytest.raises(UsageError, match="no encode, no decode, no head, no channels"):
        weave(nn.Conv2d(1, 2, 3), Weighted)
    network = ToyNetwork()
    del network.stride
    with pytest.raises(UsageError, match="no stride"):
        weave(network, Weighted, at="encoder")
    weave(network, Weighted)
    del network.channels["skips"]
    with pytest.raises(UsageError, match=r"network.channels\['skips'\]"):
        weave(network, Weighted, at="skips")


@pytest.mark.parametrize("at", POSITIONS)
def test_released_names_are_told_only_where_a_whole_model_was_released(at: str) -> None:
    made = weave(ToyNetwork(), "sa-lstm", at=at)
    with pytest.raises(UsageError):
        made.released_names()


def test_a_module_that_is_no_network_is_offered_what_it_has() -> None:
    bare = nn.Sequential(nn.Conv2d(1, 4, 3))
    with pytest.raises(UsageError) as error:
        weave(bare, "sa-lstm", at="1")
    assert "bottleneck" not in str(error.value)
    assert "output" in str(error.value)
