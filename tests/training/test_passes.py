"""Which batches and scales make an optimiser step."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from segweave.data.batches import Batch, Batches
from segweave.data.cache import Resized
from segweave.data.store import Store
from segweave.training.passes import Passes, nearest, resize_batch
from tests.training import toy


class Counted:
    """Batches of a fixed number and size."""

    def __init__(self, count: int, size: tuple[int, int] = (352, 352)) -> None:
        self.count = count
        self.resized: Any = SimpleNamespace(size=size)

    def __len__(self) -> int:
        return self.count


@given(count=st.integers(1, 12), accumulate=st.integers(1, 7), scales=st.integers(1, 4))
def test_an_epoch_has_every_batch_at_every_scale_once(
    count: int, accumulate: int, scales: int
) -> None:
    several = [1 + 0.25 * k for k in range(scales)]
    passes = Passes(Counted(count), accumulate=accumulate, scales=several)  # type: ignore[arg-type]
    assert passes.steps_per_epoch == -(-count * scales // accumulate)
    for epoch in (0, 3):
        first = epoch * passes.steps_per_epoch
        steps = [passes.of_step(first + k) for k in range(passes.steps_per_epoch)]
        assert all(len(step) == accumulate for step in steps[:-1])
        assert 1 <= len(steps[-1]) <= accumulate
        one = list(itertools.chain(*steps))
        assert [(p.number, p.scale) for p in one] == list(itertools.product(range(count), several))
        assert {p.epoch for p in one} == {epoch}
        assert [p.last for p in one] == [p.scale == several[-1] for p in one]


def test_one_scale_is_drawn_for_each_batch() -> None:
    scales = [0.75, 1, 1.25]

    def drawn(seed: int) -> list[list[float]]:
        passes = Passes(Counted(40), accumulate=2, scales=scales, one_scale_seed=seed)  # type: ignore[arg-type]
        assert passes.steps_per_epoch == 20
        steps = [[one for k in range(20) for one in passes.of_step(20 * e + k)] for e in (0, 1)]
        for epoch in steps:
            assert [one.number for one in epoch] == list(range(40))
            assert all(one.last for one in epoch)
        return [[one.scale for one in epoch] for epoch in steps]

    first, second = drawn(0)
    assert drawn(0) == [first, second]  # whatever step is entered
    assert first != second
    assert drawn(1)[0] != first
    assert min(first.count(scale) for scale in scales) >= 5


def test_sizes_are_those_of_pranet() -> None:
    passes = Passes(Counted(1), scales=[0.75, 1, 1.25], divisor=32)  # type: ignore[arg-type]
    assert [passes.size_at(scale) for scale in passes.scales] == [
        (256,) * 2,
        (352,) * 2,
        (448,) * 2,
    ]
    tiny = Passes(Counted(1, (20, 24)), divisor=8, smallest=20)  # type: ignore[arg-type]
    assert tiny.size_at(0.5) == (24, 24)
    assert tiny.size_at(1) == (20, 24)  # unchanged, whatever the divisor


def test_a_batch_is_read_once_for_all_its_scales(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = toy.recipe()
    batches = Batches(
        Resized(store, recipe.input, store.splits["toy"]["train"]),
        batch_size=4,
        seed=0,
        augmentation=recipe.training.augmentation,
    )
    read: list[object] = []
    original = Batches.batch

    def watched(self: Batches, keys: Any, epoch: int, masks: Any = None) -> Batch:
        read.append((epoch, keys))
        return original(self, keys, epoch, masks)

    monkeypatch.setattr(Batches, "batch", watched)
    passes = Passes(batches, accumulate=2, scales=[0.5, 1, 1.5], divisor=2)
    seen = []
    for step in range(2 * passes.steps_per_epoch):
        for one in passes.of_step(step):
            batch = passes.read(one)
            seen.append(tuple(batch.image.shape[-2:]))
            assert batch.label.shape == (len(batch.keys), *batch.image.shape[-2:])
    assert seen == [(8, 8), (16, 16), (24, 24)] * 10
    assert len(read) == 10
    expected = [(epoch, keys) for epoch in (0, 1) for keys in batches.keys(epoch)]
    assert read == expected
    # Entered in the middle of a batch, the same comes.
    again = Passes(batches, accumulate=2, scales=[0.5, 1, 1.5], divisor=2)
    middle = passes.of_step(1)[0]
    assert middle.scale == 1.5
    assert torch.equal(again.read(middle).image, passes.read(middle).image)


def test_labels_and_masks_are_resized_by_nearest_neighbour() -> None:
    label = torch.arange(16).reshape(1, 4, 4)
    larger = nearest(label, (8, 8))
    assert torch.equal(larger, label.repeat_interleave(2, 1).repeat_interleave(2, 2))
    assert torch.equal(nearest(larger, (4, 4)), label)
    image = torch.arange(16.0).reshape(1, 1, 1, 4, 4)
    batch = Batch(image, label, [("a", 0)], masks=label[:, None, None].float())
    assert resize_batch(batch, (4, 4)) is batch
    smaller = resize_batch(batch, (2, 2))
    torch.testing.assert_close(
        smaller.image[0, 0, 0], torch.nn.functional.avg_pool2d(image[0, 0], 2)[0]
    )
    assert smaller.label.shape == (1, 2, 2)
    assert smaller.masks is not None
    assert torch.equal(smaller.masks[:, 0, 0].long(), smaller.label)
