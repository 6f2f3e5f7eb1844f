"""MISSFormer against the released numbers, and its rules."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from segweave.blocks.token_blocks import ReducedAttention
from segweave.blocks.token_bridge import BridgeLayer, split_scales
from segweave.errors import UsageError
from segweave.networks import create_network
from tests.networks.agreement import Agreement, files_of, matched, read_spec

FILES = files_of("missformer")


def build(spec: dict[str, Any]) -> nn.Module:
    return create_network(
        "missformer", in_channels=spec["input_shape"][1], classes=spec["num_classes"]
    )


def test_the_reference_files_are_here() -> None:
    assert "missformer" in FILES


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_agrees_in_float64(name: str) -> None:
    Agreement(name, build, torch.float64, gradients=True).assert_agrees()


@pytest.mark.parametrize("name", FILES)
def test_agrees_in_float32(name: str) -> None:
    Agreement(name, build, torch.float32).assert_agrees()


def test_the_released_names_are_complete() -> None:
    network, report = matched("missformer", build)
    spec = read_spec("missformer")
    assert len(report.matched) + len(report.dead) == len(spec["state_dict"])
    assert report.missing == report.unexpected == ()
    assert set(report.dead) == set(spec["parameters_without_gradient_in_eval"])
    assert sum(p.numel() for p in network.parameters()) == spec["parameters_used"]


def test_grey_images_are_repeated() -> None:
    torch.manual_seed(0)
    grey = create_network("missformer", in_channels=1, width=2).double().eval()
    colour = create_network("missformer", in_channels=3, width=2).double().eval()
    colour.load_state_dict(grey.state_dict())
    x = torch.randn(1, 1, 32, 96, dtype=torch.float64)
    assert torch.equal(grey(x).logits, colour(x.repeat(1, 3, 1, 1)).logits)


def test_the_bridge_joins_all_scales() -> None:
    torch.manual_seed(0)
    layer = BridgeLayer(4, (4, 8, 12), (4, 2, 1)).double()
    scales = [torch.randn(2, 8 // n, 16 // n, 4 * c).double() for n, c in ((1, 1), (2, 2), (4, 3))]
    results = layer(scales)
    assert [one.shape for one in results] == [one.shape for one in scales]
    for changed in range(3):
        others = [one.clone() for one in scales]
        others[changed][:, 0, 0, 0] += 1
        for before, after in zip(results, layer(others), strict=True):
            assert ((before - after).abs().amax(-1) > 0).all()
    sequence = torch.cat([one.reshape(2, -1, 4) for one in scales], 1)
    parts = split_scales(sequence, [one.shape for one in scales])
    assert all(torch.equal(a, b) for a, b in zip(parts, scales, strict=True))


def test_reduced_attention_equals_its_formula() -> None:
    torch.manual_seed(0)
    layer = ReducedAttention(6, heads=2, reduction=2).double()
    x = torch.randn(1, 4, 6, 6).double()
    source = layer.norm(layer.sr(x.permute(0, 3, 1, 2)).flatten(2).transpose(1, 2))
    key, value = layer.kv(source)[0].chunk(2, dim=-1)
    query = layer.q(x).reshape(24, 6)
    mixed = [
        torch.softmax(query[:, part] @ key[:, part].T / 3**0.5, dim=-1) @ value[:, part]
        for part in (slice(0, 3), slice(3, 6))
    ]
    expected = layer.proj(torch.cat(mixed, dim=-1)).reshape(x.shape)
    assert torch.allclose(layer(x), expected)


def test_start_values() -> None:
    torch.manual_seed(0)
    network = create_network("missformer", width=8)
    for part in (network.decoder, network.joins, network.classifier):
        for layer in part.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d):
                assert not layer.bias.any()
    join = network.joins[0]
    assert join.weight.abs().max() <= (6 / (join.in_features + join.out_features)) ** 0.5
    assert network.encoder[0][0].attn.q.bias.any()


@pytest.mark.parametrize("options", [{"width": 0}, {"width": 5}, {"bridge_layers": 0}])
def test_impossible_options_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="even width"):
        create_network("missformer", **options)
