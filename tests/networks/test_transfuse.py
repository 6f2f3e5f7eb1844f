"""TransFuse against the released numbers, and its rules."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from segweave import registry
from segweave.backbones.positions import resized
from segweave.errors import UsageError
from segweave.networks import Output, create_network
from segweave.networks.transfuse import BiFusion
from tests.networks.agreement import Agreement, files_of

pytest.importorskip("timm")

FILES = files_of("transfuse-s")
TINY = registry.networks.card("transfuse-s").tiny_options


def build(spec: dict[str, Any]) -> nn.Module:
    return create_network("transfuse-s", classes=spec["num_classes"])


def outputs(output: Output, spec: dict[str, Any]) -> Sequence[Tensor]:
    return [*output.auxiliary.values(), output.logits]


def test_the_reference_file_is_here() -> None:
    assert FILES == ["transfuse-s"]


@pytest.fixture(scope="module")
def agreement() -> Agreement:
    options: dict[str, Any] = {"gradients": True, "outputs": outputs, "auxiliary": True}
    return Agreement("transfuse-s", build, torch.float64, **options)


@pytest.mark.slow
def test_agrees_in_float64(agreement: Agreement) -> None:
    assert len(agreement.values) == 4
    agreement.assert_agrees()


@pytest.mark.slow
def test_the_released_names_are_complete(agreement: Agreement) -> None:
    spec, network, report = agreement.spec, agreement.network, agreement.report
    assert report.dead == tuple(spec["parameters_without_gradient"]["names"])
    assert len(report.matched) + len(report.dead) == len(spec["state_dict"])
    assert report.missing == report.unexpected == ()
    dropped = spec["parameters_without_gradient"]["count"]
    assert sum(p.numel() for p in network.parameters()) == spec["parameters"] - dropped


def test_the_table_of_positions_is_interpolated() -> None:
    torch.manual_seed(0)
    network = create_network("transfuse-s", **TINY).eval()
    other = create_network("transfuse-s", **{**TINY, "image_size": (48, 80)}).eval()
    name = "transformer.pos_embed"
    state = network.state_dict()
    other.load_state_dict({**state, name: resized(state[name], (2, 3), (3, 5))})
    x = torch.randn(1, 3, 48, 80)
    assert torch.allclose(network(x).logits, other(x).logits, atol=1e-6)
    state[name].zero_()
    assert not torch.allclose(network(x).logits, other(x).logits, atol=1e-3)


def test_both_backbones_take_weights_of_timm(tmp_path: Path) -> None:
    import timm

    torch.manual_seed(0)
    convolutional = timm.create_model("test_resnet").state_dict()
    vit = timm.create_model("vit_tiny_patch16_224", embed_dim=8, depth=2, num_heads=2)
    save_file(convolutional, tmp_path / "resnet.safetensors")
    save_file(vit.state_dict(), tmp_path / "vit.safetensors")
    files = {"convolutional": "resnet", "transformer": "vit"}
    text = ",".join(f"{k}={tmp_path / v}.safetensors" for k, v in files.items())
    network = create_network("transfuse-s", pretrained=f"imagenet:{text}", **TINY)
    report = network.pretrained
    assert report is not None
    assert not {name.partition(".")[0] for name in report.missing} & set(files)
    assert {"cls_token", "blocks.1.norm1.weight", "layer4.0.bn1.weight"} <= set(report.unused)
    state = network.state_dict()
    assert torch.equal(state["convolutional.layer3.0.bn1.bias"], convolutional["layer3.0.bn1.bias"])
    table = vit.state_dict()["pos_embed"]
    assert torch.equal(state["transformer.pos_embed"][0, 0], table[0, 1])
    assert torch.allclose(state["transformer.pos_embed"][0, -1], table[0, -1])


def test_a_fusion_by_hand() -> None:
    torch.manual_seed(0)
    fusion = BiFusion(4, 6, 8, 2, 0.0).double().eval()
    g, t = torch.randn(1, 4, 5, 7).double(), torch.randn(1, 6, 5, 7).double()
    with torch.no_grad():
        fusion.bottleneck[-1].weight.zero_()
        fusion.bottleneck[-1].bias.zero_()
        found = fusion(g, t)
        largest, mean = g.max(1, keepdim=True).values, g.mean(1, keepdim=True)
        spatial = fusion.spatial[0](torch.cat([largest, mean], 1)) / (1 + 1e-5) ** 0.5
        channel = fusion.channel[2](fusion.channel[0](t.mean((2, 3), keepdim=True)).relu())
        joined = [spatial.sigmoid() * g, channel.sigmoid() * t]
        product = fusion.from_convolutional(g) * fusion.from_transformer(t)
        joined.append(fusion.product(product))
    assert torch.allclose(found, fusion.shortcut(torch.cat(joined, 1)))


def test_the_next_stage_reads_the_dropped_map() -> None:
    torch.manual_seed(0)
    network = create_network("transfuse-s", **TINY, dropout=0.5).train()
    x = torch.randn(2, 3, 32, 32)
    read: list[Tensor] = []
    network.convolutional.layer2.register_forward_pre_hook(lambda _, args: read.append(args[0]))
    first = network.encode(x).skips[0]
    assert torch.equal(read[0], first)
    dropped = first.abs().amax((2, 3)) == 0
    assert dropped.any()
    assert not dropped.all()
    assert (network.eval().encode(x).skips[0].abs().amax((2, 3)) > 0).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": (40, 48)}, "16 divides"),
        ({"heads": 3}, "heads that divide width"),
        ({"encoder": "efficientnet_lite0"}, "such as resnet34"),
        ({"encoder": "resnet_34"}, "resnet34"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        create_network("transfuse-s", **{**TINY, **options})
