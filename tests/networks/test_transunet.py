"""TransUNet against the released numbers, and its rules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from segweave import registry
from segweave.backbones.hybrid_vit import StandardisedConvolution
from segweave.backbones.positions import resized
from segweave.errors import UsageError
from segweave.networks import create_network
from tests.networks.agreement import Agreement, files_of, matched, read_spec

FILES = files_of("transunet")
TINY = registry.networks.card("transunet").tiny_options


def build(spec: dict[str, Any]) -> nn.Module:
    return create_network(
        "transunet", in_channels=spec["input_shape"][1], classes=spec["num_classes"]
    )


def test_the_reference_files_are_here() -> None:
    assert "transunet" in FILES


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_agrees_in_float64(name: str) -> None:
    Agreement(name, build, torch.float64, gradients=True).assert_agrees()


def test_the_released_names_are_complete() -> None:
    network, report = matched("transunet", build)
    spec = read_spec("transunet")
    assert len(report.matched) == len(spec["state_dict"])
    assert report.missing == report.unexpected == report.dead == ()
    assert sum(p.numel() for p in network.parameters()) == spec["parameters"]


def test_grey_images_are_repeated() -> None:
    torch.manual_seed(0)
    grey = create_network("transunet", in_channels=1, **TINY).double().eval()
    colour = create_network("transunet", in_channels=3, **TINY).double().eval()
    colour.load_state_dict(grey.state_dict())
    x = torch.randn(1, 1, 32, 80, dtype=torch.float64)
    assert torch.equal(grey(x).logits, colour(x.repeat(1, 3, 1, 1)).logits)


def test_the_map_after_the_pooling_lacks_a_row_and_a_column() -> None:
    torch.manual_seed(0)
    network = create_network("transunet", **TINY).eval()
    skips = network.encode(torch.randn(1, 3, 64, 96)).skips
    assert [tuple(skip.shape[2:]) for skip in skips] == [(32, 48), (16, 24), (8, 12)]
    assert not skips[1][:, :, -1].any()
    assert not skips[1][..., -1].any()
    assert skips[1][:, :, -2, :-1].any()
    assert all(skips[i][:, :, -1].any() for i in (0, 2))


def test_weights_are_standardised() -> None:
    torch.manual_seed(0)
    layer = StandardisedConvolution(4, 6, 3, stride=2).double()
    weight = layer.weight.detach()
    mean = weight.mean((1, 2, 3), keepdim=True)
    variance = weight.var((1, 2, 3), correction=0, keepdim=True)
    x = torch.randn(2, 4, 9, 7).double()
    expected = functional.conv2d(x, (weight - mean) / (variance + 1e-5).sqrt(), None, 2, 1)
    assert torch.allclose(layer(x), expected)


def test_the_position_table_is_interpolated() -> None:
    torch.manual_seed(0)
    network = create_network("transunet", **TINY).eval()
    other = create_network("transunet", **TINY, image_size=(64, 96)).eval()
    state = network.state_dict()
    assert not state["encoder.positions"].any()
    row = torch.linspace(-1, 1, 14)
    table = row.repeat(14).reshape(1, 196, 1).expand(-1, -1, 12)
    at_224 = resized(table, (14, 14), (4, 6))
    assert torch.allclose(at_224.reshape(4, 6, 12)[0, :, 0], torch.linspace(-1, 1, 6))
    with torch.no_grad():
        network.encoder.positions.copy_(table)
        other.load_state_dict({**network.state_dict(), "encoder.positions": at_224})
    x = torch.randn(1, 3, 64, 96)
    assert torch.allclose(network(x).logits, other(x).logits, atol=1e-6)


@pytest.mark.parametrize("side", [224, 384])
def test_weights_of_timm_are_adapted(side: int, tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    small = {"embed_dim": 12, "depth": 1, "num_heads": 2, "img_size": side}
    source = timm.create_model("vit_base_r50_s16_224", num_classes=5, **small).eval()
    with torch.no_grad():
        source.pos_embed.normal_()
    theirs = source.state_dict()
    save_file(theirs, tmp_path / "hybrid.safetensors")
    options = {**TINY, "width": 64, "units": (3, 4, 9)}
    network = create_network(
        "transunet", pretrained=f"imagenet:{tmp_path / 'hybrid.safetensors'}", **options
    ).eval()
    report = network.pretrained
    assert report is not None
    assert set(report.unused) == {"cls_token", "head.weight", "head.bias"}
    assert not any(name.startswith("encoder.") for name in report.missing)
    state = network.state_dict()
    key = "stages.1.0.downsample"
    assert torch.equal(
        state[f"encoder.{key}_norm.bias"],
        theirs["patch_embed.backbone.stages.1.blocks.0.downsample.norm.bias"],
    )
    table = theirs["pos_embed"][:, 1:]
    assert torch.equal(state["encoder.positions"][0, 0], table[0, 0])
    assert torch.allclose(state["encoder.positions"][0, -1], table[0, -1])
    tokens = torch.randn(1, 7, 12)
    with torch.no_grad():
        assert torch.allclose(network.encoder.blocks(tokens), source.blocks(tokens), atol=1e-5)


def test_start_values() -> None:
    torch.manual_seed(0)
    block = create_network("transunet", **{**TINY, "hidden": 64}).encoder.blocks[0]
    assert block.fc1.bias.abs().max() < 1e-5
    assert block.fc1.weight.abs().max() <= (6 / (64 + 256)) ** 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 48}, "32 divides"),
        ({"units": (1, 1)}, "three numbers"),
        ({"heads": 5}, "divides hidden"),
        ({"decoder_channels": (8, 8)}, "five decoder_channels"),
        ({"image_size": 100}, "16 divides"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        create_network("transunet", **{**TINY, **options})
