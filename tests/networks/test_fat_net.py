"""FAT-Net against the released numbers, and its rules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from segweave import registry
from segweave.author_weights import load_released
from segweave.errors import UsageError
from segweave.networks import create_network
from segweave.networks.fat_net import FATNet, FeatureAdaptation
from tests.networks.agreement import Agreement, files_of

pytest.importorskip("timm")

FILES = files_of("fat-net")
TINY = registry.networks.card("fat-net").tiny_options


def build(spec: dict[str, Any]) -> nn.Module:
    return create_network("fat-net", classes=spec["num_classes"])


def test_the_reference_file_is_here() -> None:
    assert FILES == ["fat-net"]


@pytest.fixture(scope="module")
def agreement() -> Agreement:
    # Outputs alone, for the sake of time; the gradient differs by 6e-8.
    return Agreement("fat-net", build, torch.float64)


@pytest.mark.slow
def test_agrees_in_float64(agreement: Agreement) -> None:
    agreement.assert_agrees()


@pytest.mark.slow
def test_the_released_names_are_complete(agreement: Agreement) -> None:
    spec, network, report = agreement.spec, agreement.network, agreement.report
    assert isinstance(network, FATNet)
    names = network.released_names()
    dropped = spec["parameters_without_gradient"]
    assert set(dropped["names"]) <= set(report.dead)
    assert all(name.startswith("decoder1.") for name in report.dead)
    # Of the names of one tensor the last is ours, the others hold the same numbers.
    aliases = {name for group in spec["aliases"] for name in group[:-1]}
    assert names.fixed == aliases
    assert {group[-1] for group in spec["aliases"]} <= set(report.matched)
    every = {*report.matched, *report.dead, *aliases}
    assert every == {name for name, _ in spec["state_dict"]}
    assert len(report.matched) + len(report.dead) + len(aliases) == len(spec["state_dict"])
    assert report.missing == report.unexpected == ()
    used = sum(p.numel() for p in network.parameters())
    assert used == spec["parameters"] - dropped["count"]


def test_a_file_of_the_authors_needs_all_repetitions_or_the_last_one() -> None:
    network = create_network("fat-net", **TINY)
    names = network.released_names()
    weights = {theirs: network.state_dict()[ours] for ours, theirs in names.tensors.items()}
    repeated = dict.fromkeys(names.fixed, torch.zeros(1))
    assert load_released(network, weights).unexpected == ()
    assert load_released(network, {**weights, **repeated}).unexpected == ()


def test_feature_adaptation_repeats_with_the_same_weights() -> None:
    torch.manual_seed(0)
    thrice, once = FeatureAdaptation(4, 3), FeatureAdaptation(4, 1)
    once.load_state_dict(thrice.state_dict())
    x = torch.randn(2, 4, 5, 6)
    assert torch.equal(thrice(x), once(once(once(x))))
    expected = nn.functional.relu(once.conv3(x)) + nn.functional.relu(once.conv1(x))
    assert torch.equal(once(x), expected)


def test_patches_have_no_positions() -> None:
    """Swapped patches give swapped tokens."""
    torch.manual_seed(0)
    transformer = create_network("fat-net", **TINY).transformer.double().eval()
    x = torch.randn(1, 3, 32, 48).double()
    swapped = torch.cat([x[..., 32:], x[..., 16:32], x[..., :16]], -1)
    assert torch.allclose(transformer(swapped), transformer(x).flip(-1))


def test_both_backbones_take_weights_of_timm(tmp_path: Path) -> None:
    import timm

    torch.manual_seed(0)
    deit = timm.create_model(
        "deit_tiny_distilled_patch16_224", embed_dim=8, depth=1, num_heads=2, num_classes=0
    )
    resnet = timm.create_model("test_resnet", num_classes=0)
    for name, model in (("convolutional", resnet), ("transformer", deit)):
        save_file(model.state_dict(), tmp_path / f"{name}.safetensors")
    text = ",".join(f"{n}={tmp_path / n}.safetensors" for n in ("convolutional", "transformer"))
    network = create_network("fat-net", pretrained=f"imagenet:{text}", in_channels=1, **TINY)
    report = network.pretrained
    assert report is not None
    assert set(report.unused) == {
        "cls_token", "dist_token", "pos_embed", "norm.weight", "norm.bias"
    }  # fmt: skip
    tokens = torch.randn(1, 6, 8)
    with torch.no_grad():
        assert torch.equal(network.transformer.blocks(tokens), deit.blocks(tokens))


def test_skips_start_at_half_of_the_size() -> None:
    network = create_network("fat-net", **TINY).eval()
    features = network.encode(torch.randn(1, 3, 48, 32))
    sizes = [tuple(one.shape[2:]) for one in (*features.skips, features.bottleneck)]
    assert sizes == [(24, 16), (12, 8), (6, 4), (3, 2)]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"heads": 3}, "heads that divide"), ({"encoder": "mobilenetv3_small_050"}, "resnet34")],
)
def test_impossible_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        create_network("fat-net", **{**TINY, **options})
