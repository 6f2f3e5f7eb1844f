"""FANet against the released numbers, and its rules."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from segweave.blocks.otsu import otsu_mask
from segweave.errors import UsageError
from segweave.networks import create_network
from segweave.networks.fanet import FANet, MixPool
from tests.networks.agreement import Agreement, files_of, matched, read_spec

FILES = files_of("fanet")


def build(spec: dict[str, Any]) -> nn.Module:
    return create_network("fanet", classes=spec["num_classes"])


def agreement(name: str, *, gradients: bool) -> Agreement:
    passes = len(read_spec(name)["outputs"])
    return Agreement(name, build, torch.float64, gradients=gradients, passes=passes)


def test_the_reference_files_are_here() -> None:
    assert set(FILES) == {"fanet", "fanet@64x112", "fanet@feedback"}


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_agrees_in_float64(name: str) -> None:
    agreement(name, gradients=True).assert_agrees()


def test_the_released_names_are_complete() -> None:
    spec = read_spec("fanet")
    network, report = matched("fanet", build)
    assert len(report.matched) == len(spec["state_dict"])
    assert report.missing == report.unexpected == report.dead == ()
    assert sum(p.numel() for p in network.parameters()) == spec["parameter_count"]
    trained = [p for p in network.parameters() if p.requires_grad]
    assert sum(p.numel() for p in trained) == spec["parameter_count_used"]
    names = network.released_names().tensors
    untrained = {names[name] for name, p in network.named_parameters() if not p.requires_grad}
    assert untrained == set(spec["parameters_without_gradient"])


@pytest.mark.parametrize("size", [(16, 16), (48, 32)])
def test_sizes_and_the_mask_of_the_pass_before(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    network = create_network("fanet", in_channels=2, classes=3, width=4).eval()
    x = torch.randn(2, 2, *size)
    assert isinstance(network, FANet)
    assert network.feedback is not None
    assert network.feedback.rounds == 10
    none, all_of_it = torch.zeros(2, 1, *size), torch.ones(2, 1, *size)
    first = network(x, mask=none).logits
    assert first.shape == (2, 3, *size)
    assert not torch.equal(network(x, mask=all_of_it).logits, first)


def test_a_full_mask_selects_everything() -> None:
    torch.manual_seed(0)
    mix = MixPool(8).double().eval()
    x = torch.randn(2, 8, 6, 6, dtype=torch.float64)
    ones = torch.ones(2, 1, 6, 6, dtype=torch.float64)
    expected = torch.cat([mix.selected(x), mix.all(x)], 1)
    assert torch.equal(mix(x, ones), expected)
    # Any number but 0 is foreground.
    assert torch.equal(mix(x, 0.1 * ones), expected)
    with torch.no_grad():
        mix.score[1].weight.zero_()
        mix.score[1].bias.fill_(-1)
    nothing = torch.cat([mix.selected(torch.zeros_like(x)), mix.all(x)], 1)
    assert torch.equal(mix(x, 0 * ones), nothing)
    with torch.no_grad():
        mix.score[1].bias.fill_(1)
    assert torch.equal(mix(x, 0 * ones), expected)


def test_the_learned_mask_is_not_trained() -> None:
    network = create_network("fanet", width=4).train()
    x = torch.randn(2, 3, 32, 32)
    network(x, mask=torch.zeros(2, 1, 32, 32)).logits.square().mean().backward()
    fixed = {name for name, p in network.named_parameters() if not p.requires_grad}
    assert fixed == {name for name, _ in network.named_parameters() if ".score." in name}
    assert all(p.grad is None for name, p in network.named_parameters() if name in fixed)


@pytest.mark.parametrize("options", [{"width": 6}, {"width": 0}, {"rounds": 0}])
def test_impossible_options_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="divisible by 4"):
        create_network("fanet", **options)


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_otsu_against_scikit_image(channels: int) -> None:
    filters = pytest.importorskip("skimage.filters")
    torch.manual_seed(channels)
    rows = torch.arange(40)[:, None]
    disc = ((rows - 20) ** 2 + (torch.arange(56) - 25) ** 2 < 150).float()
    image = 2 * disc + 0.5 * torch.randn(4, channels, 40, 56) - 3
    masks = otsu_mask(image)
    assert masks.shape == (4, 1, 40, 56)
    weights = torch.tensor([0.299, 0.587, 0.114]) if channels == 3 else torch.ones(channels)
    for one, mask in zip(image, masks[:, 0].numpy(), strict=True):
        grey = np.tensordot(weights / weights.sum(), one.numpy(), 1)
        grey = filters.gaussian(grey, sigma=1.1, mode="mirror", truncate=2 / 1.1)
        levels = np.round(255 * (grey - grey.min()) / (grey.max() - grey.min()))
        expected = levels > filters.threshold_otsu(levels.astype(np.uint8))
        assert np.mean(mask != expected) < 0.001  # pixels whose level is rounded the other way
        assert np.mean(mask != disc.numpy()) < 0.1


def test_otsu_of_a_constant_image_is_empty() -> None:
    mask = otsu_mask(torch.full((1, 3, 16, 16), 7.0, dtype=torch.float64))
    assert mask.dtype is torch.float64
    assert mask.sum() == 0
