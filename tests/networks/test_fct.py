"""FCT against the released numbers, and its rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from segweave import registry
from segweave.errors import UsageError
from segweave.networks import Output, create_network
from segweave.networks.base import Decoded, Size
from segweave.networks.fct import DEEP, FCT, PixelAttention
from tests.networks.agreement import Agreement, files_of, matched, read_spec

FILES = files_of("fct")
TINY = registry.networks.card("fct").tiny_options


def build(spec: dict[str, Any]) -> nn.Module:
    """The file holds each head's map at its own size."""
    network = create_network("fct", in_channels=1, classes=spec["num_classes"])
    assert isinstance(network, FCT)

    def at_own_sizes(decoded: Decoded, size: Size, auxiliary: bool) -> Output:
        *deep, last = network.heads
        maps = {name: head(decoded.extra[name]) for name, head in zip(DEEP, deep, strict=True)}
        return Output(last(decoded.map), maps)

    network.head = at_own_sizes  # type: ignore[method-assign]
    return network


def outputs(output: Output, spec: dict[str, Any]) -> Sequence[Tensor]:
    return [one.sigmoid() for one in (*output.auxiliary.values(), output.logits)]


def test_the_reference_files_are_here() -> None:
    assert set(FILES) == {"fct", "fct@64x64"}


@pytest.mark.parametrize("name", FILES)
def test_agrees_in_float64(name: str) -> None:
    agreement = Agreement(name, build, torch.float64, gradients=True, outputs=outputs)
    assert len(agreement.values) == 4
    agreement.assert_agrees()


def test_the_released_names_are_complete() -> None:
    spec = read_spec("fct")
    network, report = matched("fct", build)
    assert len(report.matched) == len(spec["state_dict"])
    assert report.missing == report.unexpected == report.dead == ()
    assert sum(p.numel() for p in network.parameters()) == spec["parameters"]


def test_the_attention_is_torchs_with_one_head() -> None:
    torch.manual_seed(0)
    ours = PixelAttention(6).double()
    theirs = nn.MultiheadAttention(6, 1, batch_first=True).double()
    theirs.load_state_dict({name: ours.state_dict()[name] for name in theirs.state_dict()})
    x = torch.randn(2, 6, 3, 5).double()
    tokens = [projection(x).flatten(2).mT for projection in ours.projections]
    expected = theirs(*tokens, need_weights=False)[0].mT.reshape(x.shape)
    assert torch.allclose(ours(x), expected)


def test_one_channel_is_seen_through_averages_alone() -> None:
    torch.manual_seed(0)
    network = create_network("fct", in_channels=1, **TINY).double().eval()
    first, second = torch.randn(2, 1, 1, 64, 96).double()
    average = nn.functional.avg_pool2d(second - first, 2).repeat_interleave(2, 2)
    finer = second - average.repeat_interleave(2, 3)  # differs within 2×2 pixels alone
    logits = network(first).logits
    assert torch.equal(network.encode(first).skips[0], network.encode(second).skips[0])
    assert torch.allclose(network(finer).logits, logits)
    assert not torch.allclose(network(second).logits, logits)
    colour = create_network("fct", in_channels=3, **TINY).double().eval()
    x = torch.randn(2, 3, 32, 32).double()
    assert not torch.allclose(colour.encode(x).skips[0][0], colour.encode(x).skips[0][1])


def test_dropout_acts_in_training_alone() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 3, 32, 32)
    network = create_network("fct", **TINY)
    assert not torch.equal(network(x).logits, network(x).logits)
    without = create_network("fct", **TINY, dropout=0.0, focus_dropout=0.0)
    without.load_state_dict(network.state_dict())
    assert torch.equal(without(x).logits, network.eval()(x).logits)


def test_a_width_below_1_is_refused() -> None:
    with pytest.raises(UsageError, match="width at least 1"):
        create_network("fct", width=0)
