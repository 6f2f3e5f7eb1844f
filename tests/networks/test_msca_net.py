"""MSCA-Net against the released numbers, and its rules."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from segweave.blocks.cross_scale import AffinityAttention, CrossScaleBridge, ScaleFusion
from segweave.errors import UsageError
from segweave.networks import create_network
from segweave.registry import networks
from tests.networks.agreement import Agreement, files_of, read_spec

pytest.importorskip("timm")

FILES = files_of("msca-net")
TINY = networks.card("msca-net").tiny_options


def build(spec: dict[str, Any]) -> nn.Module:
    return create_network("msca-net", classes=spec["num_classes"])


def agreement(name: str, *, gradients: bool) -> Agreement:
    return Agreement(name, build, torch.float64, gradients=gradients)


def test_the_reference_files_are_here() -> None:
    assert set(FILES) == {"msca-net"}


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_agrees_in_float64(name: str) -> None:
    agreement(name, gradients=True).assert_agrees()


def test_the_released_names_are_complete() -> None:
    spec = read_spec("msca-net")
    with torch.device("meta"):
        network = create_network("msca-net", classes=2)
    names = network.released_names()
    used, dead = set(names.tensors.values()), set(names.dead)
    assert used | dead == {name for name, _ in spec["state_dict"]}
    assert not used & dead
    buffers = {name for name in dead if "running" in name or "num_batches" in name}
    assert dead - buffers == set(spec["parameters_without_gradient"]["names"])
    dropped = spec["parameters_without_gradient"]["count"]
    assert sum(p.numel() for p in network.parameters()) == spec["parameters"] - dropped


@pytest.mark.parametrize("size", [(32, 33), (70, 90)])
def test_any_size_works(size: tuple[int, int]) -> None:
    network = create_network("msca-net", in_channels=2, classes=3, **TINY).eval()
    assert network(torch.randn(1, 2, *size)).logits.shape == (1, 3, *size)


def test_each_pixel_gives_its_value_once_to_every_other_map() -> None:
    torch.manual_seed(0)
    bridge = CrossScaleBridge((2, 3, 4), 5).double()
    sizes = ((4, 6), (2, 3), (1, 2))
    maps = [
        torch.randn(1, c, *size, dtype=torch.float64)
        for c, size in zip((2, 3, 4), sizes, strict=True)
    ]
    with torch.no_grad():
        for channels, out in zip((2, 3, 4), bridge.out, strict=True):
            out.weight.zero_()
            out.bias.zero_()
            # The first channel of the result is the sum of what came from the others.
            out.weight[0, channels : channels + 5] = 1
            out.weight[0, channels + 5 :] = 10
        results = bridge(maps)
        totals = [float(v(x).sum()) for v, x in zip(bridge.values, maps, strict=True)]
    for result, size, givers in zip(results, sizes, bridge.givers, strict=True):
        assert result.shape[-2:] == size
        expected = totals[givers[0]] + 10 * totals[givers[1]]
        assert float(result[:, 0].sum()) == pytest.approx(expected, rel=1e-9)


def test_affinity_attention_by_hand() -> None:
    torch.manual_seed(0)
    layer = AffinityAttention(4, 2).double().eval()
    x = torch.randn(1, 4, 3, 5, dtype=torch.float64)
    # Both weights start at zero.
    assert torch.equal(layer(x), 2 * x)
    with torch.no_grad():
        layer.gamma.fill_(0.5)
        layer.channel_gamma.fill_(0.25)
        query, key, value = (f(x)[0].flatten(1) for f in (layer.query, layer.key, layer.value))
        pixels = x[0].flatten(1)
        y = pixels + 0.5 * value @ (query.T @ key).softmax(dim=1).T
        alike = y @ y.T
        weights = (alike.amax(dim=1, keepdim=True) - alike).softmax(dim=1)
        expected = y + (y + 0.25 * weights @ y)
        assert torch.allclose(layer(x)[0].flatten(1), expected, rtol=0, atol=1e-12)


def test_fused_maps_lie_between_both() -> None:
    torch.manual_seed(0)
    fusion = ScaleFusion(4).double()
    coarse, fine = torch.randn(2, 1, 4, 5, 6, dtype=torch.float64)
    fused = fusion(coarse, fine)
    assert (fused >= torch.minimum(coarse, fine) - 1e-12).all()
    assert (fused <= torch.maximum(coarse, fine) + 1e-12).all()
    assert torch.allclose(fusion(fine, fine), fine)


def test_at_first_the_deepest_map_changes_nothing() -> None:
    torch.manual_seed(0)
    network = create_network("msca-net", **TINY).eval()
    features = network.encode(torch.randn(1, 3, 64, 64))
    changed = features._replace(bottleneck=features.bottleneck + 1)
    assert torch.equal(network.decode(changed).map, network.decode(features).map)
    with torch.no_grad():
        network.gammas[2].fill_(1)
    assert not torch.equal(network.decode(changed).map, network.decode(features).map)


def test_an_impossible_width_is_refused() -> None:
    with pytest.raises(UsageError, match="width"):
        create_network("msca-net", width=1)
