"""What a store keeps beside its cases: equal images, unknown groups, absent classes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from segweave.data.specs import TargetSpec
from segweave.data.store import Store
from segweave.data.store_writer import StoreWriter
from tests.data.made import TARGET, made_case, made_store


def _twice(path: Path) -> StoreWriter:
    """A writer of three cases, of which `b` has the image of `a`."""
    writer = StoreWriter(path, "made", TARGET)
    with writer:
        for id in ("a", "b", "c"):
            image = made_case("a" if id == "b" else id).image
            writer.add(replace(made_case(id), image=image))
    return writer


def test_one_image_in_two_parts_of_a_split_is_noticed(tmp_path: Path) -> None:
    writer = _twice(tmp_path / "s")
    apart = {"x": {"train": ["a", "c"], "test": ["b"]}, "y": {"train": ["b"], "valid": ["a"]}}
    store = writer.finish({"z": {"train": ["a", "b"], "test": ["c"]}, **apart}, warnings=["said"])
    assert store.warnings == [
        "said",
        "a and b have the same image, but are in different parts of a split "
        "(x: train and test; 1 more)",
    ]
    assert store.describe()["warnings"] == store.warnings
    together = _twice(tmp_path / "t").finish({"z": {"train": ["a", "b"], "test": ["c"]}})
    assert together.warnings == []


def test_few_of_many_equal_images_are_named(tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "s", "made", TARGET) as writer:
        for number in range(20):
            image = made_case("same").image
            writer.add(replace(made_case(f"case{number:02}"), image=image))
        ids = [f"case{number:02}" for number in range(20)]
        store = writer.finish({"x": {"train": ids[:1], "test": ids[1:]}})
    assert len(store.warnings) == 7
    assert store.warnings[-1] == "13 more pairs of cases are like that"


def test_whether_groups_are_known_is_kept_beside_the_checksum(tmp_path: Path) -> None:
    known, unknown = made_store(tmp_path / "a"), tmp_path / "b"
    with StoreWriter(unknown, "made", TARGET) as writer:
        for id in known.ids:
            writer.add(made_case(id))
        writer.finish(grouped=False)
    assert known.grouped
    assert not Store(unknown).grouped
    assert Store(unknown).checksum == known.checksum
    old = Store(Path(__file__).parent / "samples" / "store-format-1")
    assert (old.grouped, old.warnings) == (True, [])


def test_classes_that_no_label_holds_are_known(tmp_path: Path) -> None:
    overlapping = TargetSpec(kind="overlapping", names=("x", "y"))
    label = np.zeros((4, 2, 10, 12), np.uint8)
    label[0, 1, 0, 0] = 1
    with StoreWriter(tmp_path / "s", "made", overlapping) as writer:
        assert writer.absent == ["x", "y"]
        writer.add(replace(made_case("case0"), label=label), "print")
        assert writer.absent == ["x"]
    with StoreWriter(tmp_path / "s", "made", overlapping) as writer:
        assert writer.has("case0", "print")
        assert writer.absent == ["x"]
