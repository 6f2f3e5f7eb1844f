"""The three whole released models: MT-UNet on three slices and a context module behind it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from segweave.author_weights import load_released
from segweave.errors import UsageError
from segweave.networks import create_network
from segweave.weaving import weave
from segweave.weaving.author_models import RELEASED_MODELS, released_model
from tests.networks.agreement import Agreement, files_of, matched, read_spec

FILES = files_of(*(f"released-{name}-whole" for name in RELEASED_MODELS))
WITH_GRADIENTS = "released-salstm-whole"


def build(spec: dict[str, Any]) -> nn.Module:
    settings = spec["settings"]
    return released_model(
        spec["name"].removeprefix("released-").removesuffix("-whole"),
        classes=settings["num_classes"],
        in_channels=spec["input_shape"][1],
        attention_size=settings["attention_size"],
        width=settings["input_channels"],
        kernel_size=settings["kernel_size"],
        hidden_channels=settings["hidden_channels"],
    )


def test_the_reference_files_are_here() -> None:
    assert len(FILES) == len(RELEASED_MODELS)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", FILES)
def test_agrees_in_float64(name: str) -> None:
    # A gradient through three encoders and the module at 224×224 takes a minute: those of the
    # others are checked below at another size, and each module's in tests/context.
    Agreement(name, build, torch.float64, gradients=name == WITH_GRADIENTS).assert_agrees()


@pytest.mark.parametrize("name", RELEASED_MODELS)
def test_the_gradient_is_the_slope_of_the_outputs(name: str) -> None:
    """Nothing on the way from a slice of the window to the class scores is cut off."""
    torch.manual_seed(0)
    model = released_model(name, classes=2, width=2).double().eval()
    window = torch.randn(1, 3, 1, 64, 64, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(1, 2, 64, 64, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((model(window).logits * weight).sum(), window)
    for index in range(3):
        step = torch.zeros_like(window)
        step[:, index] = 1e-6 * torch.randn(1, 1, 64, 64, dtype=torch.float64)
        with torch.no_grad():
            change = ((model(window + step).logits - model(window - step).logits) * weight).sum()
        slope = (gradient * step).sum() * 2
        assert slope != 0
        assert abs(change - slope) <= 1e-4 * abs(slope)


@pytest.mark.slow
def test_agrees_in_float32() -> None:
    Agreement(WITH_GRADIENTS, build, torch.float32).assert_agrees()


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_the_released_names_are_complete(name: str) -> None:
    spec = read_spec(name)
    network, report = matched(name, build)
    assert report.missing == report.unexpected == ()
    assert len(report.matched) + len(report.dead) == len(spec["state_dict"])
    biases = sum(key.endswith("gaussiantrans.bias") for key in report.dead)
    ours = sum(p.numel() for p in network.parameters())
    assert ours == spec["parameters_used"] - biases


@pytest.mark.parametrize("name", RELEASED_MODELS)
def test_three_slices_become_class_scores(name: str) -> None:
    torch.manual_seed(0)
    model = released_model(name, classes=3, width=2).eval()
    assert (model.in_channels, model.classes, model.slices) == (1, 3, 3)
    window = torch.randn(2, 3, 1, 64, 96)
    with torch.no_grad():
        whole = model(window).logits
        once = model.fuse([model.prepare(image) for image in window.unbind(1)]).logits
        swapped = model(window.flip(1)).logits
    assert whole.shape == (2, 3, 64, 96)
    assert torch.allclose(whole, once, atol=1e-5)
    assert not torch.allclose(whole, swapped)


def test_the_network_is_shared_by_the_slices() -> None:
    model = released_model("salstm", width=2)
    names = [name for name, _ in model.named_parameters() if "classifier.weight" in name]
    assert names == ["network.classifier.weight"]


def test_a_checkpoint_comes_back_through_the_released_names() -> None:
    torch.manual_seed(0)
    first, second = released_model("lstm-sa", width=2), released_model("lstm-sa", width=2)
    names = first.released_names()
    state = first.state_dict()
    # As the authors' training leaves it: a DataParallel prefix, and the dead tensors.
    theirs = {f"module.{released}": state[ours] for ours, released in names.tensors.items()}
    theirs |= {f"module.{released}": torch.zeros(1) for released in names.dead}
    report = load_released(second, theirs)
    assert len(report.dead) == 30
    for key, value in second.state_dict().items():
        assert torch.equal(value, state[key])


def test_an_unknown_model_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean salstm"):
        released_model("sa-lstm")


class Plain(nn.Module):
    classes = 2
    in_channels = 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.repeat(1, 2, 1, 1)


def test_other_weavings_have_no_released_names() -> None:
    unet = create_network("unet", in_channels=1, classes=4, width=2)
    for woven in (weave(unet, "identity"), weave(Plain(), "mean", at="output")):
        with pytest.raises(UsageError, match="released_model"):
            load_released(woven, {})
