"""Folding batch norms changes the speed, not the numbers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from segweave import registry
from segweave.networks import create_network
from segweave.prediction.folding import fold_batch_norms
from tests.reference.fill import calibrate

NAMES = sorted(registry.networks.cards())


def norms(module: nn.Module) -> int:
    return sum(isinstance(m, nn.BatchNorm2d) for m in module.modules())


@pytest.mark.parametrize("name", NAMES)
def test_a_folded_network_computes_the_same(name: str) -> None:
    torch.manual_seed(0)
    card = registry.networks.card(name)
    network = create_network(name, **card.tiny_options).double()
    side = card.fixed or 2 * card.smallest
    x = torch.randn(2, 3, side, side, dtype=torch.float64)
    calibrate(network, x)
    with torch.no_grad():
        for norm in (m for m in network.modules() if isinstance(m, nn.BatchNorm2d)):
            norm.weight.uniform_(0.5, 2)
            norm.bias.uniform_(-1, 1)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    folded = fold_batch_norms(network)
    assert type(folded) is type(network)
    expected = network(x).logits
    # MT-UNet amplifies rounding about sixty times.
    assert (folded(x).logits - expected).abs().max() <= 1e-9 * expected.abs().max()
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    if name in ("unet", "mt-unet"):
        assert norms(network) > 0
        assert norms(folded) == 0


def pair() -> list[nn.Module]:
    return [nn.Conv2d(2, 2, 3), nn.BatchNorm2d(2)]


def test_what_is_kept() -> None:
    stack = nn.Sequential(nn.Sequential(*pair()), nn.Sequential(*pair()), nn.Sequential(*pair()))
    assert norms(fold_batch_norms(stack)) == 0
    assert norms(fold_batch_norms(stack, keep=["0.0", "1.1"])) == 2
    assert norms(fold_batch_norms(stack, keep=["2"])) == 0


def test_shared_layers_and_other_orders_are_left_alone() -> None:
    convolution, norm = pair()
    shared = nn.Sequential(nn.Sequential(convolution, norm), nn.Sequential(convolution, nn.ReLU()))
    assert norms(fold_batch_norms(shared)) == 1

    class Backwards(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return self[0](self[1](x))

    assert norms(fold_batch_norms(Backwards(*pair()))) == 1
    unfollowed = nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2, track_running_stats=False))
    assert norms(fold_batch_norms(unfollowed)) == 1


def test_transposed_convolutions_fold_too() -> None:
    torch.manual_seed(0)
    up = nn.Sequential(nn.ConvTranspose2d(3, 2, 2, stride=2), nn.BatchNorm2d(2)).double()
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    calibrate(up, x)
    folded = fold_batch_norms(up)
    assert norms(folded) == 0
    assert torch.allclose(folded(x), up(x), atol=1e-12)
