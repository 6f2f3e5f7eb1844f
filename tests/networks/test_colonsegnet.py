"""ColonSegNet against the released numbers, and its rules."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from segweave.errors import UsageError
from segweave.networks import create_network
from tests.networks.agreement import Agreement, files_of, matched, read_spec

FILES = files_of("colonsegnet")


def build(spec: dict[str, Any]) -> nn.Module:
    return create_network("colonsegnet", classes=spec["num_classes"])


def test_the_reference_files_are_here() -> None:
    assert set(FILES) == {"colonsegnet", "colonsegnet@64x96"}


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_agrees_in_float64(name: str) -> None:
    # Gradients at one of the two sizes, for the sake of time.
    Agreement(name, build, torch.float64, gradients="@" in name).assert_agrees()


def test_the_released_names_are_complete() -> None:
    network, report = matched("colonsegnet", build)
    spec = read_spec("colonsegnet")
    assert len(report.matched) == len(spec["state_dict"])
    assert report.missing == report.unexpected == report.dead == ()
    assert sum(p.numel() for p in network.parameters()) == spec["parameters"]


def test_the_map_at_half_the_size_is_joined_twice() -> None:
    torch.manual_seed(0)
    network = create_network("colonsegnet", classes=3, width=4).double().eval()
    features = network.encode(torch.randn(1, 3, 16, 24, dtype=torch.float64))
    half = features.skips[1]
    before = network.decode(features).map
    changed = features._replace(skips=(features.skips[0], half + 1, features.skips[2]))
    assert not torch.equal(network.decode(changed).map, before)
    with torch.no_grad():
        # Its way into the first joined map alone.
        network.decoder[0].body[0][0].weight[:, -4:] = 0
        network.decoder[0].shortcut[0].weight[:, -4:] = 0
    before = network.decode(features).map
    assert not torch.equal(network.decode(changed).map, before)
    with torch.no_grad():
        # And its way into the last one.
        network.upsampling[3].weight.zero_()
    assert torch.equal(network.decode(changed).map, network.decode(features).map)


@pytest.mark.parametrize("width", [0, 3])
def test_an_impossible_width_is_refused(width: int) -> None:
    with pytest.raises(UsageError, match="even width"):
        create_network("colonsegnet", width=width)
