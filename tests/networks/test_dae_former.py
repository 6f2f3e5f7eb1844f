"""DAE-Former against the released numbers, and its rules."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from segweave.blocks.dual_attention import (
    ChannelAttention,
    CrossAttentionBlock,
    EfficientAttention,
)
from segweave.errors import UsageError
from segweave.networks import create_network
from tests.networks.agreement import Agreement, files_of, matched, read_spec

FILES = files_of("dae-former")


def build(spec: dict[str, Any]) -> nn.Module:
    return create_network(
        "dae-former", in_channels=spec["input_shape"][1], classes=spec["num_classes"]
    )


def test_the_reference_files_are_here() -> None:
    assert "dae-former" in FILES


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_agrees_in_float64(name: str) -> None:
    Agreement(name, build, torch.float64, gradients=True).assert_agrees()


@pytest.mark.parametrize("name", FILES)
def test_agrees_in_float32(name: str) -> None:
    Agreement(name, build, torch.float32).assert_agrees()


def test_the_released_names_are_complete() -> None:
    network, report = matched("dae-former", build)
    spec = read_spec("dae-former")
    assert len(report.matched) + len(report.dead) == len(spec["state_dict"])
    assert report.missing == report.unexpected == ()
    assert set(report.dead) == set(spec["parameters_without_gradient_in_eval"])
    assert sum(p.numel() for p in network.parameters()) == spec["parameters_used"]


def test_grey_images_are_repeated() -> None:
    torch.manual_seed(0)
    options = {"widths": (8, 16, 24)}
    grey = create_network("dae-former", in_channels=1, **options).double().eval()
    colour = create_network("dae-former", in_channels=3, **options).double().eval()
    colour.load_state_dict(grey.state_dict())
    x = torch.randn(1, 1, 16, 48, dtype=torch.float64)
    assert torch.equal(grey(x).logits, colour(x.repeat(1, 3, 1, 1)).logits)


# Fewer tokens than channels, and more: two orders of the products.
SIDES = (2, 8)


@pytest.mark.parametrize("side", SIDES)
def test_efficient_attention_equals_its_formula(side: int) -> None:
    torch.manual_seed(0)
    layer = EfficientAttention(8).double()
    x = torch.randn(2, side, side, 8).double()
    image = x.permute(0, 3, 1, 2)
    key = layer.keys(image).flatten(2).softmax(2)
    query = layer.queries(image).flatten(2).softmax(1)
    context = key @ layer.values(image).flatten(2).transpose(1, 2)
    mixed = (context.transpose(1, 2) @ query).reshape(image.shape)
    assert torch.allclose(layer(x), layer.reprojection(mixed).permute(0, 2, 3, 1))


@pytest.mark.parametrize("side", SIDES)
def test_channel_attention_equals_its_formula(side: int) -> None:
    torch.manual_seed(0)
    layer = ChannelAttention(16).double()
    with torch.no_grad():
        layer.temperature.uniform_(0.5, 2)
    x = torch.randn(2, side, side, 16).double()
    tokens = layer.qkv(x).flatten(1, 2).reshape(2, side * side, 3, 8, 2)
    query, key, value = tokens.permute(2, 0, 3, 4, 1)
    cosine = functional.cosine_similarity(query[..., :, None, :], key[..., None, :, :], dim=-1)
    mixed = (cosine * layer.temperature).softmax(-1) @ value
    expected = layer.proj(mixed.flatten(1, 2).transpose(1, 2)).reshape(x.shape)
    assert torch.allclose(layer(x), expected)


@pytest.mark.parametrize("side", SIDES)
def test_cross_attention_reads_keys_and_queries_from_the_skip(side: int) -> None:
    torch.manual_seed(0)
    block = CrossAttentionBlock(8).double()
    x, skip = torch.randn(2, 2, side, side, 8).double().unbind()
    value, source = (block.norm1(one).flatten(1, 2) for one in (x, skip))
    context = source.softmax(1).transpose(1, 2) @ value
    mixed = (source.softmax(2) @ context).transpose(1, 2).reshape(2, 8, side, side)
    mixed = block.attention_norm(block.reprojection(mixed).permute(0, 2, 3, 1))
    joined = torch.cat([x, skip], -1) + mixed
    assert torch.allclose(block(x, skip), joined + block.ffn(block.norm2(joined)))


def test_start_values() -> None:
    torch.manual_seed(0)
    network = create_network("dae-former", widths=(8, 16, 24))
    for part in (network.decoder, network.cross_attention, network.classifier):
        for layer in part.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d) and layer.bias is not None:
                assert not layer.bias.any()
    assert network.encoder[0][0].attn.keys.bias.any()
    assert (network.encoder[0][0].channel_attn.temperature == 1).all()


@pytest.mark.parametrize("widths", [(8, 16), (8, 16, 20), (0, 8, 8)])
def test_impossible_options_are_refused(widths: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="three widths"):
        create_network("dae-former", widths=widths)
