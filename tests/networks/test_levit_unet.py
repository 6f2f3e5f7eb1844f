"""LeViT-UNet against the released numbers, LeViT against timm's, and its rules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from segweave.backbones.levit import offset_index
from segweave.errors import UsageError
from segweave.networks import create_network
from tests.networks.agreement import Agreement, files_of, matched, read_spec

FILES = files_of("levit-unet-384")
TINY = {
    "widths": (16, 24, 32),
    "heads": (2, 2, 2),
    "depths": (1, 1, 1),
    "key_width": 4,
    "decoder_widths": (16, 12, 8),
}


def build(spec: dict[str, Any]) -> nn.Module:
    return create_network(
        spec["name"].partition("@")[0],
        in_channels=spec["input_shape"][1],
        classes=spec["num_classes"],
        image_size=spec["settings"]["img_size"],
    )


def test_the_reference_file_is_here() -> None:
    assert FILES == ["levit-unet-384"]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", FILES)
def test_agrees_in_float64(name: str) -> None:
    Agreement(name, build, torch.float64, gradients=True).assert_agrees()


@pytest.mark.parametrize("name", FILES)
def test_the_released_names_are_complete(name: str) -> None:
    spec = read_spec(name)
    network, report = matched(name, build)
    assert len(report.matched) == len(spec["state_dict"])
    assert report.missing == report.unexpected == report.dead == ()
    # Tables of indices are no parameters; the file lists them apart.
    assert network.released_names().fixed == {table for table, _ in spec["fixed_buffers"]}
    assert sum(p.numel() for p in network.parameters()) == spec["parameters"]


@pytest.mark.parametrize(
    ("name", "millions"),
    [("levit-unet-128", 15.9), ("levit-unet-192", 19.9), ("levit-unet-384", 52.2)],
)
def test_the_sizes_of_the_variants(name: str, millions: float) -> None:
    with torch.device("meta"):
        network = create_network(name, in_channels=1, classes=9)
    parameters = sum(p.numel() for p in network.parameters())
    assert parameters == pytest.approx(millions * 1e6, rel=0.01)


@pytest.mark.parametrize("size", [(224, 224), (64, 96)])
def test_the_encoder_is_timms(size: tuple[int, int], tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    options = {"embed_dim": (16, 24, 32), "key_dim": 4, "num_heads": (2, 3, 4), "depth": (2, 1, 1)}
    theirs = timm.create_model("levit_128s", img_size=size, **options)
    for name, tensor in theirs.state_dict().items():
        if tensor.is_floating_point():
            tensor.uniform_(0.5 if name.endswith("var") else -1, 1)
    save_file(theirs.state_dict(), tmp_path / "weights.safetensors")
    network = create_network(
        "levit-unet-128",
        in_channels=3,
        **{**TINY, "heads": (2, 3, 4), "depths": (2, 1, 1)},
        image_size=size,
        pretrained=f"imagenet:{tmp_path / 'weights.safetensors'}",
    ).double()
    assert network.pretrained is not None
    assert all(name.startswith("head") for name in network.pretrained.unused)
    theirs = theirs.double().eval()
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        last = network.eval().encoder(x)[1][-1]
        expected = theirs.forward_features(x)
    assert torch.allclose(last.flatten(2).transpose(1, 2), expected, rtol=1e-9, atol=1e-9)


def test_the_index_of_offsets() -> None:
    index = offset_index((2, 3), 1, torch.device("cpu"))
    assert index.tolist()[0] == [0, 1, 2, 3, 4, 5]
    assert index.tolist()[4] == [4, 3, 4, 1, 0, 1]
    # Every second row and column asks: of 2×3 positions (0, 0) and (0, 2).
    assert offset_index((2, 3), 2, torch.device("cpu")).tolist() == [
        [0, 1, 2, 3, 4, 5],
        [2, 1, 0, 5, 4, 3],
    ]


def test_tables_are_interpolated_for_other_sizes() -> None:
    torch.manual_seed(0)
    small = create_network("levit-unet-384", image_size=(96, 64), **TINY).double().eval()
    with torch.no_grad():
        for name, parameter in small.named_parameters():
            if name.endswith("biases"):
                parameter.normal_()
    x = torch.randn(1, 3, 160, 112, dtype=torch.float64)
    with_tables = small(x).logits
    assert with_tables.shape == (1, 1, 160, 112)
    with torch.no_grad():
        for name, parameter in small.named_parameters():
            if name.endswith("biases"):
                parameter.fill_(0.5)
    # The softmax cancels what is the same for all offsets, at every size.
    constant = small(x).logits
    with torch.no_grad():
        for name, parameter in small.named_parameters():
            if name.endswith("biases"):
                parameter.zero_()
    assert torch.allclose(constant, small(x).logits)
    norms = [m for m in small.modules() if isinstance(m, nn.BatchNorm1d)]
    with torch.no_grad():
        for norm in norms:
            norm.weight.fill_(1)
    changed = small(x).logits
    with torch.no_grad():
        for name, parameter in small.named_parameters():
            if name.endswith("biases"):
                parameter.normal_()
    assert not torch.allclose(changed, small(x).logits)


def test_residual_branches_start_as_nothing() -> None:
    network = create_network("levit-unet-384", **TINY)
    starts = {n: m for n, m in network.named_modules() if isinstance(m, nn.BatchNorm1d)}
    zero = {name for name, norm in starts.items() if not norm.weight.any()}
    assert zero == {name for name in starts if name.endswith(("mlp.2.1", "attention.output.1"))}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"widths": (16, 24)}, "three numbers in widths"),
        ({"heads": (0, 2, 2)}, "three numbers in heads"),
        ({"widths": (12, 24, 32)}, "divisible by 8"),
        ({"key_width": 5}, "key_width"),
        ({"image_size": 8}, "image_size of at least 16"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        create_network("levit-unet-384", **{**TINY, **options})
