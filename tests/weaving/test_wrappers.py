"""Tiles, narrowing and plain modules, each against the same thing written out."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segweave.context import create_context
from segweave.errors import UsageError
from segweave.weaving import weave
from segweave.weaving.wrappers import Narrowed, Plain, Tiled
from tests.weaving.toy import ToyNetwork, Weighted, one_sided, settle


@settings(max_examples=20, deadline=None)
@given(
    tiles=st.integers(1, 3),
    batch=st.integers(1, 2),
    height=st.integers(1, 3),
    width=st.integers(1, 3),
)
def test_tiles_are_read_in_order_and_put_back(
    tiles: int, batch: int, height: int, width: int
) -> None:
    inner = one_sided(2).double()
    x = torch.rand(batch, 2, tiles * height, tiles * width, dtype=torch.float64)
    found = Tiled(inner, tiles)(x[:, None])
    cut = [
        x[..., r * height : (r + 1) * height, c * width : (c + 1) * width]
        for r in range(tiles)
        for c in range(tiles)
    ]
    for place, (r, c) in enumerate((r, c) for r in range(tiles) for c in range(tiles)):
        expected = inner(torch.stack(cut[: place + 1], 1))
        own = found[..., r * height : (r + 1) * height, c * width : (c + 1) * width]
        torch.testing.assert_close(own, expected)


@pytest.mark.parametrize("name", ["sa-lstm", "conv", "mean"])
def test_tiles_in_a_network(name: str) -> None:
    torch.manual_seed(0)
    made = settle(weave(ToyNetwork(), name, slices=1, tiles=2))
    image = torch.rand(2, 1, 8, 12, dtype=torch.float64)
    found = made(image).logits
    torch.testing.assert_close(made.fuse([made.prepare(image)]).logits, found)
    whole = settle(weave(made.network, name, slices=1))
    assert not torch.allclose(whole(image).logits, found)
    features = made.network.encode(image)
    first = features.bottleneck[..., :2, :3]
    woven = made.context[0](features.bottleneck[:, None])
    torch.testing.assert_close(woven[..., :2, :3], made.context[0].inner(first[:, None]))


def test_a_map_that_cannot_be_cut_names_tiles_that_can() -> None:
    made = weave(ToyNetwork(), one_sided, slices=1, tiles=2)
    with pytest.raises(UsageError, match=r"tiles=3, or resize"):
        made(torch.rand(1, 1, 6, 12))
    with pytest.raises(UsageError, match=r"tiles=1"):
        made(torch.rand(1, 1, 6, 10))
    with pytest.raises(UsageError, match="3 slices"):
        made(torch.rand(1, 3, 1, 8, 8))


def test_narrowed_reads_states_through() -> None:
    inner = create_context("sa-lstm", 3, out_channels=5, both_sides=True, kernel_size=3)
    module = Narrowed(5, inner)
    sequence = torch.rand(2, 3, 5, 4, 4)
    steps = torch.stack([module.narrow(x) for x in sequence.unbind(1)], 1)
    torch.testing.assert_close(module(sequence), inner(steps))
    torch.testing.assert_close(
        module.fuse([module.prepare(x) for x in sequence.unbind(1)]), module(sequence)
    )
    assert torch.equal(module.states(sequence, ["output"])["output"], module(sequence))


def test_plain_gives_the_whole_sequence() -> None:
    inner = Weighted(2)
    module = Plain(inner, 2, 2, both_sides=True)
    sequence = torch.rand(1, 3, 2, 4, 4)
    torch.testing.assert_close(
        module.fuse([module.prepare(x) for x in sequence.unbind(1)]), inner(sequence)
    )
