"""A timm backbone with a plain decoder: its size rule, channels and errors."""

from __future__ import annotations

import builtins
from typing import Any

import pytest
import torch

from segweave import create_network
from segweave.errors import MissingExtraError, UsageError
from segweave.weaving import weave

pytest.importorskip("timm")


@pytest.mark.parametrize(
    ("encoder", "stride", "fixed"),
    [("test_resnet", 32, ()), ("test_efficientnet", 32, ()), ("test_vit", 16, ((160, 160),))],
)
def test_the_size_rule_is_that_of_the_backbone(
    encoder: str, stride: int, fixed: tuple[Any, ...]
) -> None:
    network = create_network("timm-unet", encoder=encoder).eval()
    assert network.stride == network.divisor == network.smallest == stride
    assert network.fixed == fixed
    height, width = fixed[0] if fixed else (stride, 2 * stride)
    assert network(torch.randn(1, 3, height, width)).logits.shape == (1, 1, height, width)
    with pytest.raises(UsageError, match="resize or pad"):
        network(torch.randn(1, 3, height + 1, width))


def test_another_size_of_a_fixed_backbone() -> None:
    network = create_network("timm-unet", encoder="test_vit", encoder_options={"img_size": 64})
    assert network.fixed == ((64, 64),)
    assert network.eval()(torch.randn(1, 3, 64, 64)).logits.shape == (1, 1, 64, 64)


def test_channels_last_features_are_turned() -> None:
    options = {"img_size": 64, "window_size": 2, "embed_dim": 8, "depths": (1, 1, 1, 1)}
    network = create_network(
        "timm-unet",
        encoder="swin_tiny_patch4_window7_224",
        encoder_options={**options, "num_heads": (1, 1, 1, 1)},
    ).eval()
    features = network.encode(torch.randn(1, 3, 64, 64))
    assert features.bottleneck.shape == (1, 64, 2, 2)
    assert [tuple(skip.shape) for skip in features.skips] == [
        (1, 8, 16, 16), (1, 16, 8, 8), (1, 32, 4, 4)
    ]  # fmt: skip
    assert network.channels["skips"] == (8, 16, 32)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder": "resnet18x"}, "did you mean resnet18"),
        ({"encoder": "xyz"}, "timm.list_models"),
        ({"encoder": "test_resnet", "decoder_channels": (8, 8)}, "4 decoder_channels"),
        ({"encoder": "test_resnet", "encoder_options": {"no_such": 1}}, "no_such"),
        ({"encoder": "test_resnet", "encoder_options": {"out_indices": (4,)}}, "two levels"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        create_network("timm-unet", **options)


def test_without_timm_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def without(name: str, *args: Any) -> Any:
        if name == "timm":
            raise ImportError(name)
        return original(name, *args)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"segweave\[zoo\]"):
        create_network("timm-unet")


def test_a_layer_of_the_backbone_can_be_woven_at() -> None:
    network = create_network("timm-unet", encoder="test_resnet", decoder_channels=(8, 8, 8, 8))
    window = torch.randn(1, 3, 3, 64, 64)
    bare = weave(network, "identity", at="encoder.layer2", channels=48).eval()
    woven = weave(network, "mean", at="encoder.layer2", channels=48).eval()
    with torch.no_grad():
        expected = network.eval()(window[:, 1]).logits
        assert torch.equal(bare(window).logits, expected)
        assert not torch.allclose(woven(window).logits, expected)
