from __future__ import annotations

import multiprocessing
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from segweave.data.cache import Resized
from segweave.data.inputs import network_label, network_slice
from segweave.data.specs import InputSpec
from segweave.data.store import Store
from segweave.data.store_writer import StoreWriter
from segweave.errors import InputError, SegweaveError, UsageError
from tests.data.made import TARGET, made_case, made_store

SPEC = InputSpec(size=(8, 6), slices=3)


def test_it_holds_exactly_what_prediction_computes(tmp_path: Path) -> None:
    store = made_store(tmp_path / "s")
    calls: list[tuple[float, float, str]] = []
    resized = Resized(store, SPEC, progress=lambda *call: calls.append(call))
    assert calls == [(1, 3, "case0"), (2, 3, "case1"), (3, 3, "case2")]
    assert resized.size == (8, 6)
    for id in store.ids:
        case, copy = store.case(id), resized[id]
        for index in range(case.slices):
            np.testing.assert_array_equal(copy.image[index], network_slice(case, index, SPEC))
            np.testing.assert_array_equal(copy.label[index], network_label(case, index, SPEC))
    half = Resized(store, SPEC, ["case1"], dtype="float16")["case1"]
    assert half.image.dtype == np.float16
    np.testing.assert_allclose(half.image, resized["case1"].image, atol=2e-3)


def _times(folder: Path) -> dict[str, int]:
    return {p.name: p.stat().st_mtime_ns for p in folder.iterdir() if p.is_dir()}


def test_copies_are_used_again_and_keyed(tmp_path: Path) -> None:
    store = made_store(tmp_path / "s")
    Resized(store, SPEC)
    before = _times(store.cache_folder("case0"))
    assert len(before) == 3
    # Slices and edge rule change no slice, so they share the copies.
    Resized(store, SPEC.model_copy(update={"slices": 1, "edge": "released"}))
    assert _times(store.cache_folder("case0")) == before
    for other in ({"size": (8, 8)}, {"normalisation": "case-minmax"}, {"fit": "pad"}):
        assert Resized(store, SPEC.model_copy(update=other), ["case0"]).key("case0") not in before
    assert Resized(store, SPEC, ["case0"], dtype="float16").key("case0") not in before
    changed = replace(made_case("case0"), image=made_case("case0").image + 1)
    with StoreWriter(tmp_path / "s", "made", TARGET, overwrite=True) as writer:
        writer.add(changed)
        writer.finish()
    assert Resized(Store(tmp_path / "s"), SPEC).key("case0") not in before


@pytest.mark.parametrize("name", ["image.npy", "label.npy", "outside.npy"])
@pytest.mark.parametrize("damage", ["missing", "truncated", "changed"])
def test_damaged_copies_are_made_again(tmp_path: Path, name: str, damage: str) -> None:
    store = made_store(tmp_path / "s")
    resized = Resized(store, SPEC, ["case0"])
    whole = np.array(resized["case0"].image)
    path = resized.path_of("case0") / name
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        os.truncate(path, path.stat().st_size - 1)
    else:
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 255]))
    np.testing.assert_array_equal(Resized(store, SPEC, ["case0"])["case0"].image, whole)


def test_where_the_store_cannot_be_written_copies_are_made_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = made_store(tmp_path / "s")
    beside = store.cache_folder("case0")
    first = Resized(store, SPEC, ["case0", "case1"])
    damaged = first.path_of("case1") / "image.npy"
    whole = {id: np.array(first[id].image) for id in first.ids}
    damaged.write_bytes(damaged.read_bytes()[:-1])
    before = {path: path.read_bytes() for path in beside.rglob("*.npy")}
    monkeypatch.setattr("segweave.data.cache.can_write", lambda folder: folder != beside)
    for _ in range(2):
        resized = Resized(store, SPEC, instead=tmp_path / "run" / ".resized")
        for id, image in whole.items():
            np.testing.assert_array_equal(resized[id].image, image)
    # What is whole beside the store is read there.
    made = {path.name for path in (tmp_path / "run" / ".resized").iterdir() if path.is_dir()}
    assert made == {resized.key("case1"), resized.key("case2")}
    assert {path: path.read_bytes() for path in beside.rglob("*.npy")} == before


def test_copies_that_others_make_and_replace_meanwhile_do_no_harm(tmp_path: Path) -> None:
    """Several trainings start at once, and some of them replace a damaged copy."""
    store = made_store(tmp_path / "s")
    expected = np.array(Resized(store, SPEC, ["case0"])["case0"].image)
    path = Resized(store, SPEC, ["case0"]).path_of("case0")

    def build(_: int) -> bool:
        return bool((Resized(store, SPEC, ["case0"])["case0"].image == expected).all())

    with ThreadPoolExecutor(8) as pool:
        for damage in [lambda: shutil.rmtree(path), (path / "label.npy").unlink] * 10:
            damage()
            assert all(pool.map(build, range(8)))


def _build(path: Path) -> int:
    resized = Resized(Store(path), InputSpec(size=(64, 64)))
    return int(sum(float(resized[id].image.sum()) * 1000 for id in resized.ids))


@pytest.mark.slow
def test_two_processes_build_at_once(tmp_path: Path) -> None:
    made_store(tmp_path / "s")
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        sums = pool.map(_build, [tmp_path / "s"] * 2)
    assert sums[0] == sums[1]
    assert [p.name for p in (tmp_path / "s.cache").iterdir() if p.name.startswith(".")] == [".lock"]


def test_bad_cases_are_named(tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "s", "made", TARGET) as writer:
        writer.add(replace(made_case("unlabelled"), label=None), labelled=False)
        store = writer.finish()
    with pytest.raises(InputError, match="unlabelled"):
        Resized(store, SPEC)
    with pytest.raises(UsageError, match="at least one case"):
        Resized(store, SPEC, [])
    with pytest.raises(UsageError, match="no case"):
        Resized(store, SPEC, ["other"])


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    store = made_store(tmp_path / "s")
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(SegweaveError, match="another folder"):
        Resized(store, SPEC, folder=tmp_path / "file" / "cache")


def test_float16_out_of_range(tmp_path: Path) -> None:
    store = made_store(tmp_path / "s")
    spec = InputSpec(size=(8, 6), normalisation="fixed", mean=(0,), sd=(0.001,))
    with pytest.raises(SegweaveError, match="float32"):
        Resized(store, spec, dtype="float16")
