"""DANIE from its paper: the equations, what each ablation removes, and the printed costs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.danie_bsanet import DANIE, cost
from safetensors.torch import save_file
from torch import Tensor, nn

from segweave import create_network, registry, weave
from segweave.blocks.hierarchical_attention import (
    ChannelAttention,
    DynamicCalibration,
    HierarchicalAttention,
    SpatialAttention,
)
from segweave.blocks.joint_preservation import (
    FUSIONS,
    EnhancingHierarchicalAttention,
    EnhancingSelfAttention,
    StreamFusion,
)
from segweave.errors import UsageError

timm = pytest.importorskip("timm")
TINY = registry.networks.card("danie-s").tiny_options


def build(name: str = "danie-s", **options: Any) -> Any:
    torch.manual_seed(0)
    return create_network(name, **{**TINY, **options})


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def maps(channels: int = 6) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(2, channels, 4, 5, dtype=torch.float64)


def test_es_is_the_identity_at_the_start() -> None:
    x = maps()
    assert torch.equal(EnhancingSelfAttention().double()(x), x)


def test_es_is_equation_7_channel_by_channel() -> None:
    layer = EnhancingSelfAttention().double()
    nn.init.constant_(layer.scale, 0.7)
    x = maps()
    for image, result in zip(x, layer(x), strict=True):
        flat = image.flatten(1)
        for j in range(len(flat)):
            weights = torch.stack([(row * flat[j]).sum() for row in flat]).softmax(0)
            mixed = sum(w * row for w, row in zip(weights, flat, strict=True))
            assert torch.allclose(result[j].flatten(), 0.7 * mixed + flat[j])


def test_attention_maps_sum_to_one_over_their_last_axis() -> None:
    x = maps()
    channels = EnhancingSelfAttention().double().attention(x)
    positions = EnhancingHierarchicalAttention(6).double().attention(x)
    assert channels.shape == (2, 6, 6)
    assert positions.shape == (2, 1, 20)
    for weights in (channels, positions):
        assert torch.allclose(weights.sum(-1), torch.ones((), dtype=torch.float64))
        assert (weights >= 0).all()
    # Over the other axis they do not, so that the docstring names the right one.
    assert not torch.allclose(channels.sum(1), torch.ones((), dtype=torch.float64))


def test_eh_weighs_whole_channels() -> None:
    layer = EnhancingHierarchicalAttention(6).double()
    x = maps()
    ratio = layer(x) / x
    assert torch.allclose(ratio, ratio[..., :1, :1].expand_as(ratio))
    assert ((ratio > 0) & (ratio < 1)).all()


def test_dynamic_calibration_starts_balanced() -> None:
    first, second = maps(), 2 * maps()
    calibration = DynamicCalibration().double()
    assert torch.equal(calibration((first, second)), (first + second) / 2)
    assert calibration.weights.tolist() == [0.5, 0.5]


@pytest.mark.parametrize(("kind", "axes"), [("channel", (2, 3)), ("spatial", (1,))])
def test_each_branch_pools_its_way(kind: str, axes: tuple[int, ...]) -> None:
    layer = (ChannelAttention(6) if kind == "channel" else SpatialAttention()).double()
    x = maps()
    inner = layer.mlp if kind == "channel" else layer.convolution
    largest, mean = layer((x, 3 * x))
    assert torch.allclose(largest, inner(x.amax(axes, keepdim=True)).sigmoid() * x)
    assert torch.allclose(mean, inner(3 * x.mean(axes, keepdim=True)).sigmoid() * 3 * x)


def test_the_orders_differ_and_hold_the_same_tensors() -> None:
    torch.manual_seed(0)
    first = HierarchicalAttention(6).double().eval()
    other = HierarchicalAttention(6, order="spatial-channel").double().eval()
    renamed = {
        k.replace("attentions.0", "x").replace("attentions.1", "attentions.0").replace("x.", "1.")
        if k.startswith("attentions")
        else k: v
        for k, v in first.state_dict().items()
    }
    renamed = {k if not k.startswith("1.") else f"attentions.{k}": v for k, v in renamed.items()}
    other.load_state_dict(renamed)
    assert not torch.allclose(first(maps()), other(maps()))


def test_a_stream_that_is_off_takes_its_parameters_away() -> None:
    whole = build(fusion="add")
    assert count(whole) - count(build(fusion="add", hierarchical_attention=False)) == count(
        whole.hierarchical
    )
    assert count(whole) - count(build(fusion="add", self_attention=False)) == count(whole.attention)
    assert build(self_attention=False).backbones == {}


def test_a_switch_takes_exactly_its_parameters_away() -> None:
    literal = build(form="literal")
    stages = literal.hierarchical.stages
    both = [stage.attentions for stage in stages]
    for number, switch in enumerate(("channel_attention", "spatial_attention")):
        assert count(literal) - count(build(form="literal", **{switch: False})) == sum(
            count(attentions[number]) for attentions in both
        )
    calibration = sum(count(stage.calibration) + count(stage.gate) for stage in stages)
    assert count(literal) - count(build(form="literal", calibration=False)) == calibration
    es = sum(count(fusion.es) for fusion in literal.fusions)
    eh = sum(count(fusion.eh) for fusion in literal.fusions)
    mixing = sum(count(fusion.mixing) for fusion in literal.fusions)
    for fusion, gone in (("es", eh), ("eh", es), ("add", es + eh + mixing)):
        assert count(literal) - count(build(form="literal", fusion=fusion)) == gone


@pytest.mark.parametrize("kind", FUSIONS)
def test_fusions(kind: str) -> None:
    torch.manual_seed(0)
    x, y = maps(), maps().flip(0)
    layer = StreamFusion(6, kind, attention=True, hierarchical=True).double().eval()
    expected = layer.es(x) + layer.eh(y)
    if layer.mixing is not None:
        expected = layer.mixing(expected)
    if kind == "concatenate":
        expected = x + y + layer.join(torch.cat([x, y], 1))
    assert torch.equal(layer(x, y), expected)
    assert isinstance(layer.es, EnhancingSelfAttention) == (kind in ("joint-preservation", "es"))
    assert isinstance(layer.eh, EnhancingHierarchicalAttention) == (
        kind in ("joint-preservation", "eh")
    )


def test_the_logits_are_the_sum_of_the_four_predictions() -> None:
    output = build(classes=3).eval()(torch.randn(1, 3, 32, 64), auxiliary=True)
    assert set(output.auxiliary) == {"p1", "p2", "p3", "p4"}
    assert torch.allclose(output.logits, sum(output.auxiliary.values()), atol=1e-6)


@pytest.mark.parametrize("at", ["encoder", "bottleneck", "skips", "decoder", "output"])
def test_weaves(at: str) -> None:
    woven = weave(build(classes=2, fusion="es").eval(), "sa-lstm", at=at).eval()
    assert woven(torch.randn(1, 3, 3, 32, 64)).logits.shape == (1, 2, 32, 64)


def test_the_backbone_loads_by_timms_names(tmp_path: Path) -> None:
    model = timm.create_model(
        "maxvit_rmlp_tiny_rw_256", embed_dim=TINY["widths"], **TINY["backbone_options"]
    )
    file = tmp_path / "weights.safetensors"
    save_file(model.state_dict(), file)
    network = build(pretrained=f"imagenet:{file}")
    for name, tensor in network.attention.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name


def test_the_default_form_is_the_papers() -> None:
    # A network without released code takes its first form for "released", the general default.
    assert build().state_dict().keys() == build(form="paper").state_dict().keys()
    assert build().state_dict().keys() > build(form="literal").state_dict().keys()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fusion": "addd"}, "add"),
        ({"order": "channel"}, "channel-spatial"),
        ({"form": "literally"}, "literal"),
        ({"self_attention": False, "hierarchical_attention": False}, "one of the two streams"),
        ({"widths": (8, 8, 8)}, "four widths"),
    ],
)
def test_impossible_options_are_refused(options: Mapping[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build(**options)


@pytest.mark.slow
@pytest.mark.parametrize("row", ["A.2", "DANIE-S"])
def test_the_printed_costs(row: str) -> None:
    name, printed, _, options = DANIE[row]
    assert cost(name, **options)[0] == pytest.approx(printed, rel=0.03)
