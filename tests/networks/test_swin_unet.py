"""Swin-Unet against the released numbers, and its rules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from segweave.backbones.swin import SwinBlock
from segweave.errors import UsageError
from segweave.networks import create_network
from tests.networks.agreement import Agreement, files_of, matched, read_spec

FILES = files_of("swin-unet")


def build(spec: dict[str, Any]) -> nn.Module:
    return create_network(
        "swin-unet", in_channels=spec["input_shape"][1], classes=spec["num_classes"]
    )


def test_the_reference_files_are_here() -> None:
    assert "swin-unet" in FILES


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_agrees_in_float64(name: str) -> None:
    Agreement(name, build, torch.float64, gradients=True).assert_agrees()


@pytest.mark.parametrize("name", FILES)
def test_agrees_in_float32(name: str) -> None:
    Agreement(name, build, torch.float32).assert_agrees()


def test_the_released_names_are_complete() -> None:
    network, report = matched("swin-unet", build)
    spec = read_spec("swin-unet")
    # `built` passes the tables that the released code stores too; none of them is unexpected.
    assert len(spec["fixed_buffers"]) == 20
    assert len(report.matched) == len(spec["state_dict"])
    assert report.missing == report.unexpected == report.dead == ()
    assert sum(p.numel() for p in network.parameters()) == spec["parameters"]


def test_grey_images_are_repeated() -> None:
    torch.manual_seed(0)
    grey = create_network("swin-unet", in_channels=1, width=6).double().eval()
    colour = create_network("swin-unet", in_channels=3, width=6).double().eval()
    colour.load_state_dict(grey.state_dict())
    x = torch.randn(1, 1, 32, 96, dtype=torch.float64)
    assert torch.equal(grey(x).logits, colour(x.repeat(1, 3, 1, 1)).logits)


def test_shifted_windows_and_padding() -> None:
    torch.manual_seed(0)
    block = SwinBlock(6, 2, shifted=True).double()
    x = torch.randn(1, 14, 14, 6, dtype=torch.float64)
    changed = x.clone()
    changed[0, 11, 11, 0] += 1
    moved = (block(changed) - block(x)).abs().amax(-1)[0] > 1e-12
    # Shifted by 3, the last window has the rows and columns 10 to 13; those that the roll brought
    # in from the other border are far away and weigh e^-100.
    assert moved[10:, 10:].all()
    assert not moved[:10].any()
    assert not moved[:, :10].any()
    # With values of 1 everywhere, attention returns a constant if padded tokens are no keys.
    block = SwinBlock(6, 2).double()
    with torch.no_grad():
        block.attn.qkv.weight[12:].zero_()
    constant = block.attn(torch.randn(1, 8, 7, 6, dtype=torch.float64))
    assert torch.allclose(constant, constant[:, :1, :1].expand_as(constant))


def test_imagenet_weights_fill_encoder_and_decoder(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    source = timm.create_model("swin_tiny_patch4_window7_224").eval()
    theirs = source.state_dict()
    file = tmp_path / "swin_tiny.safetensors"
    save_file(theirs, file)
    network = create_network("swin-unet", pretrained=f"imagenet:encoder={file},decoder={file}")
    assert network.pretrained is not None
    missing = {name.partition(".")[0] for name in network.pretrained.missing}
    assert missing == {"expansions", "joins", "norm", "last_expansion", "classifier"}
    x = torch.randn(1, 3, 224, 224)
    encoder = network.eval().encoder
    with torch.no_grad():
        expected = source.layers[1](source.layers[0](source.patch_embed(x)))
        ours = encoder.layers[1](encoder.layers[0](encoder.patch_embed(x)))
    assert torch.allclose(ours, expected, atol=1e-5)
    state = network.state_dict()
    for stage in range(3):
        name = f"layers.{2 - stage}.blocks.1.mlp.fc1.weight"
        assert torch.equal(state[f"decoder.{stage}.1.mlp.fc1.weight"], theirs[name])


def test_start_values_and_stochastic_depth() -> None:
    torch.manual_seed(0)
    network = create_network("swin-unet")
    linear = network.decoder[0][0].mlp.fc1
    assert linear.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert not linear.bias.any()
    rates = [block.drop_path.rate for layer in network.encoder.layers for block in layer.blocks]
    assert rates == pytest.approx([0.2 * i / 7 for i in range(8)])
    of_decoder = [block.drop_path.rate for stage in network.decoder for block in stage]
    assert of_decoder == [rates[i] for i in (4, 5, 2, 3, 0, 1)]


@pytest.mark.parametrize(
    "options", [{"width": 0}, {"width": 8}, {"depths": (2, 2, 2)}, {"depths": (2, 2, 0, 2)}]
)
def test_impossible_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="multiple of 3"):
        create_network("swin-unet", **options)
