"""Attention U-Net, R2U-Net, UNet++ and ResUNet against the released numbers, and their rules."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from segweave.blocks.conv_norm import fold_weights
from segweave.errors import UsageError
from segweave.networks import Output, create_network
from segweave.networks.r2unet import RecurrentConvolution
from segweave.networks.resunet import ResidualUnit
from segweave.weaving import POSITIONS, weave
from tests.networks.agreement import Agreement, files_of, matched, read_spec

NAMES = {
    "attention-unet": "attention-unet",
    "r2unet": "r2unet",
    "unetpp": "unetpp",
    "unetpp-deep": "unetpp",
    "resunet-released": "resunet",
}
FILES = files_of(*NAMES)


def build(spec: dict[str, Any]) -> nn.Module:
    options = {"deep_supervision": True} if spec["name"].startswith("unetpp-deep") else {}
    name = NAMES[spec["name"].partition("@")[0]]
    return create_network(name, in_channels=3, classes=spec["num_classes"], **options)


def outputs(output: Output, spec: dict[str, Any]) -> Sequence[Tensor]:
    """The probabilities; with deep supervision those of the other nodes come first."""
    return [logits.sigmoid() for logits in (*output.auxiliary.values(), output.logits)]


def test_the_reference_files_are_here() -> None:
    assert len(FILES) == 10
    assert {name.partition("@")[0] for name in FILES} == set(NAMES)


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_agrees_in_float64(name: str) -> None:
    Agreement(
        name, build, torch.float64, gradients=True, outputs=outputs, auxiliary="deep" in name
    ).assert_agrees()


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in FILES if "@" in name])
def test_agrees_in_float32(name: str) -> None:
    Agreement(name, build, torch.float32, outputs=outputs, auxiliary="deep" in name).assert_agrees()


@pytest.mark.parametrize("name", NAMES)
def test_the_released_names_are_complete(name: str) -> None:
    network, report = matched(name, build)
    assert len(report.matched) == len(read_spec(name)["state_dict"])
    assert report.missing == report.unexpected == report.dead == ()
    assert sum(p.numel() for p in network.parameters()) == read_spec(name)["parameter_count"]


def test_the_gate_closes_a_skip() -> None:
    network = create_network("attention-unet", width=4).double().eval()
    x = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        for gate in network.gates:
            gate.score[0].weight.zero_()
            gate.score[0].bias.zero_()
            gate.score[1].bias.fill_(-1e3)
        features = network.encode(x)
        without = network.decode(
            features._replace(skips=tuple(map(torch.zeros_like, features.skips)))
        )
        assert torch.equal(network.decode(features).map, without.map)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_the_recurrent_convolution_by_hand(steps: int) -> None:
    torch.manual_seed(0)
    block = RecurrentConvolution(3, steps).double().eval()
    x = torch.randn(2, 3, 8, 6, dtype=torch.float64)
    convolution, norm = block.layer[0], block.layer[1]

    def layer(z: Tensor) -> Tensor:
        y = torch.nn.functional.conv2d(z, convolution.weight, convolution.bias, padding=1)
        y = (y - norm.running_mean[:, None, None]) / (norm.running_var + norm.eps).sqrt()[
            :, None, None
        ]
        return (y * norm.weight[:, None, None] + norm.bias[:, None, None]).relu()

    y = layer(x)
    for _ in range(steps):
        y = layer(x + y)
    assert torch.allclose(block(x), y, atol=1e-12)


def test_deep_supervision_adds_outputs_and_changes_no_logits() -> None:
    torch.manual_seed(0)
    deep = create_network("unetpp", width=4, classes=2, deep_supervision=True).eval()
    plain = create_network("unetpp", width=4, classes=2).eval()
    plain.load_state_dict(
        {k: v for k, v in deep.state_dict().items() if not k.startswith("deep_heads")}
    )
    x = torch.randn(1, 3, 32, 48)
    output = deep(x, auxiliary=True)
    assert torch.equal(output.logits, plain(x).logits)
    assert {n: tuple(o.shape) for n, o in output.auxiliary.items()} == {
        f"node-{j}": (1, 2, 32, 48) for j in (1, 2, 3)
    }


def test_the_paper_form_of_resunet_is_the_residual_unet() -> None:
    network = create_network("resunet", form="paper", in_channels=3, classes=1)
    # Zhang et al. state 7.8 M parameters, which are those of the 3×3 convolutions of Table I.
    kernels = [m.weight for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert round(sum(k.numel() for k in kernels if k.shape[-1] == 3) / 1e6, 1) == 7.8
    assert network.channels["skips"] == (64, 128, 256)
    assert network(torch.zeros(1, 3, 24, 40)).logits.shape == (1, 1, 24, 40)


def test_the_paper_form_of_resunet_trains_and_folds() -> None:
    torch.manual_seed(0)
    network = create_network("resunet", form="paper", in_channels=1, classes=2, width=4).double()
    x = torch.randn(2, 1, 16, 24, dtype=torch.float64)
    network(x).logits.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    network.eval()
    folded = fold_weights(network)
    # Six units begin with a batch norm that has no convolution before it.
    assert sum(isinstance(m, nn.BatchNorm2d) for m in folded.modules()) == 6
    assert torch.allclose(folded(x).logits, network(x).logits, atol=1e-9)


@pytest.mark.parametrize("at", POSITIONS)
@pytest.mark.parametrize("slices", [1, 3])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resunet", {"form": "paper", "width": 4}),
        ("unetpp", {"width": 2, "deep_supervision": True}),
    ],
)
def test_weaving_reaches_every_position(
    name: str, options: dict[str, Any], at: str, slices: int
) -> None:
    torch.manual_seed(0)
    network = create_network(name, in_channels=1, classes=2, **options)
    woven = weave(network, "sa-lstm", at=at, slices=slices)
    output = woven(torch.randn(2, slices, 1, 32, 16))
    assert output.logits.shape == (2, 2, 32, 16)
    assert all(map.shape == (2, 2, 32, 16) for map in output.auxiliary.values())
    total = output.logits.square().mean()
    for map in output.auxiliary.values():
        total = total + map.square().mean()
    total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_the_backbone_of_resunet_takes_the_weights_of_torchvision(tmp_path: Path) -> None:
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    theirs = torchvision.models.resnet34()
    file = tmp_path / "resnet34.safetensors"
    save_file(theirs.state_dict(), file)
    network = create_network("resunet", pretrained=f"imagenet:{file}").eval()
    assert network.pretrained is not None
    assert set(network.pretrained.unused) == {"fc.weight", "fc.bias"}
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(network.encoder.layer1[0].conv1.weight, theirs.layer1[0].conv1.weight)
    stem = theirs.eval().maxpool(theirs.relu(theirs.bn1(theirs.conv1(x))))
    deepest = theirs.layer4(theirs.layer3(theirs.layer2(theirs.layer1(stem))))
    assert torch.allclose(network.encode(x).bottleneck, deepest, atol=1e-4)


def test_a_residual_unit_leaves_its_input_alone() -> None:
    unit = ResidualUnit(4, 4).eval()
    x = torch.randn(1, 4, 8, 8)
    before = x.clone()
    unit(x)
    assert torch.equal(x, before)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("attention-unet", {"width": 1}, "at least 2"),
        ("r2unet", {"steps": 0}, "at least 1"),
        ("unetpp", {"width": 0}, "at least 1"),
        ("resunet", {"width": 8}, "omit width"),
        ("resunet", {"form": "paper", "encoder": "resnet18"}, "omit encoder"),
        ("resunet", {"form": "paper", "width": 0}, "at least 1"),
        ("resunet", {"encoder": "resnet43"}, "resnet34"),
        ("resunet", {"encoder": "convnext_tiny"}, "strides"),
        ("resunet", {"form": "published"}, "paper or released"),
    ],
)
def test_impossible_options_are_refused(name: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        create_network(name, **options)
