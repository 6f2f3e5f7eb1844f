"""ESFPNet, SSFormer and FCBFormer against the released numbers, and their backbone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from segweave import registry
from segweave.backbones.pyramid_vision import PyramidVision
from segweave.blocks.fusion import LateFusion
from segweave.errors import UsageError
from segweave.networks import Output, create_network
from tests.networks.agreement import Agreement, files_of, matched, read_spec

NAMES = ("esfpnet-t", "ssformer-s", "ssformer-l", "fcbformer")
FILES = files_of(*NAMES)
# At 352×352 FCBFormer takes minutes in float64: its other sizes hold the same arithmetic.
HEAVY = {"fcbformer"}


def build(spec: dict[str, Any]) -> nn.Module:
    return create_network(spec["name"].partition("@")[0], in_channels=3, classes=1)


class Quarter(nn.Module):
    """ESFPNet up to the logits at a quarter of the size, which the reference files hold."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, *, auxiliary: bool = False) -> Output:
        decoded = self.network.decode(self.network.encode(x))
        return Output(self.network.classifier(decoded.map), {})

    def released_names(self) -> Any:
        names = self.network.released_names()
        return type(names)({f"network.{k}": v for k, v in names.tensors.items()})


def built_for(spec: dict[str, Any]) -> nn.Module:
    network = build(spec)
    return Quarter(network) if spec["name"].startswith("esfpnet") else network


def test_the_reference_files_are_here() -> None:
    assert len(FILES) == 9


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", [name for name in FILES if name not in HEAVY])
def test_agrees_in_float64(name: str) -> None:
    gradients = name != "fcbformer@96x96"
    Agreement(name, built_for, torch.float64, gradients=gradients).assert_agrees()


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [name for name in FILES if name.endswith("@64x96") or name in HEAVY]
)
def test_agrees_in_float32(name: str) -> None:
    Agreement(name, built_for, torch.float32).assert_agrees()


@pytest.mark.parametrize("name", NAMES)
def test_the_released_names_are_complete(name: str) -> None:
    spec = read_spec(name)
    network, report = matched(name, build)
    assert len(report.matched) + len(report.dead) == len(spec["state_dict"])
    assert report.missing == report.unexpected == ()
    assert set(spec["parameters_without_gradient"]["names"]) <= set(report.dead)
    dead = spec["parameters_without_gradient"]["count"]
    assert sum(p.numel() for p in network.parameters()) == spec["parameters"] - dead


@pytest.mark.parametrize(("name", "millions"), [("esfpnet-s", 25.043649), ("esfpnet-l", 61.690049)])
def test_parameters_of_the_larger_ones(name: str, millions: float) -> None:
    network = create_network(name)
    assert sum(p.numel() for p in network.parameters()) == round(millions * 1e6)


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (50, 64)])
def test_ssformer_takes_any_size(size: tuple[int, int]) -> None:
    network = create_network("ssformer-s", backbone="tiny", width=8, classes=3).eval()
    assert network(torch.randn(1, 3, *size)).logits.shape == (1, 3, *size)


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("size", [(12, 20), (6, 10), (7, 9)])
def test_late_fusion_is_the_plain_one(size: tuple[int, int], folded: bool) -> None:
    from segweave.blocks.conv_norm import fold_weights

    torch.manual_seed(0)
    fusion = LateFusion((3, 5), 4).double().eval()
    norm = fusion.layer[1]
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    maps = [torch.randn(2, c, 6, 10, dtype=torch.float64) for c in (3, 5)]
    resized = [
        torch.nn.functional.interpolate(one, size=size, mode="bilinear", align_corners=False)
        for one in maps
    ]
    plain = fusion.layer(torch.cat(resized, 1))
    late = (fold_weights(fusion) if folded else fusion)(maps, size)
    assert torch.allclose(late, plain, atol=1e-12)


@pytest.mark.parametrize("name", ["pvt_v2_b0", "pvt_v2_b2"])
def test_the_backbone_is_timms(name: str) -> None:
    torch.manual_seed(0)
    theirs = timm.create_model(name, features_only=True).eval()
    ours = PyramidVision(name, 3).eval()
    state = timm.create_model(name, num_classes=0).state_dict()
    ours.load_state_dict(state)
    renamed = {k.replace("stages.", "stages_"): v for k, v in state.items()}
    theirs.load_state_dict(renamed, strict=False)
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        for one, other in zip(ours(x), theirs(x), strict=True):
            assert torch.equal(one, other)


def test_imagenet_weights_under_the_names_of_their_authors(tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = PyramidVision("tiny", 3)
    names = source.released_names().tensors
    state = source.state_dict()
    theirs = {names[name]: tensor for name, tensor in state.items()}
    # In the order of their files: embeddings first, and with a classifier behind.
    ordered = dict(sorted(theirs.items(), reverse=True)) | {"head.weight": torch.zeros(10, 32)}
    save_file(ordered, tmp_path / "mit.safetensors")
    network = create_network(
        "esfpnet-t", backbone="tiny", pretrained=f"imagenet:{tmp_path / 'mit.safetensors'}"
    )
    loaded = network.backbone.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())
    assert network.pretrained is not None
    assert "head.weight" in network.pretrained.unused


def test_an_unknown_backbone_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="mit_b5"):
        create_network("ssformer-s", backbone="mit_b7")


def test_fcbformer_takes_widths_that_its_groups_divide() -> None:
    options = {"backbone": "tiny", "branch_size": 8}
    network = create_network("fcbformer", width=8, groups=4, classes=2, **options).eval()
    assert network.channels["decoder"] == (16,)
    assert network(torch.randn(1, 3, 32, 96)).logits.shape == (1, 2, 32, 96)
    for wrong in ({"width": 6, "groups": 4}, {"width": 8, "groups": 8}, {"width": 0, "groups": 4}):
        with pytest.raises(UsageError, match="groups that divide"):
            create_network("fcbformer", **options, **wrong)


@pytest.mark.parametrize("name", NAMES)
def test_an_image_of_five_channels(name: str) -> None:
    options = registry.networks.card(name).tiny_options
    network = create_network(name, in_channels=5, classes=3, **options).eval()
    assert network(torch.randn(1, 5, 64, 32)).logits.shape == (1, 3, 64, 32)
