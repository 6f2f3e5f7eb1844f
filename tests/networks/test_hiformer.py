"""HiFormer against the released numbers, its Swin stages against timm's, and its rules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from segweave import registry
from segweave.backbones.swin import SwinBlock
from segweave.errors import UsageError
from segweave.networks import create_network
from tests.networks.agreement import Agreement, files_of, matched, read_spec

timm = pytest.importorskip("timm")
FILES = files_of("hiformer-b")
TINY = registry.networks.card("hiformer-b").tiny_options


def build(spec: dict[str, Any]) -> nn.Module:
    return create_network(
        spec["name"].partition("@")[0],
        in_channels=spec["input_shape"][1],
        classes=spec["num_classes"],
        image_size=spec["settings"]["img_size"],
    )


def test_the_reference_file_is_here() -> None:
    assert FILES == ["hiformer-b"]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", FILES)
def test_agrees_in_float64(name: str) -> None:
    Agreement(name, build, torch.float64, gradients=True).assert_agrees()


@pytest.mark.parametrize("name", FILES)
def test_the_released_names_are_complete(name: str) -> None:
    spec = read_spec(name)
    network, report = matched(name, build)
    listed = {tensor for tensor, _ in spec["state_dict"]}
    names = network.released_names()
    assert report.missing == report.unexpected == ()
    twice = listed & names.fixed
    assert len(report.matched) + len(report.dead) + len(twice) == len(listed)
    # What counts twice is one tensor under two names.
    assert all("resnet_layers" in one or "conv_tower" in one for one in twice)
    assert {table for table, _ in spec["fixed_buffers"]} <= names.fixed
    assert set(report.dead) == {
        *spec["parameters_without_gradient_in_eval"],
        *spec["parameters_with_zero_gradient"],
    }
    assert sum(p.numel() for p in network.parameters()) == 25_512_115 - 2_442_528 - 780_864


def test_form_paper_uses_every_released_parameter() -> None:
    spec = read_spec("hiformer-b")
    network = create_network("hiformer-b", form="paper", classes=9)
    listed = {tensor: tuple(shape) for tensor, shape in spec["state_dict"]}
    names = network.released_names()
    assert names.dead == frozenset()
    assert set(names.tensors.values()) | (set(listed) & names.fixed) == set(listed)
    for ours, theirs in names.tensors.items():
        assert tuple(network.state_dict()[ours].shape) == listed[theirs]
    assert sum(p.numel() for p in network.parameters()) == spec["parameters"]


@pytest.mark.parametrize(("name", "millions"), [("hiformer-s", 23.25), ("hiformer-l", 29.52)])
def test_the_sizes_of_the_other_variants(name: str, millions: float) -> None:
    with torch.device("meta"):
        network = create_network(name, form="paper", classes=9)
    parameters = sum(p.numel() for p in network.parameters())
    assert parameters == pytest.approx(millions * 1e6, rel=0.001)


def test_the_fusion_changes_form_paper_alone() -> None:
    x = torch.randn(2, 3, 48, 32, dtype=torch.float64)
    networks = []
    for form in ("paper", "released"):
        torch.manual_seed(0)
        networks.append(create_network("hiformer-b", form=form, **TINY).double().eval())
    paper, released = networks
    released.load_state_dict(paper.state_dict(), strict=False)
    with_fusion = paper(x).logits
    assert not torch.allclose(with_fusion, released(x).logits)
    with torch.no_grad():
        for block in [m for m in paper.fusion.modules() if type(m).__name__ == "TransformerBlock"]:
            for layer in (block.output, block.mlp.fc2):
                layer.weight.zero_()
                layer.bias.zero_()
    # Without its blocks the class tokens reach no output: what the released code computes.
    assert torch.allclose(paper(x).logits, released(x).logits, atol=1e-12)


def test_grey_images_are_repeated() -> None:
    torch.manual_seed(0)
    grey = create_network("hiformer-b", in_channels=1, **TINY).double().eval()
    colour = create_network("hiformer-b", in_channels=3, **TINY).double().eval()
    colour.load_state_dict(grey.state_dict())
    x = torch.randn(1, 1, 32, 48, dtype=torch.float64)
    assert torch.equal(grey(x).logits, colour(x.repeat(1, 3, 1, 1)).logits)


def test_backbones_load_by_timms_names(tmp_path: Path) -> None:
    torch.manual_seed(0)
    options = {"embed_dim": 12, "depths": (2, 1, 1, 1), "num_heads": (1, 2, 3, 3)}
    swin = timm.create_model("swin_tiny_patch4_window7_224", **options)
    cnn = timm.create_model("test_resnet")
    files = {"cnn": cnn, "swin": swin}
    for name, model in files.items():
        save_file(model.state_dict(), tmp_path / f"{name}.safetensors")
    given = ",".join(f"{name}={tmp_path / name}.safetensors" for name in files)
    network = create_network("hiformer-b", **TINY, pretrained=f"imagenet:{given}")
    for ours, theirs in ((network.swin, swin), (network.cnn, cnn)):
        for name, tensor in ours.state_dict().items():
            assert torch.equal(tensor, theirs.state_dict()[name]), name


@pytest.mark.parametrize("size", [(14, 21), (7, 14), (5, 4)])
@pytest.mark.parametrize("shifted", [False, True])
def test_a_swin_block_is_timms(size: tuple[int, int], shifted: bool) -> None:
    from timm.models.swin_transformer import SwinTransformerBlock

    if min(size) < 7 and shifted:
        pytest.skip("without a shift both are the same")
    torch.manual_seed(0)
    ours = SwinBlock(12, 3, shifted=shifted).double().eval()
    theirs = SwinTransformerBlock(12, size, 3, window_size=7, shift_size=3 * shifted)
    theirs = theirs.double().eval()
    weights = ours.state_dict()
    for parameter in weights.values():
        parameter.normal_()
    theirs_weights = dict(weights)
    if min(size) < 7:  # timm keeps a table of the map's size, ours is the middle of the whole one
        rows, columns = (2 * side - 1 for side in size)
        table = weights["attn.relative_position_bias_table"].reshape(13, 13, 3)
        middle = table[7 - size[0] : 7 - size[0] + rows, 7 - size[1] : 7 - size[1] + columns]
        theirs_weights["attn.relative_position_bias_table"] = middle.reshape(-1, 3)
    theirs.load_state_dict(theirs_weights)
    x = torch.randn(2, *size, 12, dtype=torch.float64)
    assert torch.allclose(ours(x), theirs(x), atol=1e-9)


def test_padding_is_no_neighbour() -> None:
    torch.manual_seed(0)
    block = SwinBlock(4, 1).double().eval()
    x = torch.randn(1, 7, 9, 4, dtype=torch.float64)
    # The second window holds two columns of the map; alone they give the same.
    assert torch.allclose(block(x)[:, :, 7:], block(x[:, :, 7:]), atol=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": "printed"}, "paper"),
        ({"swin_depths": (2, 2)}, "three swin_depths"),
        ({"heads": (5, 12)}, "heads divide"),
        ({"decoder_width": 48}, "32 divides"),
        ({"image_size": 8}, "at least 16"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        create_network("hiformer-b", **{**TINY, **options})
