"""DCSAU-Net against the released numbers, and its rules."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from segweave.blocks.conv_norm import fold_weights
from segweave.errors import UsageError
from segweave.networks import create_network
from segweave.networks.dcsau_net import SplitAttention
from tests.networks.agreement import Agreement, files_of, matched, read_spec

FILES = files_of("dcsau-net")


def build(spec: dict[str, Any]) -> nn.Module:
    return create_network("dcsau-net", in_channels=3, classes=spec["num_classes"])


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_agrees_in_float64(name: str) -> None:
    Agreement(name, build, torch.float64, gradients=True).assert_agrees()


def test_the_reference_files_are_here() -> None:
    assert {"dcsau-net", "dcsau-net@75x101"} == set(FILES)


def test_the_released_names_are_complete() -> None:
    network, report = matched("dcsau-net", build)
    assert len(report.matched) == len(read_spec("dcsau-net")["state_dict"])
    assert report.missing == report.unexpected == report.dead == ()
    assert sum(p.numel() for p in network.parameters()) == read_spec("dcsau-net")["parameter_count"]


@pytest.mark.parametrize("size", [(16, 16), (17, 31), (33, 48)])
def test_any_size_works(size: tuple[int, int]) -> None:
    network = create_network("dcsau-net", width=8, classes=3).eval()
    assert network(torch.randn(1, 3, *size)).logits.shape == (1, 3, *size)


def test_the_weights_of_the_two_branches_sum_to_one() -> None:
    torch.manual_seed(0)
    block = SplitAttention(4).double().eval()
    with torch.no_grad():
        block.again[0].weight.zero_()
        block.again[1].bias.zero_()
        x = torch.randn(2, 4, 6, 6, dtype=torch.float64)
        a, _ = block.split(x).chunk(2, dim=1)
        block.excite.weight.zero_()
        block.excite.bias.zero_()
        # Equal weights for the branches; the second is zero.
        assert torch.allclose(block(x), a / 2)


def test_instances_share_nothing() -> None:
    """In the released code all models of a process share the weights of their stages."""
    first, second = (create_network("dcsau-net", width=8) for _ in range(2))
    assert not {id(p) for p in first.parameters()} & {id(p) for p in second.parameters()}


def test_a_batch_of_one_image_trains() -> None:
    """The last batch of an epoch may have one image, where the released code fails."""
    torch.manual_seed(0)
    network = create_network("dcsau-net", width=8).train()
    norm = network.encoder[0][0].attention.squeeze[1]
    before = norm.running_mean.clone()
    x = torch.randn(1, 3, 32, 32)
    network(x).logits.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    assert torch.equal(norm.running_mean, before)
    network(torch.randn(2, 3, 32, 32))
    assert not torch.equal(norm.running_mean, before)


def test_with_one_image_the_running_statistics_hold() -> None:
    torch.manual_seed(0)
    block = SplitAttention(4).double()
    block(torch.randn(4, 4, 6, 6, dtype=torch.float64))
    block.eval()
    block.squeeze[1].train()
    x = torch.randn(1, 4, 6, 6, dtype=torch.float64)
    alone = block(x)
    assert torch.equal(alone, block.eval()(x))


@pytest.mark.parametrize("width", [0, 4, 12])
def test_impossible_widths_are_refused(width: int) -> None:
    with pytest.raises(UsageError, match="8 divides"):
        create_network("dcsau-net", width=width)


def test_one_image_goes_through_the_folded_network() -> None:
    """Prediction and validation fold the norms; a folded norm has no mode of training."""
    network = create_network("dcsau-net", in_channels=3, classes=1, width=8).eval()
    image = torch.rand(1, 3, 32, 32)
    folded = fold_weights(network)
    with torch.no_grad():
        torch.testing.assert_close(folded(image).logits, network(image).logits)
