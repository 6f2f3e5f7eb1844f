"""PraNet and SANet against the released numbers, and their rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from segweave import registry
from segweave.blocks.conv_norm import fold_weights
from segweave.errors import UsageError
from segweave.networks import Output, create_network
from segweave.networks.base import Decoded, SegmentationNetwork, Size
from segweave.networks.pranet import ReverseAttention
from tests.networks.agreement import Agreement, files_of, matched, read_spec

pytest.importorskip("timm")

NAMES = ("pranet", "sanet")
FILES = files_of(*NAMES)


def tiny_options(name: str) -> dict[str, Any]:
    return registry.networks.card(name).tiny_options


def build(spec: dict[str, Any]) -> nn.Module:
    return create_network(spec["name"].partition("@")[0], classes=spec["num_classes"])


def build_at_an_eighth(spec: dict[str, Any]) -> nn.Module:
    """SANet's file holds the logits before they are resized to the image."""
    network = build(spec)
    assert isinstance(network, SegmentationNetwork)
    head = network.head

    def own_size(decoded: Decoded, size: Size, auxiliary: bool) -> Output:
        return head(decoded, tuple(decoded.map.shape[-2:]), auxiliary)

    network.head = own_size  # type: ignore[method-assign]
    return network


def outputs(output: Output, spec: dict[str, Any]) -> Sequence[Tensor]:
    return [*output.auxiliary.values(), output.logits]


def test_the_reference_files_are_here() -> None:
    assert set(FILES) == {"pranet", "pranet@64x96", "sanet", "sanet@64x96"}


def agreement(name: str, *, gradients: bool) -> Agreement:
    return Agreement(
        name,
        build_at_an_eighth if "sanet" in name else build,
        torch.float64,
        gradients=gradients,
        outputs=outputs,
        auxiliary=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_agrees_in_float64(name: str) -> None:
    # Gradients at one of the two sizes, for the sake of time.
    agreement(name, gradients="@" in name).assert_agrees()


@pytest.mark.parametrize("name", NAMES)
def test_the_released_names_are_complete(name: str) -> None:
    spec = read_spec(name)
    network, report = matched(name, build)
    dead = {"resnet.fc.weight", "resnet.fc.bias"} if name == "pranet" else set()
    assert set(report.dead) == dead == set(spec["parameters_without_gradient"]["names"])
    assert len(report.matched) + len(dead) == len(spec["state_dict"])
    assert report.missing == report.unexpected == ()
    dropped = spec["parameters_without_gradient"]["count"]
    assert sum(p.numel() for p in network.parameters()) == spec["parameters"] - dropped


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(32, 33), (70, 90)])
def test_any_size_works(name: str, size: tuple[int, int]) -> None:
    network = create_network(name, in_channels=2, classes=3, **tiny_options(name)).eval()
    output = network(torch.randn(1, 2, *size), auxiliary=True)
    assert {(1, 3, *size)} == {tuple(one.shape) for one in outputs(output, {})}


def test_all_batch_norms_fold() -> None:
    """Those of the Res2Net blocks too, whose convolutions run in a loop."""
    with torch.no_grad():
        folded = fold_weights(create_network("sanet"))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())


def test_reverse_attention_erases_what_was_found() -> None:
    torch.manual_seed(0)
    attention = ReverseAttention(4, 4, 2).double().eval()
    features = torch.randn(1, 4, 6, 6, dtype=torch.float64)
    found = torch.full((1, 2, 6, 6), 1e3, dtype=torch.float64)
    erased = attention(torch.zeros_like(features), torch.zeros_like(found))
    assert torch.allclose(attention(features, found), erased)
    assert torch.allclose(attention(features, -found), attention.body(features))
    # One of two classes is found: half of the features is left.
    found[:, 1] *= -1
    assert torch.allclose(attention(features, found), attention.body(features / 2))


def test_the_stages_of_pranet_are_auxiliary_outputs() -> None:
    network = create_network("pranet", **tiny_options("pranet")).train()
    output = network(torch.randn(2, 3, 64, 64))
    assert list(output.auxiliary) == ["global", "stage-4", "stage-3"]


def test_the_join_of_sanet_by_hand() -> None:
    torch.manual_seed(0)
    network = create_network("sanet", **tiny_options("sanet")).eval()
    features = network.encode(torch.randn(1, 3, 64, 64))
    width = network.channels["decoder"][0] // 3
    with torch.no_grad():
        f5, f45, f345 = network.decode(features).map.split(width, dim=1)
        f3 = network.reduce[0](features.skips[0])
    assert torch.equal(f345, f3 * f45)
    assert torch.equal(f45 == 0, (f5 == 0) | (f45 == 0))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("encoder", "words"), [("res2net50_d", "res2net50d"), ("convnext_tiny", "feature maps")]
)
def test_impossible_backbones_are_refused(name: str, encoder: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        create_network(name, encoder=encoder)
