"""LDNet against the released numbers, and its rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from segweave import registry
from segweave.blocks.dynamic_kernel import KernelUpdate
from segweave.blocks.lesion_attention import HEAD, LesionAttention, PooledAttention
from segweave.errors import UsageError
from segweave.networks import Output, create_network
from segweave.networks.base import Decoded, SegmentationNetwork, Size
from segweave.networks.ldnet import NAMES
from tests.networks.agreement import Agreement, files_of, read_spec

pytest.importorskip("timm")

NETWORKS = ("ldnet", "ldnet-resnet34")
FILES = files_of(*NETWORKS)


def build(spec: dict[str, Any]) -> nn.Module:
    network = create_network(spec["name"].partition("@")[0], classes=spec["num_classes"])
    assert isinstance(network, SegmentationNetwork)
    head = network.head

    def at_their_sizes(decoded: Decoded, size: Size, auxiliary: bool) -> Output:
        # The files hold the earlier stages before they are resized to the image.
        earlier = {name: decoded.extra[name] for name in NAMES}
        return Output(head(decoded, size, False).logits, earlier)

    network.head = at_their_sizes  # type: ignore[method-assign]
    return network


def outputs(output: Output, spec: dict[str, Any]) -> Sequence[Tensor]:
    return [one.sigmoid() for one in (output.logits, *output.auxiliary.values())]


def agreement(name: str, *, gradients: bool) -> Agreement:
    return Agreement(name, build, torch.float64, gradients=gradients, outputs=outputs)


def test_the_reference_files_are_here() -> None:
    assert set(FILES) == {name + size for name in NETWORKS for size in ("", "@64x96")}


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_agrees_in_float64(name: str) -> None:
    # Gradients at one of the two sizes, for the sake of time.
    agreement(name, gradients="@" in name).assert_agrees()


@pytest.mark.parametrize("name", NETWORKS)
def test_the_released_names_are_complete(name: str) -> None:
    spec = read_spec(name)
    with torch.device("meta"):
        network = create_network(name)
    names = network.released_names()
    copies = {pair[0] for pair in spec["aliases"]}
    assert names.fixed == copies
    assert set(names.tensors.values()) == {tensor for tensor, _ in spec["state_dict"]} - copies
    assert sum(p.numel() for p in network.parameters()) == spec["parameters"]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("size", [(32, 33), (70, 90)])
def test_any_size_works(name: str, size: tuple[int, int]) -> None:
    options = registry.networks.card(name).tiny_options
    network = create_network(name, in_channels=2, classes=3, **options).eval()
    output = network(torch.randn(1, 2, *size), auxiliary=True)
    assert list(output.auxiliary) == list(NAMES)
    for one in (output.logits, *output.auxiliary.values()):
        assert one.shape == (1, 3, *size)


def attention_in_words(layer: Any, y: Tensor, tokens: Tensor) -> Tensor:
    """Queries of each pixel, keys and values of each token: (n, C), (N, C) → (n, C)."""
    query, key, value = layer.to_qkv.weight.flatten(1).chunk(3)
    heads = []
    for h in range(layer.heads):
        rows = slice(h * HEAD, (h + 1) * HEAD)
        scores = (y @ query[rows].T) @ (tokens @ key[rows].T).T / HEAD**0.5
        heads.append(scores.softmax(dim=1) @ (tokens @ value[rows].T))
    y = y + layer.to_out(torch.cat(heads, dim=1))
    result: Tensor = y + layer.mlp(layer.norm(y))
    return result


@pytest.mark.parametrize("classes", [1, 3])
def test_attention_to_regions_by_hand(classes: int) -> None:
    torch.manual_seed(0)
    layer = LesionAttention(8, 2).double()
    x = torch.randn(1, 8, 4, 5, dtype=torch.float64)
    logits = torch.randn(1, classes, 4, 5, dtype=torch.float64)
    pixels, weights = x[0].flatten(1).T, logits[0].sigmoid().flatten(1)
    tokens = (weights @ pixels) / (weights.sum(dim=1, keepdim=True) + 0.0005)
    expected = attention_in_words(layer, pixels, tokens)
    assert torch.allclose(layer(x, logits)[0].flatten(1).T, expected, rtol=0, atol=1e-12)


def test_attention_to_the_pooled_map_by_hand() -> None:
    torch.manual_seed(0)
    layer = PooledAttention(8, 2).double()
    x = torch.randn(1, 8, 15, 15, dtype=torch.float64)
    tokens = torch.cat(
        [
            x[0].unflatten(1, (n, -1)).unflatten(3, (n, -1)).mean(dim=(2, 4)).flatten(1).T
            for n in (1, 3, 5)
        ]
    )
    expected = attention_in_words(layer, x[0].flatten(1).T, tokens)
    assert torch.allclose(layer(x)[0].flatten(1).T, expected, rtol=0, atol=1e-12)


def test_an_update_reads_what_was_found() -> None:
    torch.manual_seed(0)
    update = KernelUpdate(8)
    kernels, x = torch.randn(1, 2, 8), torch.randn(1, 8, 6, 6)
    logits = torch.full((1, 2, 3, 3), -200.0)
    before = update(kernels, logits, x)
    assert (before >= 0).all()
    # Where nothing was found the map doesn't matter; where one class was, it does for that one.
    assert torch.equal(update(kernels, logits, x + 1), before)
    logits[:, 1] = 0
    after = update(kernels, logits, x)
    assert torch.equal(after[:, 0], before[:, 0])
    assert not torch.equal(after[:, 1], before[:, 1])


@pytest.mark.parametrize(
    "options", [{"widths": (64, 128, 256, 500)}, {"widths": (8, 8, 16)}, {"heads": 0}]
)
def test_impossible_numbers_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="widths"):
        create_network("ldnet", **options)


def test_a_backbone_without_five_levels_is_refused() -> None:
    with pytest.raises(UsageError, match="five levels"):
        create_network("ldnet", encoder="convnext_atto", encoder_options={"out_indices": (0, 1, 2)})
