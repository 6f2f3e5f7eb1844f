"""A volume at once equals window by window: every network with three modules, every module with one
network, at all positions.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from segweave import registry
from segweave.data import inputs as data_inputs
from segweave.errors import UsageError
from segweave.networks import Output, create_network, first_inputs, mask_of
from segweave.weaving import POSITIONS, WovenNetwork, volume_outputs, weave
from tests.reference.fill import calibrate
from tests.weaving.toy import FeedbackNetwork, ToyNetwork, Weighted, one_sided, settle

THREE = ("sa-lstm", "conv", "identity")
COUNT = 3
CONTEXTS = list(registry.contexts.cards())
PAIRS = [
    *((network, context) for network in registry.networks.cards() for context in THREE),
    *(("unet", context) for context in CONTEXTS if context not in THREE),
]
BOTH_FORMS = [n for n, c in registry.contexts.cards().items() if len(c.forms) > 1]


@cache
def tiny(name: str) -> tuple[torch.nn.Module, int]:
    """A network at its smallest, and the smallest side of an image that it takes."""
    if name.startswith("timm"):
        pytest.importorskip("timm")
    card = registry.networks.card(name)
    torch.manual_seed(0)
    network = create_network(name, in_channels=1, classes=2, **card.tiny_options)
    side = min(min(s) if isinstance(s, tuple) else s for s in network.fixed or (network.smallest,))
    # Untrained statistics would leave some networks constant, and a constant is always equal.
    calibrate(FirstPass(network.double()), volume(side).flatten(0, 1))
    return network, side


class FirstPass(torch.nn.Module):
    """A network that is called with images or windows alone; it gets the first masks of its
    feedback, or the whole image as a box, if it takes them.
    """

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Output:
        given = first_inputs(self.network, x.flatten(0, -4))
        shaped = {name: v.reshape(*x.shape[:-3], *v.shape[1:]) for name, v in given.items()}
        return self.network(x, **shaped)  # type: ignore[no-any-return]


@cache
def volume(side: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(COUNT, 1, 1, side, side, dtype=torch.float64, generator=generator)


def window_indices(index: int) -> list[int]:
    return [min(max(i, 0), COUNT - 1) for i in (index - 1, index, index + 1)]


def next_mask(output: Output) -> Tensor:
    return mask_of(output, exclusive=True)


def boxes(index: int, side: int = 16) -> Tensor:
    """What a network with a prompt is shown of a slice: another box in each."""
    return torch.tensor([[index, 0, side - 1, side - 1 - 2 * index]], dtype=torch.float64)


def shown(network: Any, *indices: int) -> dict[str, Tensor]:
    """The boxes of these slices, where the network takes them."""
    prompt = getattr(network, "prompt", None)
    return {} if prompt is None else {prompt.name: torch.stack([boxes(i) for i in indices], 1)}


def at_once(woven: WovenNetwork, slices: Tensor) -> list[Tensor]:
    outputs = volume_outputs(
        woven,
        len(slices),
        lambda i: slices[i],
        window_indices,
        get_prompt=boxes,
        next_mask=next_mask,
    )
    return [output.logits for output in outputs]


def in_rounds(
    network: Any, slices: Tensor, run: Callable[[int, list[Tensor]], Output]
) -> list[Tensor]:
    """Logits of all slices from `run(index, masks of all slices)`, in as many passes as the
    network's feedback asks for.
    """
    feedback = network.feedback
    masks = [] if feedback is None else [feedback.first(x) for x in slices]
    for _ in range(1 if feedback is None else feedback.rounds):
        with torch.no_grad():
            outputs = [run(index, masks) for index in range(len(slices))]
        masks = [] if feedback is None else [next_mask(output) for output in outputs]
    return [output.logits for output in outputs]


def window_by_window(woven: WovenNetwork, slices: Tensor) -> list[Tensor]:
    def run(index: int, masks: list[Tensor]) -> Output:
        window = window_indices(index)
        given = {"mask": torch.stack([masks[j] for j in window], 1)} if masks else {}
        given |= shown(woven, *window)
        return woven(torch.stack([slices[j] for j in window], 1), **given)  # type: ignore[no-any-return]

    return in_rounds(woven, slices, run)


def image_by_image(network: torch.nn.Module, slices: Tensor) -> list[Tensor]:
    def run(index: int, masks: list[Tensor]) -> Output:
        given = {"mask": masks[index]} if masks else {}
        given |= {name: values[:, 0] for name, values in shown(network, index).items()}
        return network(slices[index], **given)  # type: ignore[no-any-return]

    return in_rounds(network, slices, run)


def check(network_name: str, context: str, at: str, form: str, **options: Any) -> None:
    network, side = tiny(network_name)
    torch.manual_seed(2)
    woven = weave(network, context, at=at, form=form, context_options=options)
    woven.double().eval()
    slices = volume(side)
    if at == "skips":
        # Woven skips have another range, where ReLUs may die and leave the logits constant.
        windows = torch.stack([slices[window_indices(i), 0] for i in (0, 2)])
        calibrate(FirstPass(woven), windows)
    found, expected = at_once(woven, slices), window_by_window(woven, slices)
    with torch.no_grad():
        window = [
            woven.prepare(slices[i], **first_inputs(network, slices[i])) for i in window_indices(1)
        ]
        # Decoding changes nothing of what a slice has prepared.
        assert torch.equal(woven.fuse(window).logits, woven.fuse(window).logits)
    largest = max(float(logits.abs().max()) for logits in expected)
    assert len(found) == COUNT
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape == (1, 2, side, side)
        assert float((one - other).abs().max()) <= 1e-9 * largest
    if context == "identity":
        bare = image_by_image(network, slices)
        assert all(torch.equal(one, other) for one, other in zip(found, bare, strict=True))
        assert all(torch.equal(one, other) for one, other in zip(expected, bare, strict=True))
    elif not options.get("use_state_space_sequencing"):  # which never looks at its input
        assert not torch.equal(found[0], found[1])


@pytest.mark.parametrize("at", POSITIONS)
@pytest.mark.parametrize(("network", "context"), PAIRS)
def test_volume_equals_window_by_window(network: str, context: str, at: str) -> None:
    check(network, context, at, registry.contexts.card(context).forms[0])


@pytest.mark.parametrize("at", POSITIONS)
@pytest.mark.parametrize("context", BOTH_FORMS)
def test_the_released_form_too(context: str, at: str) -> None:
    check("unet", context, at, "released")


@pytest.mark.parametrize("option", ["use_lambda_skip_connections", "use_state_space_sequencing"])
def test_options_of_the_released_form(option: str) -> None:
    # The state space wants 64 channels and a map of `attention_size` positions.
    assert tiny("unet")[0].channels["bottleneck"] == (64,)
    options = {option: True, "attention_size": 1}
    check("unet", "sa-embedded-lstm", "bottleneck", "released", **options)


@pytest.mark.parametrize("at", ["deep", "shallow.0"])
@pytest.mark.parametrize("context", [Weighted, one_sided])
def test_dotted_names_and_one_sided_modules(at: str, context: Any) -> None:
    woven = weave(ToyNetwork(), context, at=at, channels=8 if at == "deep" else None)
    settle(woven)
    slices = volume(8)
    for one, other in zip(at_once(woven, slices), window_by_window(woven, slices), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("at", "calls"), [("bottleneck", 1), ("output", 1), ("deep", 2)])
def test_each_slice_runs_once(at: str, calls: int) -> None:
    woven = settle(weave(ToyNetwork(), Weighted, at=at, channels=8 if at == "deep" else None))
    fetched: list[int] = []

    def get_slice(index: int) -> Tensor:
        fetched.append(index)
        return volume(8)[index]

    list(volume_outputs(woven, COUNT, get_slice, window_indices))
    assert fetched == list(range(COUNT))
    assert woven.network.calls["encode"] == calls * COUNT


@pytest.mark.parametrize("edge", ["repeat", "released"])
def test_edge_rules_of_the_data_run_each_slice_once(edge: Any) -> None:
    woven = settle(weave(ToyNetwork(), Weighted))
    slices = volume(8)

    def window(index: int) -> list[int]:
        return data_inputs.window_indices(COUNT, index, 3, edge)

    found = [o.logits for o in volume_outputs(woven, COUNT, lambda i: slices[i], window)]
    assert woven.network.calls["encode"] == COUNT
    for index, logits in enumerate(found):
        expected = woven(torch.stack([slices[j] for j in window(index)], 1)).logits
        torch.testing.assert_close(logits, expected, rtol=1e-9, atol=1e-12)


def test_no_more_than_a_window_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    woven = settle(weave(ToyNetwork(), Weighted))
    alive: set[int] = set()
    most = 0

    class Counted(dict):  # type: ignore[type-arg]
        """Prepared tensors that say when they are gone."""

        def __init__(self, *args: Any) -> None:
            nonlocal most
            super().__init__(*args)
            alive.add(id(self))
            most = max(most, len(alive))

        def __del__(self) -> None:
            alive.discard(id(self))

    prepare = Weighted.prepare
    monkeypatch.setattr(Weighted, "prepare", lambda self, step: Counted(prepare(self, step)))
    slices = torch.rand(9, 1, 1, 8, 8, dtype=torch.float64)
    outputs = volume_outputs(
        woven, 9, lambda i: slices[i], lambda i: [max(i - 1, 0), i, min(i + 1, 8)]
    )
    assert len(list(outputs)) == 9
    assert most == woven.slices


def test_identity_fetches_no_neighbour() -> None:
    woven = settle(weave(ToyNetwork(), "identity"))
    fetched: list[int] = []

    def get_slice(index: int) -> Tensor:
        assert not fetched or index > fetched[-1]
        fetched.append(index)
        return volume(8)[index]

    for index, _ in enumerate(volume_outputs(woven, COUNT, get_slice, window_indices)):
        assert fetched == list(range(index + 1))


def test_one_slice_and_windows_of_five() -> None:
    woven = settle(weave(ToyNetwork(), Weighted, slices=5))
    slices = volume(8)
    window = [min(max(i, 0), COUNT - 1) for i in range(-1, 4)]
    found = list(volume_outputs(woven, 2, lambda i: slices[i], lambda _: window))[1].logits
    torch.testing.assert_close(found, woven(torch.stack([slices[i] for i in window], 1)).logits)
    (alone,) = volume_outputs(woven, 1, lambda i: slices[i], lambda _: [0] * 5)
    torch.testing.assert_close(alone.logits, woven(torch.stack([slices[0]] * 5, 1)).logits)


def test_training_mode_is_refused_and_gradients_are_off() -> None:
    woven = weave(ToyNetwork(), Weighted).double()
    with pytest.raises(UsageError, match="eval"):
        list(volume_outputs(woven, 1, lambda i: volume(8)[i], lambda _: [0, 0, 0]))
    woven.eval()
    (output,) = volume_outputs(woven, 1, lambda i: volume(8)[i], lambda _: [0, 0, 0])
    assert not output.logits.requires_grad
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("at", [*POSITIONS, "shallow"])
@pytest.mark.parametrize("rounds", [1, 3])
def test_feedback_runs_its_rounds_over_the_volume(at: str, rounds: int) -> None:
    settings = {"channels": 4} if at == "shallow" else {}
    woven = settle(weave(FeedbackNetwork(rounds), Weighted, at=at, **settings))
    slices = volume(8)

    def next_mask(output: Output) -> Tensor:
        return (output.logits > output.logits.median()).double()

    outputs = volume_outputs(woven, COUNT, lambda i: slices[i], window_indices, next_mask=next_mask)
    found = [output.logits for output in outputs]
    masks = [(image > 0.5).double() for image in slices]
    for _ in range(rounds):
        given = [torch.stack([masks[j] for j in window_indices(i)], 1) for i in range(COUNT)]
        windows = [torch.stack([slices[j] for j in window_indices(i)], 1) for i in range(COUNT)]
        with torch.no_grad():
            expected = [woven(w, mask=m).logits for w, m in zip(windows, given, strict=True)]
        before, masks = masks, [next_mask(Output(logits, {})) for logits in expected]
    assert not all(torch.equal(a, b) for a, b in zip(before, masks, strict=True))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_feedback_needs_the_next_mask() -> None:
    woven = settle(weave(FeedbackNetwork(), Weighted))
    with pytest.raises(UsageError, match="next_mask"):
        list(volume_outputs(woven, COUNT, lambda i: volume(8)[i], window_indices))


def test_a_prompt_needs_its_boxes() -> None:
    network, side = tiny("medsam-vit-b")
    woven = weave(network, "identity").double().eval()
    with pytest.raises(UsageError, match="get_prompt"):
        list(volume_outputs(woven, COUNT, lambda i: volume(side)[i], window_indices))
    with pytest.raises(UsageError, match=r"boxes of shape .batch, slices, 4."):
        woven(torch.stack(list(volume(side)), 1), boxes=boxes(0))
    with pytest.raises(UsageError, match="pass a box"):
        woven(torch.stack(list(volume(side)), 1))
