"""What a training refuses, before it has written anything."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from segweave.data.store import Store
from segweave.data.store_writer import StoreWriter
from segweave.errors import InputError, SegweaveError, UsageError
from segweave.training import Run, train
from tests.training import toy
from tests.training.toy import run_of


def test_another_recipe_in_the_folder_is_refused_and_named(finished: Run, store: Store) -> None:
    other = toy.recipe(training__epochs=13, seed=5)
    with pytest.raises(UsageError) as caught:
        train(other, store, finished.folder, score=toy.score)
    assert "training.epochs: 12 there, 13 now" in str(caught.value)
    assert "seed: 0 there, 5 now" in str(caught.value)
    with pytest.raises(UsageError, match="a run"):
        train(finished.recipe, store, finished.folder, score=toy.score, resume=False)


def test_other_data_is_refused(finished: Run, binary_store: Store) -> None:
    with pytest.raises(InputError, match="checksum"):
        train(finished.recipe, binary_store, finished.folder, score=toy.score)


def test_a_folder_with_other_things_is_left_alone(store: Store, out: Path) -> None:
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"thesis\.txt"):
        run_of(store, out)
    assert [path.name for path in out.iterdir() if not path.name.startswith(".")] == ["thesis.txt"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data__split": "toi"}, "did you mean toy"),
        ({"data__training": "trian"}, "did you mean train"),
        ({"data__validation": "train"}, "every group in one part"),
        ({"network__name": "unett"}, "did you mean unet"),
        ({"network__options": {"widht": 3}}, "did you mean width"),
        ({"context": {"name": "sa-lstn"}}, "did you mean sa-lstm"),
        ({"training__loss": [{"name": "dicee"}]}, "did you mean dice"),
        ({"input__channels": ["red", "green"]}, "2 \\(red, green\\)"),
        ({"input__size": [18, 16]}, r"input\.size: \[16, 16\]"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(
    store: Store, out: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(SegweaveError, match=message):
        run_of(store, out, **changes)
    assert not out.exists()


def test_a_split_that_cuts_patients_is_trained_on_where_its_name_says_so(tmp_path: Path) -> None:
    one = toy.write_store(tmp_path / "one")
    parts = {"train": ["a", "b"], "valid": ["c"], "test": ["d"]}
    with StoreWriter(tmp_path / "two", "toy", one.target) as writer:
        for id in "abcd":
            writer.add(replace(one.case(one.ids[0]), id=id, group="p"))
        store = writer.finish({"toy-leaks": parts})
    recipe = toy.recipe(data__split="toy-leaks")
    assert recipe.choose_parts(store)["validation"] == ["c"]
    with pytest.raises(UsageError, match="every case in one part"):
        toy.recipe(data__split="toy-leaks", data__validation="train").choose_parts(store)


@pytest.mark.parametrize("part", ["train", "valid"])
def test_a_store_with_flipped_bits_is_refused(tmp_path: Path, part: str) -> None:
    store = toy.write_store(tmp_path / "store")
    record = store.entry(store.splits["toy"][part][0]).record
    array = store.path / "records" / record / "label.npy"
    raw = bytearray(array.read_bytes())
    raw[-3] ^= 1
    array.write_bytes(raw)
    with pytest.raises(InputError, match="checksum"):
        run_of(store, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("empty", ["training", "validation"])
def test_labels_of_background_alone_are_refused_before_anything_is_written(
    store: Store, tmp_path: Path, empty: str
) -> None:
    parts = store.splits["toy"]
    bare = parts["train" if empty == "training" else "valid"]
    with StoreWriter(tmp_path / "bare", "bare", store.target) as writer:
        for id in store.ids:
            case = store.case(id)
            assert case.label is not None
            writer.add(replace(case, label=np.zeros_like(case.label)) if id in bare else case)
        made = writer.finish({"toy": parts})
    with pytest.raises(InputError, match=f"one {empty} case whose label holds a class"):
        run_of(made, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_missing_score_is_refused(store: Store, out: Path) -> None:
    with pytest.raises(UsageError, match="scores the validation cases"):
        train(toy.recipe(), store, out, score=None)
    with pytest.raises(UsageError, match='a score named "dice"'):
        train(toy.recipe(), store, out, score=lambda *_: {"iou": 1.0})


def test_a_loss_that_is_not_finite_stops_and_names_the_step(store: Store, out: Path) -> None:
    changes = {
        "training__optimiser": {"name": "sgd", "rate": 1e30},
        "training__schedule": {"name": "constant"},
    }
    with pytest.raises(SegweaveError, match=r"(nan|inf) at optimiser step \d+ \(epoch 1\)"):
        run_of(store, out, **changes)
    assert not (out / "model").exists()


@pytest.mark.parametrize(
    ("batch", "changes"),
    [
        (1, {}),
        (19, {"training__scales": [2.0, 1.0]}),  # of 20 slices one is left over
    ],
)
def test_a_batch_of_one_on_the_smallest_map_is_refused_with_a_remedy_that_works(
    store: Store, out: Path, batch: int, changes: dict[str, object]
) -> None:
    deep: dict[str, object] = {
        "network": {"name": "unet", "options": {"width": 2, "levels": 5}},
        "training__epochs": 1,
        **changes,
    }
    with pytest.raises(UsageError, match="a batch of one slice at 16 × 16") as caught:
        run_of(store, out, training__batch_size=batch, **deep)
    assert not (out / "recipe.yaml").exists()
    larger = re.search(r"training\.batch_size=(\d+)", str(caught.value))
    size = re.search(r"input\.size=\[(\d+),(\d+)\]", str(caught.value))
    assert larger is not None
    assert size is not None
    run_of(store, out.parent / "a", training__batch_size=int(larger[1]), **deep)
    deep["input__size"] = [int(size[1]), int(size[2])]
    run_of(store, out.parent / "b", training__batch_size=batch, **deep)
