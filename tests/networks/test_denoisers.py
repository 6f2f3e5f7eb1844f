"""Networks that predict an image: what was published, and that they start from the image itself."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from segweave.networks import create_network


def test_red_cnn_has_the_published_parameters() -> None:
    network = create_network("red-cnn", in_channels=1, classes=1)
    assert sum(p.numel() for p in network.parameters()) == 1_848_865
    assert [p.ndim for p in network.parameters()].count(4) == 10


def test_red_cnn_computes_the_published_layers() -> None:
    torch.manual_seed(0)
    network = create_network("red-cnn", in_channels=1, classes=1, width=3).double().eval()
    x = torch.rand(1, 1, 12, 9, dtype=torch.float64)
    weights = list(network.state_dict().values())
    convolution, transposed = functional.conv2d, functional.conv_transpose2d
    layers = [(convolution, *weights[2 * k : 2 * k + 2]) for k in range(5)]
    layers += [(transposed, *weights[2 * k : 2 * k + 2]) for k in range(5, 10)]
    map = functional.pad(x, (10,) * 4, mode="replicate")
    kept = {}
    for number, (layer, weight, bias) in enumerate(layers[:-1]):
        map = layer(map, weight, bias)
        map = map + kept[number] if number in kept else map
        map = map.relu()
        if number in (1, 3):
            kept[8 - number] = map  # the 2nd meets the 8th layer, the 4th the 6th
    layer, weight, bias = layers[-1]
    wanted = (layer(map, weight, bias)[..., 10:-10, 10:-10] + x).relu()
    assert torch.allclose(network(x).logits, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["red-cnn", "swin-denoiser"])
def test_a_denoiser_starts_near_its_image(name: str) -> None:
    torch.manual_seed(0)
    options = {"width": 8} if name == "red-cnn" else {"width": 8, "groups": 1, "blocks": 2}
    network = create_network(name, in_channels=1, classes=1, **options).eval()
    x = torch.rand(1, 1, 16, 16) + 0.1
    with torch.no_grad():
        correction = network(x).logits - x
    assert 0 < correction.abs().max() < 0.1
    network = create_network(name, in_channels=1, classes=2, **options).eval()
    with torch.no_grad():
        assert network(x).logits.abs().max() < 0.1


def test_the_denoiser_starts_from_swin_weights() -> None:
    timm = pytest.importorskip("timm")
    published = timm.create_model("swin_tiny_patch4_window7_224", pretrained=False).state_dict()
    network = create_network(
        "swin-denoiser", in_channels=1, classes=1, groups=2, blocks=2, window=7
    )
    adapted = network.swin.adapted(published)  # type: ignore[union-attr, operator]
    own = network.swin.state_dict()  # type: ignore[union-attr]
    assert all(own[name].shape == adapted[name].shape for name in own)
    first = adapted["stacks.1.0.attn.qkv.weight"]
    assert torch.equal(first, published["layers.0.blocks.0.attn.qkv.weight"])
