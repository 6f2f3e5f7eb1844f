"""UNet against the released numbers, and its rules."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from segweave.author_weights import load_released
from segweave.errors import InputError, UsageError
from segweave.networks import create_network
from tests.networks.agreement import Agreement, files_of, matched, read_spec

FILES = files_of("unet")


def build(spec: dict[str, Any]) -> nn.Module:
    return create_network("unet", in_channels=3, classes=spec["num_classes"])


def test_the_reference_files_are_here() -> None:
    assert {"unet", "unet@64x112"} <= set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_agrees_in_float64(name: str) -> None:
    Agreement(name, build, torch.float64, gradients=True).assert_agrees()


@pytest.mark.parametrize("name", FILES)
def test_agrees_in_float32(name: str) -> None:
    Agreement(name, build, torch.float32).assert_agrees()


def test_the_released_names_are_complete() -> None:
    network, report = matched("unet", build)
    assert len(report.matched) == len(read_spec("unet")["state_dict"])
    assert report.missing == report.unexpected == report.dead == ()
    assert sum(p.numel() for p in network.parameters()) == read_spec("unet")["parameter_count"]


def test_released_names_follow_the_number_of_levels() -> None:
    names = create_network("unet", width=2, levels=3).released_names().tensors
    assert names["encoder.2.0.weight"] == "conv3.conv.0.weight"
    assert names["upsampling.0.weight"] == "up4.weight"
    assert names["decoder.1.4.running_var"] == "conv5.conv.4.running_var"
    assert names["classifier.bias"] == "conv6.bias"


def test_another_checkpoint_changes_nothing() -> None:
    network = create_network("unet", width=4)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    wider = create_network("unet", width=8)
    theirs = {
        released: wider.state_dict()[ours]
        for ours, released in wider.released_names().tensors.items()
    }
    with pytest.raises(InputError, match=r"conv1\.conv\.0\.weight"):
        load_released(network, theirs)
    del theirs["conv1.conv.0.weight"]
    with pytest.raises(InputError):
        load_released(network, theirs)
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


@settings(max_examples=15, deadline=None)
@given(st.integers(2, 4), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3))
def test_any_size_that_the_levels_divide(levels: int, rows: int, columns: int, width: int) -> None:
    network = create_network("unet", width=width, levels=levels).eval()
    assert network.stride == 2 ** (levels - 1)
    assert network.channels["bottleneck"] == (width * network.stride,)
    size = (rows * network.stride, columns * network.stride)
    assert network(torch.randn(1, 3, *size)).logits.shape == (1, 1, *size)


@pytest.mark.parametrize("options", [{"width": 0}, {"levels": 1}])
def test_impossible_options_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="at least"):
        create_network("unet", **options)
