"""A network from the user's own loop is saved, loaded and used like the model of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from segweave import Case, create_network, load, predict, save_model, weave
from segweave.data.specs import InputSpec, TargetSpec
from segweave.errors import InputError, SegweaveError, UsageError
from segweave.networks import Output
from segweave.prediction import Predictor

TARGET = TargetSpec(names=("background", "left", "right"))
SETTINGS: dict[str, Any] = {
    "network": {"name": "unet", "options": {"width": 2}},
    "context": {"name": "lstm-sa"},
    "weaving": {"at": "skips"},
    "input": {"size": [16, 16], "slices": 3},
}


def woven(**changes: Any) -> nn.Module:
    torch.manual_seed(0)
    network = create_network("unet", in_channels=1, classes=3, width=2)
    return weave(network, **{"context": "lstm-sa", "at": "skips", "slices": 3, **changes})


def case() -> Case:
    image = np.random.default_rng(0).normal(size=(5, 1, 20, 18)).astype(np.float32)
    return Case("one", "one", image, stack="space")


def train_a_little(network: nn.Module) -> None:
    """The user's loop: a few steps change weights and the statistics of batch norms."""
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    generator = torch.Generator().manual_seed(1)
    for _ in range(3):
        window = torch.randn(2, 3, 1, 16, 16, generator=generator)
        label = torch.randint(0, 3, (2, 16, 16), generator=generator)
        loss = nn.functional.cross_entropy(network(window).logits, label)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


def test_what_was_saved_predicts_like_the_network_itself(tmp_path: Path) -> None:
    network = woven()
    train_a_little(network)
    spec = InputSpec(size=(16, 16), slices=3)
    folder = save_model(tmp_path / "model", network, SETTINGS, TARGET, about={"scores": {"a": 1}})
    assert network.training, "the network is left in its mode"
    loaded = load(folder, device="cpu")
    network.eval()
    expected = predict(Predictor(network, spec, TARGET), case(), probabilities=True)
    found = predict(loaded, case(), probabilities=True)
    assert loaded.input == spec
    assert loaded.target == TARGET
    np.testing.assert_array_equal(found.probabilities, expected.probabilities)
    card = json.loads((folder / "card.json").read_text())
    assert card["title"] == "unet + lstm-sa at skips, 3 slices"
    assert card["scores"] == {"a": 1}
    assert "outside segweave" in card["training"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_a_bare_network_is_saved_too(tmp_path: Path) -> None:
    network = create_network("unet", in_channels=1, classes=3, width=2).eval()
    settings = {"network": SETTINGS["network"], "input": {"size": [16, 16]}}
    loaded = load(save_model(tmp_path / "m", network, settings, TARGET), device="cpu")
    x = torch.randn(1, 1, 16, 16)
    with torch.no_grad():
        assert torch.equal(loaded.network(x).logits, network(x).logits)


def test_a_model_is_replaced_and_nothing_else_is(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "m", woven(), SETTINGS, TARGET)
    first = (folder / "weights.safetensors").read_bytes()
    other = woven()
    train_a_little(other)
    save_model(folder, other, SETTINGS, TARGET)
    assert (folder / "weights.safetensors").read_bytes() != first
    foreign = tmp_path / "mine"
    foreign.mkdir()
    (foreign / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="choose another folder"):
        save_model(foreign, other, SETTINGS, TARGET)
    assert (foreign / "notes.txt").read_text() == "mine"


class Twice(nn.Module):
    """The tensors of a UNet, another function."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.__dict__["inner"] = network
        for name, child in network.named_children():
            self.add_module(name, child)
        self.in_channels, self.classes = 1, 3

    def forward(self, x: torch.Tensor) -> Output:
        output: Output = self.__dict__["inner"](x)
        return Output(2 * output.logits, {})


def own_network() -> nn.Module:
    return nn.Conv2d(1, 3, 3, padding=1)


@pytest.mark.parametrize(
    ("network", "settings", "words"),
    [
        (woven, {"network": {"name": "unet", "options": {"width": 4}}}, "not"),
        (woven, {"context": {"name": "sa-lstm"}}, "with sa-lstm at skips"),
        (woven, {"weaving": {"at": "bottleneck"}}, "lstm-sa at bottleneck"),
        (lambda: woven(join="replace"), {}, "other logits"),
        (lambda: woven(slices=5), {}, "one that reads 5 slices"),
        (own_network, {"context": None}, "needs a card (a plug-in)"),
        (
            lambda: Twice(create_network("unet", in_channels=1, classes=3, width=2)),
            {"context": None, "input": {"size": [16, 16]}},
            "other logits",
        ),
        (woven, {"network": {"name": "unett"}}, "did you mean"),
        (woven, {"contexts": {}}, "unknown key 'contexts'"),
    ],
)
def test_settings_that_do_not_describe_the_network_are_refused(
    tmp_path: Path, network: Any, settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(SegweaveError) as caught:
        save_model(tmp_path / "m", network(), SETTINGS | settings, TARGET)
    assert words in str(caught.value), str(caught.value)
    assert not (tmp_path / "m").exists()


def test_the_card_keeps_its_own_keys(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="target"):
        save_model(tmp_path / "m", woven(), SETTINGS, TARGET, about={"target": "mine"})


def test_another_number_of_classes_is_refused(tmp_path: Path) -> None:
    two = TargetSpec(names=("background", "heart"))
    with pytest.raises(InputError, match="not 2"):
        save_model(tmp_path / "m", woven(), SETTINGS, two)
