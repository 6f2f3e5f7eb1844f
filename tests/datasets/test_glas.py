from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from segweave.checking import check
from segweave.data.store import Store
from segweave.datasets import prepare
from segweave.errors import InputError, UsageError
from segweave.phantoms.gland import write_glands
from tests.datasets.pictures import check_case, no_group_crosses, read, write

SMALL = (60, 80)


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_glands(tmp_path_factory.mktemp("glands") / "g", images=12, size=SMALL)


def test_the_release(slides: Path, tmp_path: Path) -> None:
    report = prepare("glas", slides, tmp_path / "s")
    assert (report.layout, report.groups, report.cases) == ("release", 3, 12)
    assert "train: 85 images are expected, 6 are there" in report.missing
    assert report.warnings == []
    store = Store(tmp_path / "s")
    assert set(store.splits) == {"seed-0", "fold-0", "fold-1", "fold-2"}
    no_group_crosses(store)
    for id in store.ids:
        case = store.case(id)
        numbers = read(slides / f"{id}_anno.bmp")
        assert case.instances is not None
        assert case.label is not None
        assert case.instances.dtype == np.uint16
        np.testing.assert_array_equal(case.instances[0], numbers)
        np.testing.assert_array_equal(case.label[0], numbers > 0)
        np.testing.assert_array_equal(np.moveaxis(case.image[0], 0, -1), read(slides / f"{id}.bmp"))
        assert case.group == case.attributes["patient"]
        assert case.attributes["grade"] in ("benign", "malignant")


def test_the_challenges_parts_are_flagged(slides: Path, tmp_path: Path) -> None:
    report = prepare("glas", slides, tmp_path / "s", unit="image")
    assert report.groups == 12
    assert report.splits == {
        "official-leaks": {"train": 6, "valid": 0, "test": 6},
        "official-a-b-leaks": {"train": 6, "valid": 0, "testA": 3, "testB": 3},
    }
    assert "share patients" in report.warnings[0]
    raw = shutil.copytree(slides, tmp_path / "raw")
    (raw / "Grade.csv").unlink()
    report = prepare("glas", raw, tmp_path / "t")
    assert "no Grade.csv" in report.warnings[0]
    assert "official-leaks" in report.splits
    (raw / "Grade.csv").write_text("image,grade\na,b\n", encoding="utf-8")
    report = prepare("glas", raw, tmp_path / "u")
    assert "official-leaks" in report.splits
    (raw / "Grade.csv").write_text("name,patient ID,grade\ntrain_1,x,b\n", encoding="utf-8")
    with pytest.raises(InputError, match="the columns name"):
        prepare("glas", raw, tmp_path / "v")


def test_labelcol(tmp_path: Path) -> None:
    raw = write_glands(tmp_path / "raw", images=8, layout="labelcol", size=SMALL)
    report = prepare("glas", raw, tmp_path / "s")
    assert (report.layout, report.cases) == ("labelcol", 8)
    assert report.splits["official-leaks"] == {"train": 4, "valid": 2, "test": 2}
    store = Store(tmp_path / "s")
    folder = raw / "Train_Folder"
    for id in store.splits["official-leaks"]["train"]:
        check_case(store, id, folder / "img" / f"{id}.png", folder / "labelcol" / f"{id}_anno.png")
        assert store.case(id).instances is None
    # Copies of this layout exist whose masks kept the numbers.
    mask = folder / "labelcol" / "train_1_anno.png"
    numbers = ndimage.label(read(mask) > 0)[0].astype(np.uint8)
    assert numbers.max() > 1
    write(mask, numbers)
    prepare("glas", folder, tmp_path / "t")
    case = Store(tmp_path / "t").case("train_1")
    assert case.instances is not None
    np.testing.assert_array_equal(case.instances[0], numbers)
    assert "random-70-10-20-leaks" in Store(tmp_path / "t").splits


def test_phantom_glands(slides: Path, tmp_path: Path) -> None:
    for path in sorted(slides.glob("*_anno.bmp")):
        numbers = read(path)
        count = int(numbers.max())
        assert count >= 2
        assert sorted(np.unique(numbers)) == list(range(count + 1))
        picture = read(path.with_name(path.name.replace("_anno", ""))).astype(float)
        # Glands do not touch: no two numbers lie side by side.
        for axis in (0, 1):
            one, two = np.moveaxis(numbers, axis, 0)[:-1], np.moveaxis(numbers, axis, 0)[1:]
            assert not ((one != two) & (one > 0) & (two > 0)).any()
        assert picture.std(axis=(0, 1)).min() > 10
    sizes = {read(path).shape for path in slides.glob("*_anno.bmp")}
    assert len(sizes) == 2
    with pytest.raises(UsageError, match="48 × 48"):
        write_glands(tmp_path, size=(9, 9))
    with pytest.raises(UsageError, match="labelcol"):
        write_glands(tmp_path, layout="labelcols")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="patient"):
        prepare("glas", slides, tmp_path / "s", unit="patients")


@pytest.mark.real
def test_real_slides(real_data: Path, tmp_path: Path) -> None:
    import csv

    report = prepare("glas", real_data / "glas", tmp_path / "s")
    assert (report.layout, report.groups, report.cases) == ("release", 3, 24)
    assert "165 cases are expected, 24 are there" in report.missing
    store = Store(tmp_path / "s")
    assert set(store.groups.values()) == {"patient03", "patient05", "patient13"}
    with (real_data / "glas" / "Grade.csv").open() as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    for id in store.ids:
        case = store.case(id)
        assert case.instances is not None
        assert len(np.unique(case.instances)) - 1 == int(rows[id]["glands"])
        assert case.size == (int(rows[id]["h"]), int(rows[id]["w"]))
        assert case.attributes["grade"] == rows[id]["grade (GlaS)"]


@pytest.mark.parametrize("white", [1, 255])
def test_masks_that_have_lost_the_numbers(slides: Path, tmp_path: Path, white: int) -> None:
    raw = shutil.copytree(slides, tmp_path / "raw")
    mask = raw / "train_1_anno.bmp"
    glands = read(mask) > 0
    assert ndimage.label(glands)[1] > 1
    write(mask, glands * np.uint8(white))
    prepare("glas", raw, tmp_path / "s")
    case = Store(tmp_path / "s").case("train_1")
    np.testing.assert_array_equal(case.label[0], glands)  # type: ignore[index]
    assert (case.instances is None) == (white == 255)
    unusual = [p for p in check(raw).problems if p.kind == "unusual" and p.case == "train_1"]
    assert len(unusual) == 1
    assert ("numbered objects" if white == 255 else "several pieces") in unusual[0].found


def test_a_lost_row_is_reported_and_refused(slides: Path, tmp_path: Path) -> None:
    raw = shutil.copytree(slides, tmp_path / "raw")
    table = raw / "Grade.csv"
    lines = table.read_text(encoding="utf-8").splitlines()
    table.write_text("\n".join(li for li in lines if not li.startswith("train_2,")), "utf-8")
    errors = [p for p in check(raw, "glas").errors if p.file == table]
    assert ["train_2" in p.found for p in errors] == [True]
    with pytest.raises(InputError, match="unit=image"):
        prepare("glas", raw, tmp_path / "s")
    assert "official-leaks" in prepare("glas", raw, tmp_path / "s", unit="image").splits
