"""The controls: what they compute, and that `conv` has as many parameters as `sa-lstm`."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from segweave.context import create_context
from segweave.errors import UsageError


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def sequence(steps: int, channels: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(steps)
    return torch.rand(2, steps, channels, 5, 4, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("form", ["paper", "released"])
@pytest.mark.parametrize("both_sides", [False, True])
@pytest.mark.parametrize("kernel_size", [None, 1, 3, 5])
@pytest.mark.parametrize("channels", [1, 2, 3, 8, 17, 64])
def test_conv_has_the_parameters_of_sa_lstm(
    channels: int, kernel_size: int | None, both_sides: bool, form: str
) -> None:
    for steps in (1, 3, 5) if both_sides else (1, 4):
        for out_channels in (channels, 4):
            settings = {"out_channels": out_channels, "form": form, "both_sides": both_sides}
            options = {} if kernel_size is None else {"kernel_size": kernel_size}
            with torch.device("meta"):
                control = create_context("conv", channels, steps=steps, **settings, **options)
                module = create_context("sa-lstm", channels, **settings, **options)
                allowed = 0.05 * count(module)
                if channels <= 2:  # one channel between more or less may be over 5 %
                    finest = channels * control.stacked.kernel_size[0] ** 2 + 1 + out_channels
                    allowed = max(allowed, finest / 2)
                assert abs(count(control) - count(module)) <= allowed


def test_conv_follows_hidden_channels_of_its_twin() -> None:
    wide = create_context("conv", 4, hidden_channels=(16,))
    twin = create_context("sa-lstm", 4, hidden_channels=(16,), out_channels=4)
    assert abs(count(wide) / count(twin) - 1) <= 0.05


def test_conv_draws_no_start_values_but_its_own() -> None:
    torch.manual_seed(0)
    control = create_context("conv", 4)
    torch.manual_seed(0)
    first = nn.Conv2d(12, control.stacked.out_channels, control.stacked.kernel_size)
    assert torch.equal(control.stacked.weight, first.weight)


def test_conv_makes_up_for_a_coarse_width() -> None:
    control = create_context("conv", 1, both_sides=True, steps=3).double()
    assert control.current_alone is not None
    x = sequence(3, 1)
    parts = [control.stacked(x[:, :, 0]), control.current_alone(x[:, 1])]
    torch.testing.assert_close(control(x), control.conv(torch.cat(parts, 1).relu()))


def test_conv_computes_what_it_says() -> None:
    control = create_context("conv", 3, out_channels=2, steps=3).double()
    x = sequence(3)
    stacked = F.conv2d(x.flatten(1, 2), control.stacked.weight, control.stacked.bias, padding=1)
    expected = F.conv2d(stacked.relu(), control.conv.weight, control.conv.bias)
    torch.testing.assert_close(control(x), expected)


@pytest.mark.parametrize(
    ("both_sides", "steps", "given", "filled"),
    [
        (True, 3, 1, [0, 0, 0]),
        (True, 3, 2, [0, 1, 1]),
        (True, 5, 3, [0, 0, 1, 2, 2]),
        (False, 3, 1, [0, 0, 0]),
        (False, 4, 2, [0, 0, 0, 1]),
    ],
)
def test_conv_fills_short_sequences_by_their_edges(
    both_sides: bool, steps: int, given: int, filled: list[int]
) -> None:
    control = create_context("conv", 3, steps=steps, both_sides=both_sides).double()
    x = sequence(given)
    torch.testing.assert_close(control(x), control(x[:, filled]))
    with pytest.raises(UsageError, match=f"steps={steps + 1}"):
        control(sequence(steps + 1))


@pytest.mark.parametrize("both_sides", [False, True])
@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_identity_is_the_current_step(both_sides: bool, steps: int) -> None:
    control, x = create_context("identity", 3, both_sides=both_sides), sequence(steps)
    assert torch.equal(control(x), x[:, steps // 2 if both_sides else -1])
    assert count(control) == 0


@pytest.mark.parametrize("out_channels", [3, 2])
def test_mean_is_the_mean(out_channels: int) -> None:
    control, x = create_context("mean", 3, out_channels=out_channels).double(), sequence(4)
    torch.testing.assert_close(control(x), control.conv(x.mean(1)))
    fused = control.fuse([control.prepare(step) for step in x.unbind(1)])
    torch.testing.assert_close(fused, control(x))
    assert count(control) == (0 if out_channels == 3 else 3 * 2 + 2)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("identity", {"out_channels": 4}),
        ("conv", {"kernel_size": 4}),
        ("conv", {"steps": 0}),
        ("conv", {"stepz": 3}),
        ("mean", {"kernel_size": 3}),
    ],
)
def test_wrong_options_are_refused(name: str, options: dict) -> None:
    with pytest.raises(UsageError):
        create_context(name, 3, **options)
