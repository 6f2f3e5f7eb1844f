"""Folding batch norms changes the speed, not the numbers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from segweave import registry
from segweave.backbones.hybrid_vit import StandardisedConvolution
from segweave.blocks.conv_norm import fold_weights
from segweave.networks import create_network
from tests.reference.fill import calibrate

NAMES = sorted(registry.networks.cards())


def norms(module: nn.Module) -> int:
    return sum(isinstance(m, nn.BatchNorm2d) for m in module.modules())


def settle(module: nn.Module, x: Tensor) -> nn.Module:
    """Statistics and weights of the batch norms away from their start values."""
    calibrate(module, x)
    with torch.no_grad():
        for norm in (m for m in module.modules() if isinstance(m, nn.BatchNorm2d)):
            norm.weight.uniform_(0.5, 2)
            norm.bias.uniform_(-1, 1)
    return module


def test_most_networks_have_something_to_fold() -> None:
    """Those with layer or group norms alone have not; the test below says less about them."""
    tiny = {name: registry.networks.card(name).tiny_options for name in NAMES}
    having = [n for n in NAMES if norms(create_network(n, **tiny[n])) > 0]
    assert len(having) > len(NAMES) / 2
    assert {"unet", "mt-unet", "timm-unet"} <= set(having)


@pytest.mark.parametrize("name", NAMES)
def test_the_network_itself_is_left_alone(name: str) -> None:
    torch.manual_seed(0)
    card = registry.networks.card(name)
    network = create_network(name, **card.tiny_options).double()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    folded = fold_weights(network)
    assert type(folded) is type(network)
    assert norms(folded) == card.unfolded[0]
    assert network.training
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


@pytest.mark.parametrize(
    "backbone", ["test_resnet", "test_efficientnet", "test_byobnet", "mobilenetv3_small_050"]
)
def test_backbones_of_timm_are_folded_whole(backbone: str) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    model = settle(timm.create_model(backbone, features_only=True).double(), x)
    folded = fold_weights(model)
    assert norms(model) > norms(folded) == 0
    with torch.no_grad():
        for ours, theirs in zip(folded(x), model(x), strict=True):
            assert (ours - theirs).abs().max() <= 1e-9 * theirs.abs().max()


def test_models_of_smp_are_folded_whole() -> None:
    smp = pytest.importorskip("segmentation_models_pytorch")
    torch.manual_seed(0)
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    model = settle(smp.Unet("resnet18", encoder_weights=None).double(), x)
    folded = fold_weights(model)
    assert norms(model) > norms(folded) == 0
    with torch.no_grad():
        assert (folded(x) - model(x)).abs().max() <= 1e-9 * model(x).abs().max()


def test_a_weight_that_is_standardised_first_is_not_folded() -> None:
    class Standardised(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            weight = (self.weight - self.weight.mean()) / self.weight.std()
            return nn.functional.conv2d(x, weight, self.bias)

    assert norms(fold_weights(nn.Sequential(Standardised(2, 2, 3), nn.BatchNorm2d(2)))) == 1


def test_weights_are_standardised_once() -> None:
    torch.manual_seed(0)
    network = create_network("transunet", **registry.networks.card("transunet").tiny_options)
    network.double().eval()
    folded = fold_weights(network)
    assert any(isinstance(layer, StandardisedConvolution) for layer in network.modules())
    assert not any(isinstance(layer, StandardisedConvolution) for layer in folded.modules())
    x = torch.randn(1, network.in_channels, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        ours, theirs = folded(x).logits, network(x).logits
    assert (ours - theirs).abs().max() <= 1e-9 * theirs.abs().max()
    layer = StandardisedConvolution(2, 2, 3, stride=2)
    shared = nn.Sequential(layer, nn.Sequential(layer))
    assert fold_weights(shared)[0] is not layer
    assert isinstance(fold_weights(shared)[0], StandardisedConvolution)
    kept = fold_weights(nn.Sequential(layer, nn.ReLU()), keep=["0"])
    assert isinstance(kept[0], StandardisedConvolution)


def pair() -> list[nn.Module]:
    return [nn.Conv2d(2, 2, 3), nn.BatchNorm2d(2)]


def test_what_is_kept() -> None:
    stack = nn.Sequential(nn.Sequential(*pair()), nn.Sequential(*pair()), nn.Sequential(*pair()))
    assert norms(fold_weights(stack)) == 0
    assert norms(fold_weights(stack, keep=["0.0", "1.1"])) == 2
    assert norms(fold_weights(stack, keep=["2"])) == 0


def test_shared_layers_and_other_orders_are_left_alone() -> None:
    convolution, norm = pair()
    shared = nn.Sequential(nn.Sequential(convolution, norm), nn.Sequential(convolution, nn.ReLU()))
    assert norms(fold_weights(shared)) == 1

    class Backwards(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return self[0](self[1](x))

    assert norms(fold_weights(Backwards(*pair()))) == 1
    unfollowed = nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2, track_running_stats=False))
    assert norms(fold_weights(unfollowed)) == 1


def test_transposed_convolutions_fold_too() -> None:
    torch.manual_seed(0)
    up = nn.Sequential(nn.ConvTranspose2d(3, 2, 2, stride=2), nn.BatchNorm2d(2)).double()
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    calibrate(up, x)
    folded = fold_weights(up)
    assert norms(folded) == 0
    assert torch.allclose(folded(x), up(x), atol=1e-12)
