from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from segweave.data.augmentations.geometry import Geometry
from segweave.data.batches import Batch, Batches
from segweave.data.cache import Resized
from segweave.data.inputs import network_label, network_slice, window_indices
from segweave.data.specs import InputSpec, TargetSpec
from segweave.data.store import Store
from segweave.data.store_writer import StoreWriter
from segweave.errors import InputError, UsageError
from tests.data.made import TARGET, made_case, made_store

SPEC = InputSpec(size=(8, 8), slices=3)
MUCH = Geometry(rotation=30, scale=0.2, mirror=True)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return made_store(tmp_path_factory.mktemp("batches") / "s", count=5, slices=4)


def _same(first: Batch, second: Batch) -> None:
    assert first.keys == second.keys
    assert torch.equal(first.image, second.image)
    assert torch.equal(first.label, second.label)


def test_windows_are_those_of_the_slices(store: Store) -> None:
    for edge in ("repeat", "released"):
        spec = SPEC.model_copy(update={"edge": edge})
        batches = Batches(Resized(store, spec), batch_size=3, seed=0)
        for batch in batches.epoch(0):
            assert batch.image.dtype == torch.float32
            assert batch.label.dtype == torch.int64
            for number, (id, index) in enumerate(batch.keys):
                case = store.case(id)
                window = window_indices(case.slices, index, 3, edge)
                expected = np.stack([network_slice(case, k, spec) for k in window])
                np.testing.assert_array_equal(batch.image[number].numpy(), expected)
                np.testing.assert_array_equal(
                    batch.label[number].numpy(), network_label(case, index, spec)
                )


def test_an_epoch_has_every_slice_once(store: Store) -> None:
    batches = Batches(Resized(store, SPEC), batch_size=8, seed=3, augmentation=MUCH)
    assert len(batches) == 3
    epoch = list(batches.epoch(0))
    assert [len(batch.keys) for batch in epoch] == [8, 8, 4]
    assert Counter(key for batch in epoch for key in batch.keys) == Counter(batches.samples)
    cut = Batches(Resized(store, SPEC), batch_size=8, seed=3, keep_last=False)
    assert len(cut) == 2
    assert [batch.keys for batch in cut.epoch(0)] == [batch.keys for batch in epoch[:2]]
    assert [key for batch in batches.epoch(1) for key in batch.keys] != [
        key for batch in epoch for key in batch.keys
    ]


@pytest.mark.parametrize("augmentation", [None, MUCH, Geometry(odds="released")])
def test_any_step_can_be_entered_again(store: Store, augmentation: Geometry | None) -> None:
    def batches() -> Batches:
        return Batches(Resized(store, SPEC), batch_size=3, seed=1, augmentation=augmentation)

    for epoch in (0, 2):
        whole = list(batches().epoch(epoch))
        for start in range(len(whole) + 1):
            rest = list(batches().epoch(epoch, start))
            assert len(rest) == len(whole) - start
            for first, second in zip(whole[start:], rest, strict=True):
                _same(first, second)


def test_nothing_depends_on_the_batch_layout_or_the_order_of_cases(store: Store) -> None:
    def samples(batches: Batches) -> list[tuple[tuple[str, int], torch.Tensor, torch.Tensor]]:
        return [
            (key, batch.image[k], batch.label[k])
            for batch in batches.epoch(1)
            for k, key in enumerate(batch.keys)
        ]

    first = samples(Batches(Resized(store, SPEC), batch_size=2, seed=7, augmentation=MUCH))
    backwards = Resized(store, SPEC, store.ids[::-1])
    second = samples(Batches(backwards, batch_size=7, seed=7, augmentation=MUCH))
    for (key, image, label), (other, image2, label2) in zip(first, second, strict=True):
        assert key == other
        torch.testing.assert_close(image, image2, rtol=0, atol=1e-6)
        assert torch.equal(label, label2)


def test_seeds_differ_and_arms_with_one_seed_see_the_same(store: Store) -> None:
    one = Batches(Resized(store, SPEC), batch_size=4, seed=0, augmentation=MUCH)
    again = Batches(Resized(store, SPEC), batch_size=4, seed=0, augmentation=MUCH)
    other = Batches(Resized(store, SPEC), batch_size=4, seed=1, augmentation=MUCH)
    single = Batches(
        Resized(store, SPEC.model_copy(update={"slices": 1})),
        batch_size=4,
        seed=0,
        augmentation=MUCH,
    )
    first = next(one.epoch(0))
    _same(first, next(again.epoch(0)))
    assert next(other.epoch(0)).keys != first.keys
    alone = next(single.epoch(0))
    # An arm that sees one slice sees the middle of the other's window.
    assert alone.keys == first.keys
    torch.testing.assert_close(alone.image[:, 0], first.image[:, 1], rtol=0, atol=1e-6)
    assert torch.equal(alone.label, first.label)


def test_without_shuffling_slices_come_in_order(store: Store) -> None:
    batches = Batches(Resized(store, SPEC), batch_size=20, seed=0, shuffle=False)
    assert next(batches.epoch(5)).keys == [(id, k) for id in sorted(store.ids) for k in range(4)]


def test_gaps_are_not_crossed(tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "s", "made", TARGET) as writer:
        writer.add(replace(made_case("a"), gaps=(2,)))
        resized = Resized(writer.finish(), SPEC)
    batch = next(Batches(resized, batch_size=4, seed=0, shuffle=False).epoch(0))
    np.testing.assert_array_equal(batch.image[1, 2].numpy(), resized["a"].image[1])
    np.testing.assert_array_equal(batch.image[2, 0].numpy(), resized["a"].image[2])


def test_one_slice_repeats(tmp_path: Path) -> None:
    resized = Resized(made_store(tmp_path / "s", count=1, slices=1), SPEC)
    batch = next(Batches(resized, batch_size=4, seed=0).epoch(0))
    assert torch.equal(batch.image[0, 0], batch.image[0, 2])


def test_overlapping_labels_keep_their_classes(tmp_path: Path) -> None:
    target = TargetSpec(kind="overlapping", names=("a", "b"))
    label = np.random.default_rng(0).integers(0, 2, (4, 2, 10, 12)).astype(np.uint8)
    with StoreWriter(tmp_path / "s", "made", target) as writer:
        writer.add(replace(made_case("a"), label=label))
        resized = Resized(writer.finish(), SPEC)
    batch = next(Batches(resized, batch_size=4, seed=0, augmentation=MUCH).epoch(0))
    assert batch.label.shape == (4, 2, 8, 8)
    assert set(batch.label.unique().tolist()) == {0, 1}


def test_wrong_uses(store: Store, tmp_path: Path) -> None:
    resized = Resized(store, SPEC)
    with pytest.raises(UsageError, match="batch size"):
        Batches(resized, batch_size=0, seed=0)
    with pytest.raises(UsageError, match="short batch"):
        Batches(resized, batch_size=21, seed=0, keep_last=False)
    with pytest.raises(UsageError, match="a step in"):
        next(Batches(resized, batch_size=4, seed=0).epoch(0, 6))
    with StoreWriter(tmp_path / "s", "made", TARGET) as writer:
        writer.add(made_case("a"))
        writer.add(made_case("b", size=(12, 12)))
        mixed = writer.finish()
    spec = InputSpec(size=None, spacing=(1.5, 1.5))
    with pytest.raises(InputError, match="10 × 12, 12 × 12"):
        Batches(Resized(mixed, spec), batch_size=2, seed=0)


def test_tiles_are_cut_at_random_from_slices_of_any_size(tmp_path: Path) -> None:
    sizes = {"large": (20, 14), "wide": (5, 18)}
    with StoreWriter(tmp_path / "s", "sizes", TARGET) as writer:
        for id, size in sizes.items():
            writer.add(made_case(id, slices=3, size=size))
        store = writer.finish({})
    spec = InputSpec(size=(8, 8), slices=3, fit="tile")
    resized = Resized(store, spec)
    assert resized.size == (8, 8)
    batches = Batches(resized, batch_size=6, seed=0)
    found = set()
    for epoch in range(12):
        (batch,) = batches.epoch(epoch)
        _same(batch, next(Batches(resized, batch_size=6, seed=0).epoch(epoch)))
        assert batch.image.shape == (6, 3, 1, 8, 8)
        for number, (id, index) in enumerate(batch.keys):
            case, image = store.case(id), batch.image[number].numpy()
            rows, columns = sizes[id]
            window = window_indices(3, index, 3, spec.edge)
            whole = np.stack([network_slice(case, k, spec) for k in window])
            top, inside = (0, slice(None)) if id == "large" else (None, slice(1, 6))
            places = [
                (y, x)
                for y in ([0] if top is None else range(rows - 7))
                for x in range(columns - 7)
                if (whole[..., y : y + 8, x : x + 8] == image[..., inside, :]).all()
            ]
            assert len(places) == 1, (id, places)
            ((y, x),) = places
            found.add((id, y, x))
            label = network_label(case, index, spec)[y : y + 8, x : x + 8]
            np.testing.assert_array_equal(batch.label[number].numpy()[inside], label)
            if id == "wide":
                assert (image[..., [0, 6, 7], :] == resized[id].outside[0]).all()
                assert (batch.label[number].numpy()[[0, 6, 7]] == 0).all()
    assert {x for id, _, x in found if id == "large"} == set(range(7))
    assert len({y for id, y, _ in found if id == "large"}) > 6


def test_tiles_can_be_turned(tmp_path: Path) -> None:
    store = made_store(tmp_path / "s", count=2, slices=2)
    spec = InputSpec(size=(6, 6), fit="tile")
    batches = Batches(Resized(store, spec), batch_size=4, seed=0, augmentation=MUCH)
    (batch,) = batches.epoch(0)
    assert batch.image.shape == (4, 1, 1, 6, 6)
    _same(batch, next(batches.epoch(0)))
