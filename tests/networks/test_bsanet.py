"""The bilateral spatial attention network from its paper: its size, its switches, its attentions,
its pretrained Swin blocks, and the rendering of boundaries.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from segweave import create_network, registry, weave
from segweave.backbones.swin import WindowAttention
from segweave.blocks.bilateral_attention import FeatureSpaceAttention, ResNeXtBlock
from segweave.blocks.point_rendering import PointRendering, points_of, uncertainty
from segweave.data.specs import TargetSpec
from segweave.errors import InputError, UsageError
from segweave.networks import Output
from segweave.recipes.recipe import LossTerm
from segweave.training.losses.cross_entropy import CrossEntropyLoss
from segweave.training.losses.rendered_points import RenderedPointsLoss
from segweave.training.objective import WeightedLoss

TINY = registry.networks.card("bsanet").tiny_options
SWITCHES = {
    "image_attention": ("swin", "mixing"),
    "feature_attention": ("feature_attention",),
    "rendering": ("rendering",),
}


def build(**options: Any) -> Any:
    torch.manual_seed(0)
    return create_network("bsanet", **{**TINY, **options})


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_printed_number_of_parameters() -> None:
    with torch.device("meta"):
        network = create_network("bsanet")
    assert count(network) == 6_397_365
    assert count(network) == pytest.approx(6.36e6, rel=0.03)


@pytest.mark.parametrize("switch", SWITCHES)
def test_a_switch_takes_exactly_its_parameters_away(switch: str) -> None:
    whole, less = build(), build(**{switch: False})
    gone = sum(count(getattr(whole, name)) for name in SWITCHES[switch])
    assert gone > 0
    assert count(whole) - count(less) == gone
    assert less(torch.randn(2, 3, 32, 40)).logits.shape == (2, 1, 32, 40)
    assert bool(less.backbones) == (switch != "image_attention")


@pytest.mark.parametrize("size", [(33, 47), (64, 96)])
def test_any_size_works(size: tuple[int, int]) -> None:
    network = build(in_channels=2, classes=3).eval()
    output = network(torch.randn(1, 2, *size), auxiliary=True)
    assert output.logits.shape == output.auxiliary["rendered"].shape == (1, 3, *size)
    assert output.auxiliary["rendered-points"].sum() == points_of(size)


@pytest.mark.parametrize("at", ["encoder", "bottleneck", "skips", "decoder", "output"])
def test_weaves(at: str) -> None:
    woven = weave(build(classes=2).eval(), "sa-lstm", at=at).eval()
    assert woven(torch.randn(1, 3, 3, 32, 40)).logits.shape == (1, 2, 32, 40)


# The attentions


def test_feature_attention_is_the_equations() -> None:
    torch.manual_seed(0)
    layer = FeatureSpaceAttention(8).double().eval()
    x = torch.randn(2, 8, 6, 5, dtype=torch.float64)
    g = layer.body(x)
    assert layer.body[3].dilation == (2, 2)
    pooled = layer.connected(g.mean((2, 3))) + layer.connected(g.amax((2, 3)))
    weights = pooled.sigmoid()
    assert torch.allclose(layer(x), weights[..., None, None] * x + layer.residual(x))


def test_resnext_groups() -> None:
    assert ResNeXtBlock(96).body[3].groups == 24
    assert ResNeXtBlock(128).body[3].groups == 32


def test_weights_of_a_window_sum_to_one() -> None:
    # Values of one and no projection: what is left is the sum of the attention's last axis.
    layer = WindowAttention(8, 2, True, 4).double()
    nn.init.zeros_(layer.qkv.weight[16:])
    nn.init.ones_(layer.qkv.bias[16:])
    nn.init.eye_(layer.proj.weight)
    nn.init.zeros_(layer.proj.bias)
    assert torch.allclose(layer(torch.randn(1, 7, 9, 8).double()), torch.ones(1, 7, 9, 8).double())


def test_swin_blocks_start_from_timms(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.create_model(
        "swin_tiny_patch4_window7_224", embed_dim=32, num_heads=(1, 2, 4, 8), depths=(2, 2, 2, 2)
    )
    theirs, file = model.state_dict(), tmp_path / "weights.safetensors"
    save_file(theirs, file)
    network = build(width=32, levels=2, swin_blocks=3, window=8, pretrained=f"imagenet:{file}")
    ours = network.state_dict()
    for name in [name for name in ours if name.startswith("swin.")]:
        block, rest = name.split(".", 4)[3:]
        source = theirs[f"layers.0.blocks.{int(block) % 2}.{rest}"]
        if rest.endswith("bias_table"):
            assert ours[name].shape == (15**2, 1)
            table = functional.interpolate(
                source.T.reshape(1, 1, 13, 13), size=15, mode="bilinear", align_corners=True
            )
            assert torch.allclose(ours[name], table.reshape(1, -1).T)
        else:
            assert torch.equal(ours[name], source), name
    report = network.pretrained
    assert {name for name in ours if name not in report.missing} == set(report.loaded)
    assert any(name.startswith("layers.1.") for name in report.unused)
    with pytest.raises(InputError):
        build(width=8, pretrained=f"imagenet:{file}")


# Rendering


def knowing(classes: int = 1) -> PointRendering:
    """A rendering module whose point-wise network answers with its feature: relu(x) − relu(−x)."""
    module = PointRendering(classes, classes, width=2 * classes).double().eval()
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    eye = torch.eye(classes, dtype=torch.float64)
    with torch.no_grad():
        module.hidden[0].weight[:, :classes] = torch.cat([eye, -eye])
        for layer in module.hidden[1:]:
            layer.weight[:, : 2 * classes] = torch.eye(2 * classes, dtype=torch.float64)
        module.last.weight[:, : 2 * classes] = torch.cat([eye, -eye], 1)
    return module


def signed_distance(seed: int, side: int = 64) -> Tensor:
    """A random ellipse with a wavy border: positive inside, (1, 1, side, side)."""
    generator = torch.Generator().manual_seed(seed)
    centre, radius, phase = torch.rand(3, 2, generator=generator, dtype=torch.float64)
    axis = torch.arange(side, dtype=torch.float64)
    y = axis[:, None] - side * (0.4 + 0.2 * centre[0])
    x = axis[None] - side * (0.4 + 0.2 * centre[1])
    angle = torch.atan2(y, x)
    border = side * (0.15 + 0.15 * radius[0]) + 4 * torch.sin(7 * angle + 6 * phase[0])
    return (border - (y**2 + (0.6 + radius[1]) * x**2).sqrt())[None, None]


def test_rendering_never_makes_a_mask_worse() -> None:
    module, gained = knowing(), 0
    for seed in range(25):
        fine = signed_distance(seed)
        truth = fine > 0
        coarse = functional.avg_pool2d(fine.clamp(-1, 1), 4)
        plain = functional.interpolate(coarse, size=(64, 64), mode="bilinear") > 0
        rendered = module.subdivided(coarse, [fine], (64, 64)) > 0
        before, after = ((mask != truth).sum().item() for mask in (plain, rendered))
        assert after <= before, seed
        gained += before - after
    assert gained > 25  # more than a pixel for each shape, on average


def test_uncertainty_is_the_distance_between_the_best_two() -> None:
    assert uncertainty(torch.tensor([[[-2.0, 0.5]]])).tolist() == [[-2.0, -0.5]]
    logits = torch.tensor([[[1.0], [4.0], [3.0]]])
    assert uncertainty(logits).tolist() == [[-1.0]]


def test_points_are_different_pixels_and_mostly_uncertain() -> None:
    torch.manual_seed(0)
    module = knowing().train()
    fine = signed_distance(0)
    coarse = functional.avg_pool2d(fine, 4)
    rendered, points = module.sampled(coarse, [fine], (64, 64))
    full = functional.interpolate(coarse, size=(64, 64), mode="bilinear")
    chosen = points.bool()
    assert chosen.sum() == points_of((64, 64)) == 64
    assert torch.equal(rendered[~chosen], full[~chosen])
    assert torch.allclose(rendered[chosen], fine[chosen])
    assert full[chosen].abs().median() < 0.5 * full.abs().median()
    # Importance sampling is random, and what eval mode takes is not.
    assert not torch.equal(points, module.sampled(coarse, [fine], (64, 64))[1])
    module.eval()
    least = full.abs().flatten().topk(64, largest=False).values.max()
    assert full[module.sampled(coarse, [fine], (64, 64))[1].bool()].abs().max() <= least


def test_training_sees_coarse_logits_and_prediction_rendered_ones() -> None:
    network = build(classes=2).train()
    x = torch.randn(2, 3, 64, 64)
    decoded = network.decode(network.encode(x))
    coarse = functional.interpolate(network.classifier(decoded.map), size=(64, 64), mode="bilinear")
    assert torch.equal(network.head(decoded, (64, 64), True).logits, coarse)
    network.rendering.eval()
    network.training = False
    changed = (network.head(decoded, (64, 64), False).logits != coarse).any(1)
    assert points_of((64, 64)) <= changed[0].sum() < coarse[0, 0].numel()


@pytest.mark.parametrize("kind", ["binary", "exclusive", "overlapping"])
def test_the_loss_reads_the_points_alone(kind: Any) -> None:
    torch.manual_seed(0)
    names = {"binary": ("background", "polyp")}.get(kind, ("background", "one", "two"))
    target = TargetSpec(kind=kind, names=names)
    logits = torch.randn(2, target.classes, 8, 8, requires_grad=True)
    shape = (2, target.classes, 8, 8) if kind == "overlapping" else (2, 8, 8)
    label = torch.randint(0, 2, shape)
    points = torch.zeros(2, 1, 8, 8)
    points[:, :, 2, 3:6] = 1
    output = Output(logits, {"rendered": logits, "rendered-points": points})
    value = RenderedPointsLoss(target)(output, label)
    cut = (..., slice(2, 3), slice(3, 6))
    assert value.item() == pytest.approx(CrossEntropyLoss(target)(logits[cut], label[cut]).item())
    value.backward()
    assert torch.equal(logits.grad != 0, points.bool().expand_as(logits))


def test_the_point_wise_network_learns_from_its_loss() -> None:
    network = build().train()
    target = TargetSpec(kind="binary", names=("background", "polyp"))
    terms = (LossTerm(name="dice"), LossTerm(name="rendered-points"))
    label = torch.zeros(2, 32, 32, dtype=torch.long)
    label[:, 8:20, 8:20] = 1
    WeightedLoss(terms, target)(network(torch.randn(2, 3, 32, 32)), label).backward()
    assert all(p.grad is not None and p.grad.any() for p in network.rendering.parameters())
    with pytest.raises(UsageError, match="rendering module"):
        WeightedLoss(terms, target)(build(rendering=False)(torch.randn(2, 3, 32, 32)), label)


@pytest.mark.parametrize("options", [{"width": 48}, {"levels": 1}, {"blocks": 0}])
def test_impossible_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="multiple of it"):
        build(**options)
