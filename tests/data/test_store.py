from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from segweave.data.case import Case
from segweave.data.specs import TargetSpec
from segweave.data.store import Store
from segweave.data.store_writer import StoreWriter
from segweave.errors import InputError, SegweaveError, UsageError
from tests.data.made import TARGET, made_case, made_store


def _files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_everything_comes_back(tmp_path: Path) -> None:
    case = made_case("Patient/01 ü")
    single = replace(
        made_case("plain", 1), stack="single", affine=None, spacing=None, source_grid=None,
        provenance=None, gaps=(),
    )  # fmt: skip
    gapped = replace(made_case("gapped"), gaps=(2,), group="g")
    instances = replace(made_case("cells"), instances=np.ones((4, 10, 12), np.uint16))
    with StoreWriter(tmp_path / "s", "made", TARGET) as writer:
        for one in (case, single, gapped, instances):
            writer.add(one)
        writer.finish({"half": {"train": ["gapped", "cells"], "test": ["plain"]}}, {"terms": "x"})
    store = Store(tmp_path / "s")
    assert store.ids == ["Patient/01 ü", "plain", "gapped", "cells"]
    assert store.groups["gapped"] == "g"
    assert store.split("half", "test") == ["plain"]
    assert store.provenance == {"terms": "x"}
    for one in (case, single, gapped, instances):
        back = store.case(one.id)
        for name in ("image", "label", "instances", "affine"):
            before, after = getattr(one, name), getattr(back, name)
            assert (before is None) == (after is None)
            if before is not None:
                assert before.dtype == after.dtype
                np.testing.assert_array_equal(before, after)
        for name in (
            "id", "group", "stack", "spacing", "source_grid", "gaps", "provenance", "attributes",
        ):  # fmt: skip
            assert getattr(back, name) == getattr(one, name), name
    assert list(store.verify()) == store.ids
    assert store.describe()["slices"] == 13
    assert store.entry("plain").size == (10, 12)


def test_arrays_are_mapped_read_only(tmp_path: Path) -> None:
    case = made_store(tmp_path / "s").case("case0")
    assert isinstance(case.image, np.memmap)
    assert not case.image.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        case.image[0] = 1
    # Slices lie one behind the other, so one is read without its neighbours.
    assert case.image.strides[0] == case.image[0].nbytes


def test_the_checksum_is_of_the_content(tmp_path: Path) -> None:
    first = made_store(tmp_path / "a")
    assert made_store(tmp_path / "b").checksum == first.checksum
    other = replace(made_case("case0"), provenance=None)
    with StoreWriter(tmp_path / "c", "made", TARGET) as writer:
        for number in (2, 1):
            writer.add(made_case(f"case{number}"))
        writer.add(other)
        assert writer.finish().checksum == first.checksum
    changed = made_case("case0").image.copy()
    changed[0, 0, 0, 0] += 1
    with StoreWriter(tmp_path / "d", "made", TARGET) as writer:
        writer.add(replace(other, image=changed))
        for number in (1, 2):
            writer.add(made_case(f"case{number}"))
        assert writer.finish().checksum != first.checksum


def test_an_interrupted_conversion_continues(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with contextlib.suppress(KeyboardInterrupt), StoreWriter(path, "made", TARGET) as writer:
        writer.add(made_case("case0"), "print0")
        writer.add(made_case("case1"), "print1")
        raise KeyboardInterrupt
    assert not path.exists()
    with StoreWriter(path, "made", TARGET) as writer:
        assert writer.has("case0", "print0")
        assert not writer.has("case1", "another source")
        assert not writer.has("case2", "print2")
        writer.add(made_case("case1"), "another source")
        writer.add(made_case("case2"), "print2")
        assert writer.resumed == ["case0"]
        store = writer.finish()
    assert store.checksum == made_store(tmp_path / "whole").checksum
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


@pytest.mark.parametrize("damage", ["truncate", "flip", "record", "target"])
def test_a_damaged_leftover_is_made_again(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "s"
    with StoreWriter(path, "made", TARGET) as writer:
        writer.add(made_case("case0"), "print")
    folder = tmp_path / ".s.writing" / "records" / "case0"
    target = TARGET
    if damage == "truncate":
        os.truncate(folder / "image.npy", 200)
    elif damage == "flip":
        raw = bytearray((folder / "label.npy").read_bytes())
        raw[-1] ^= 1
        (folder / "label.npy").write_bytes(raw)
    elif damage == "record":
        (folder / "record.json").write_text("{", encoding="utf-8")
    else:
        target = TargetSpec(names=("background", "a"))
    with StoreWriter(path, "made", target) as writer:
        assert not writer.has("case0", "print")


def test_only_finished_cases_of_this_attempt_enter(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with StoreWriter(path, "made", TARGET) as writer:
        writer.add(made_case("of another source"), "print")
    with StoreWriter(path, "made", TARGET) as writer:
        writer.add(made_case("case0"), "print")
        store = writer.finish()
    assert store.ids == ["case0"]
    assert len(list((path / "records").iterdir())) == 1


def test_an_existing_store_is_left_alone_unless_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "s"
    made_store(path)
    before = _files(path)
    with pytest.raises(UsageError, match="exists"), StoreWriter(path, "made", TARGET):
        pass
    with (
        contextlib.suppress(KeyboardInterrupt),
        StoreWriter(path, "made", TARGET, overwrite=True) as writer,
    ):
        writer.add(made_case("new"))
        raise KeyboardInterrupt
    assert _files(path) == before
    with StoreWriter(path, "made", TARGET, overwrite=True) as writer:
        writer.add(made_case("new"))
        writer.finish()
    assert Store(path).ids == ["new"]
    other = tmp_path / "notes"
    other.mkdir()
    (other / "diary.txt").write_text("mine", encoding="utf-8")
    with (
        pytest.raises(UsageError, match="left alone"),
        StoreWriter(other, "made", TARGET, overwrite=True),
    ):
        pass
    assert (other / "diary.txt").read_text(encoding="utf-8") == "mine"


def test_two_writers_at_once(tmp_path: Path) -> None:
    with (
        StoreWriter(tmp_path / "s", "made", TARGET) as writer,
        pytest.raises(SegweaveError, match="another process is writing"),
        StoreWriter(tmp_path / "s", "made", TARGET),
    ):
        pass
    with StoreWriter(tmp_path / "s", "made", TARGET) as writer:
        writer.add(made_case("case0"))
        writer.finish()


def test_two_processes_read_at_once(tmp_path: Path) -> None:
    made_store(tmp_path / "s")
    program = (
        "import sys; from segweave.data.store import Store; s = Store(sys.argv[1]);"
        "print(sum(int(s.case(i).image.sum()) for i in s.ids), len(list(s.verify())))"
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path / "s")], stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=60)[0] for process in running]
    assert said[0] == said[1]
    assert said[0].endswith(" 3\n")


def test_a_kill_leaves_no_half_store(tmp_path: Path) -> None:
    program = (
        "import sys, os, signal\n"
        "from tests.data.made import *\n"
        "with StoreWriter(sys.argv[1], 'made', TARGET) as w:\n"
        "    w.add(made_case('case0'), 'p'); w.add(made_case('case1'), 'p')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path = tmp_path / "s"
    subprocess.run([sys.executable, "-c", program, str(path)], check=False, timeout=60)
    assert not path.exists()
    with StoreWriter(path, "made", TARGET) as writer:
        assert writer.has("case0", "p")
        assert writer.has("case1", "p")
        writer.finish()
    assert Store(path).ids == ["case0", "case1"]


def test_unknown_names_are_told_the_nearest(tmp_path: Path) -> None:
    store = made_store(tmp_path / "s")
    with pytest.raises(UsageError, match="case0"):
        store.case("cas0")
    with pytest.raises(UsageError, match="split"):
        store.split("70", "train")


def test_splits_are_checked(tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "s", "made", TARGET) as writer:
        writer.add(made_case("ED", group="p"))
        writer.add(made_case("ES", group="p"))
        with pytest.raises(UsageError, match="every group in one part"):
            writer.finish({"x": {"train": ["ED"], "test": ["ES"]}})
        with pytest.raises(UsageError, match="not in the store"):
            writer.finish({"x": {"train": ["EX"]}})
        writer.finish({"x": {"train": ["ED", "ES"], "test": []}})
    assert Store(tmp_path / "s").splits == {"x": {"train": ["ED", "ES"], "test": []}}


def test_an_empty_store_is_refused(tmp_path: Path) -> None:
    with (
        StoreWriter(tmp_path / "s", "made", TARGET) as writer,
        pytest.raises(InputError, match="at least one case"),
    ):
        writer.finish()


def _bad(**changes: object) -> Case:
    return replace(made_case("case0"), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (_bad(label=np.full((4, 10, 12), 9, np.uint8)), r"\[9\]"),
        (_bad(label=None), "a label"),
        (_bad(image=np.full((4, 1, 10, 12), np.nan, np.float32)), "NaN or infinite"),
        (_bad(image=np.full((4, 1, 10, 12), np.inf, np.float64)), "slice 0"),
        (_bad(label=np.zeros((4, 2, 10, 12), np.uint8)), "one label map per slice"),
    ],
)
def test_bad_cases_do_not_enter(tmp_path: Path, case: Case, message: str) -> None:
    with StoreWriter(tmp_path / "s", "made", TARGET) as writer:
        with pytest.raises(InputError, match=message):
            writer.add(case)
        assert writer.counts["cases"] == 0
    assert list(tmp_path.iterdir()) == []


def test_ignored_and_overlapping_labels(tmp_path: Path) -> None:
    ignoring = TargetSpec(names=("background", "a", "b", "c"), ignored=255)
    label = made_case("case0").label
    assert label is not None
    label[0, 0, 0] = 255
    with StoreWriter(tmp_path / "s", "made", ignoring) as writer:
        writer.add(_bad(label=label))
    overlapping = TargetSpec(kind="overlapping", names=("a", "b"))
    with StoreWriter(tmp_path / "t", "made", overlapping) as writer:
        writer.add(_bad(label=np.ones((4, 2, 10, 12), np.uint8)))
        with pytest.raises(InputError, match="2 overlapping"):
            writer.add(made_case("case1"))


def test_two_cases_of_one_id(tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "s", "made", TARGET) as writer:
        writer.add(made_case("case0"))
        with pytest.raises(InputError, match="two cases"):
            writer.add(made_case("case0"))


def test_ids_that_file_systems_dislike(tmp_path: Path) -> None:
    ids = ["..", ".", "a/b", "A", "a", "x" * 300, "x" * 299 + "y", "con:", "名前"]
    with StoreWriter(tmp_path / "s", "made", TARGET) as writer:
        for id in ids:
            writer.add(made_case(id, 1))
        store = writer.finish()
    assert [store.case(id).id for id in ids] == ids
    names = [path.name for path in (tmp_path / "s" / "records").iterdir()]
    assert len({name.lower() for name in names}) == len(ids)


def test_a_full_disk_is_told_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with StoreWriter(tmp_path / "s", "made", TARGET) as writer:
        monkeypatch.setattr(np, "save", full)
        with pytest.raises(SegweaveError, match="No space left") as caught:
            writer.add(made_case("case0"))
    assert caught.value.exit_code == 1
    assert list(tmp_path.iterdir()) == []


def test_a_store_can_be_moved(tmp_path: Path) -> None:
    made_store(tmp_path / "s")
    shutil.move(tmp_path / "s", tmp_path / "elsewhere")
    assert len(list(Store(tmp_path / "elsewhere").verify())) == 3


def test_format_1_is_read(tmp_path: Path) -> None:
    """A store as the first version wrote it (`made_case` of two ids, two slices of 4 × 5)."""
    store = Store(Path(__file__).parent / "samples" / "store-format-1")
    assert list(store.verify()) == ["first", "second"]
    assert store.splits == {"half": {"train": ["first"], "test": ["second"]}}
    for id in store.ids:
        case, made = store.case(id), made_case(id, 2, (4, 5))
        np.testing.assert_array_equal(case.image, made.image)
        np.testing.assert_array_equal(case.label, made.label)  # type: ignore[arg-type]
        assert case.spacing == made.spacing
        assert case.source_grid == made.source_grid
