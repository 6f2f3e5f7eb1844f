"""MT-UNet against the released numbers, and its rules."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from segweave.errors import UsageError
from segweave.networks import create_network
from tests.networks.agreement import Agreement, files_of, matched, read_spec

OPTIONS = {f"released-mt-unet-{name}" for name in ("salstm", "skip-mlp", "residual-scaling")}
FILES = files_of("mt-unet", "mt-unet-gray", *OPTIONS)


def build(spec: dict[str, Any]) -> nn.Module:
    settings = spec["settings"]
    return create_network(
        "mt-unet",
        in_channels=spec["input_shape"][1],
        classes=settings["out_ch"],
        skip_mlp=settings.get("use_skip_connections_and_MLP", False),
        residual_scaling=settings.get("use_depth_dependent_residual_scaling", False),
    )


def test_the_reference_files_are_here() -> None:
    assert set(FILES) == {"mt-unet", "mt-unet-gray"} | OPTIONS


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", FILES)
def test_agrees_in_float64(name: str) -> None:
    Agreement(name, build, torch.float64, gradients=True).assert_agrees()


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_agrees_in_float32(name: str) -> None:
    Agreement(name, build, torch.float32).assert_agrees()


@pytest.mark.parametrize("name", FILES)
def test_the_released_names_are_complete(name: str) -> None:
    spec = read_spec(name)
    network, report = matched(name, build)
    assert len(report.matched) + len(report.dead) == len(spec["state_dict"])
    assert report.missing == report.unexpected == ()
    # What we leave out: parameters that get no gradient, and the ten biases that cancel.
    biases = {k for k in report.dead if k.endswith("gaussiantrans.bias")}
    assert len(biases) == 10
    assert set(report.dead) - biases == set(spec["parameters_without_gradient_in_eval"])
    ours = sum(p.numel() for p in network.parameters())
    assert ours == spec["parameters_used"] - len(biases)


def test_grey_images_are_repeated() -> None:
    torch.manual_seed(0)
    grey = create_network("mt-unet", in_channels=1, width=2).double().eval()
    colour = create_network("mt-unet", in_channels=3, width=2).double().eval()
    colour.load_state_dict(grey.state_dict())
    x = torch.randn(1, 1, 64, 96, dtype=torch.float64)
    assert torch.equal(grey(x).logits, colour(x.repeat(1, 3, 1, 1)).logits)


def test_the_position_table_is_interpolated() -> None:
    torch.manual_seed(0)
    network = create_network("mt-unet", width=2).double().eval()
    with torch.no_grad():
        row = torch.linspace(-1, 1, 28, dtype=torch.float64)
        network.positions.copy_(row.repeat(28).reshape(1, 784, 1).expand(-1, -1, 8))
    half = network._position_map(torch.zeros(1, 8, 14, 56))
    assert half.shape == (1, 8, 14, 56)
    assert torch.allclose(half[0, 0, 0], half[0, 7, -1])
    assert (half[0, 0, 0].diff()[1:-1] > 0).all()
    whole = network._position_map(torch.zeros(1, 8, 28, 28))
    assert torch.equal(whole.flatten(2).transpose(1, 2), network.positions)
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    with_table = network(x).logits
    with torch.no_grad():
        network.positions.zero_()
    assert not torch.allclose(with_table, network(x).logits)


def test_start_values() -> None:
    torch.manual_seed(0)
    network = create_network("mt-unet", width=2)
    assert not network.positions.any()
    decays = [p for name, p in network.named_parameters() if name.endswith("decay")]
    assert len(decays) == 10
    assert all(decay > 0 for decay in decays)


def test_residual_scaling_is_half_logits_half_image() -> None:
    torch.manual_seed(0)
    options = {"in_channels": 1, "classes": 4, "width": 2}
    scaled = create_network("mt-unet", residual_scaling=True, **options).eval()
    plain = create_network("mt-unet", **options).eval()
    plain.load_state_dict(scaled.state_dict())
    x = torch.randn(2, 1, 64, 64)
    assert torch.allclose(scaled(x).logits, 0.5 * plain(x).logits + 0.5 * x)


def test_skip_mlp_acts_on_each_position() -> None:
    torch.manual_seed(0)
    options = {"in_channels": 1, "classes": 4, "width": 4}
    network = create_network("mt-unet", skip_mlp=True, **options).eval()
    plain = create_network("mt-unet", **options).eval()
    plain.load_state_dict({k: v for k, v in network.state_dict().items() if "mlp" not in k})
    x = torch.randn(1, 1, 64, 64)
    at = network.mlp(plain(x).logits[0, :, 3, 5])
    assert torch.allclose(network(x).logits[0, :, 3, 5], at, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 3}, "even width"),
        ({"width": 0}, "even width"),
        ({"skip_mlp": True, "classes": 4}, "as many outputs as the width"),
        ({"residual_scaling": True, "in_channels": 3, "classes": 64}, "one channel"),
    ],
)
def test_options_keep_the_released_limits(options: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        create_network("mt-unet", **options)
