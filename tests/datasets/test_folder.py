from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segweave.checking import check
from segweave.cli import main
from segweave.data.store import Store
from segweave.datasets import prepare
from segweave.errors import InputError, UsageError
from segweave.phantoms.blobs import write_blobs


@pytest.fixture(scope="session")
def blobs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_blobs(tmp_path_factory.mktemp("blobs") / "b", images=10, size=(24, 32))


def _write(path: Path, values: Any, mode: str | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(values))
    (image.convert(mode) if mode else image).save(path)


def _pairs(folder: Path, masks: dict[str, Any], size: tuple[int, int] = (6, 8)) -> None:
    for number, (name, mask) in enumerate(masks.items()):
        _write(folder / "images" / f"{name}.png", np.full((*size, 3), 90 + number, np.uint8))
        _write(folder / "masks" / f"{name}_mask.png", mask)


def test_binary_colour_images(blobs: Path, tmp_path: Path) -> None:
    report = prepare("folder", blobs / "images", tmp_path / "s", masks=blobs / "masks")
    assert (report.cases, report.groups, report.slices, report.complete) == (10, 10, 10, True)
    assert any("own group" in warning for warning in report.warnings)
    store = Store(tmp_path / "s")
    assert store.warnings == report.warnings
    assert not store.grouped
    assert store.target.kind == "binary"
    assert store.target.foreground == {1: "foreground"}
    parts = store.splits["seed-0"]
    assert {part: len(ids) for part, ids in parts.items()} == {"train": 7, "valid": 1, "test": 2}
    case = store.case("blob_003")
    assert case.stack == "single"
    assert case.image.shape == (1, 3, 24, 32)
    assert case.label is not None
    mask = np.asarray(Image.open(blobs / "masks" / "blob_003_segmentation.png"))
    np.testing.assert_array_equal(case.label[0], mask // 255)
    picture = np.asarray(Image.open(blobs / "images" / "blob_003.png"))
    np.testing.assert_array_equal(np.moveaxis(case.image[0], 0, -1), picture)


@pytest.mark.parametrize("kind", ["0/255", "0/1", "1-bit", "grey jpeg image"])
def test_masks_of_every_kind(tmp_path: Path, kind: str) -> None:
    mask = (np.arange(48).reshape(6, 8) % 5 == 0).astype(np.uint8)
    stored = mask if kind == "0/1" else mask * 255
    _write(tmp_path / "masks" / "a.png", stored, "1" if kind == "1-bit" else None)
    _write(tmp_path / "images" / ("a.jpg" if "jpeg" in kind else "a.png"), mask * 50)
    prepare("folder", tmp_path / "images", tmp_path / "s", masks=tmp_path / "masks")
    case = Store(tmp_path / "s").case("a")
    np.testing.assert_array_equal(case.label[0], mask)  # type: ignore[index]
    assert case.image.shape == (1, 1, 6, 8)


def test_several_classes(tmp_path: Path) -> None:
    mask = (np.arange(48).reshape(6, 8) % 3).astype(np.uint8)
    _pairs(tmp_path, {"a": mask, "b": mask * 0})
    folder = {"source": tmp_path / "images", "masks": tmp_path / "masks"}
    prepare("folder", out=tmp_path / "s", **folder)
    assert Store(tmp_path / "s").target.names == ("background", "class 1", "class 2")
    names = ["background", "gland", "vessel", "fat"]
    prepare("folder", out=tmp_path / "t", classes=names, **folder)
    store = Store(tmp_path / "t")
    assert store.target.names == tuple(names)
    np.testing.assert_array_equal(store.case("a").label[0], mask)  # type: ignore[index]
    with pytest.raises(InputError, match=r"\[2\]"):
        prepare("folder", out=tmp_path / "u", classes=["background", "gland"], **folder)


@pytest.mark.parametrize("first", [[], ["background"]])
def test_names_of_classes_begin_at_one(tmp_path: Path, first: list[str]) -> None:
    mask = (np.arange(48).reshape(6, 8) % 4).astype(np.uint8)
    _pairs(tmp_path, {"a": mask})
    names = [*first, "RV", "myo", "LV"]
    folders = {"source": tmp_path / "images", "masks": tmp_path / "masks"}
    prepare("folder", out=tmp_path / "s", classes=names, **folders)
    assert Store(tmp_path / "s").target.foreground == {1: "RV", 2: "myo", 3: "LV"}


def test_a_name_for_id_zero_that_shifts_the_others_is_refused(tmp_path: Path) -> None:
    mask = (np.arange(48).reshape(6, 8) % 3).astype(np.uint8)
    _pairs(tmp_path, {"a": mask})
    folders = {"source": tmp_path / "images", "masks": tmp_path / "masks"}
    with pytest.raises(InputError, match="ids up to 2") as caught:
        prepare("folder", out=tmp_path / "s", classes=["skin", "lesion", "hair"], **folders)
    assert "call it background" in str(caught.value)


def test_a_named_binary_class(tmp_path: Path) -> None:
    _pairs(tmp_path, {"a": np.zeros((6, 8), np.uint8)})
    prepare(
        "folder", tmp_path / "images", tmp_path / "s", masks=tmp_path / "masks", classes=["polyp"]
    )
    assert Store(tmp_path / "s").target.foreground == {1: "polyp"}


@pytest.mark.parametrize(
    "ending", ["", "_mask", "_segmentation", "_gt", "_Segmentation", "_anno", "_label"]
)
def test_names_are_matched(tmp_path: Path, ending: str) -> None:
    mask = np.eye(6, 8, dtype=np.uint8)
    _write(tmp_path / "i" / "IMG_1.png", mask * 9)
    _write(tmp_path / "m" / f"IMG_1{ending}.png", mask)
    report = prepare("folder", tmp_path / "i", tmp_path / "s", masks=tmp_path / "m")
    assert report.complete
    assert Store(tmp_path / "s").ids == ["IMG_1"]
    if ending:
        # Both in one folder.
        _write(tmp_path / "i" / f"IMG_1{ending}.png", mask)
        report = prepare("folder", tmp_path / "i", tmp_path / "t", masks=tmp_path / "i")
        assert report.complete
        assert Store(tmp_path / "t").ids == ["IMG_1"]


def test_what_has_no_partner_is_reported(tmp_path: Path) -> None:
    _pairs(tmp_path, {"a": np.zeros((6, 8), np.uint8), "b": np.zeros((6, 8), np.uint8)})
    (tmp_path / "masks" / "b_mask.png").rename(tmp_path / "masks" / "c_mask.png")
    report = prepare("folder", tmp_path / "images", tmp_path / "s", masks=tmp_path / "masks")
    assert report.missing == [
        "1 images have no mask and are left out: b",
        "1 masks have no image: c_mask.png",
    ]
    with pytest.raises(InputError, match="no mask"):
        prepare(
            "folder", tmp_path / "images", tmp_path / "t", masks=tmp_path / "masks", strict=True
        )


def test_groups_by_expression_and_by_table(tmp_path: Path) -> None:
    mask = np.eye(6, 8, dtype=np.uint8)
    _pairs(tmp_path, {f"p{p}_{k}": mask for p in range(5) for k in range(3)})
    both = {"source": tmp_path / "images", "masks": tmp_path / "masks"}
    report = prepare("folder", out=tmp_path / "s", group=r"^(p\d)_", **both)
    assert report.groups == 5
    assert report.warnings == []
    store = Store(tmp_path / "s")
    assert store.grouped
    assert store.groups["p3_1"] == "p3"
    parts = store.splits["seed-0"]
    homes = {store.groups[id]: part for part, ids in parts.items() for id in ids}
    for part, ids in parts.items():
        assert all(homes[store.groups[id]] == part for id in ids)
    assert min(len(ids) for ids in parts.values()) >= 3
    rows = "\n".join(
        f"p{p}_{k}.png,{'a' if p < 2 else 'b'},{'train' if p < 2 else 'test'}"
        for p in range(5)
        for k in range(3)
    )
    table = tmp_path / "cases.csv"
    table.write_text("case,group,part\n" + rows + "\n", encoding="utf-8")
    prepare("folder", out=tmp_path / "t", cases=table, **both)
    store = Store(tmp_path / "t")
    assert set(store.groups.values()) == {"a", "b"}
    assert {k: len(v) for k, v in store.splits["given"].items()} == {
        "train": 6,
        "valid": 0,
        "test": 9,
    }
    table.write_text(table.read_text(encoding="utf-8").replace("p0_0.png,a,train", "p0_0,a,test"))
    with pytest.raises(InputError, match="every group in one part"):
        prepare("folder", out=tmp_path / "u", cases=table, **both)
    table.write_text("case,group\np0_0,a\n", encoding="utf-8")
    with pytest.raises(InputError, match="none for p0_1"):
        prepare("folder", out=tmp_path / "u", cases=table, **both)
    table.write_text("name,patient\np0_0,a\n", encoding="utf-8")
    with pytest.raises(InputError, match="the columns case"):
        prepare("folder", out=tmp_path / "u", cases=table, **both)
    for wrong in (r"q\d", "("):
        with pytest.raises(UsageError):
            prepare("folder", out=tmp_path / "u", group=wrong, **both)


def test_grey_masks_need_a_threshold(tmp_path: Path) -> None:
    grey = np.linspace(0, 255, 48).reshape(6, 8).astype(np.uint8)
    _pairs(tmp_path, {"a": grey})
    both = {"source": tmp_path / "images", "masks": tmp_path / "masks"}
    with pytest.raises(InputError, match="--mask-threshold"):
        prepare("folder", out=tmp_path / "s", **both)
    prepare("folder", out=tmp_path / "s", mask_threshold=127, **both)
    np.testing.assert_array_equal(Store(tmp_path / "s").case("a").label[0], grey > 127)  # type: ignore[index]
    _write(tmp_path / "masks" / "a_mask.png", np.full((6, 8), 255, np.uint8))
    prepare("folder", out=tmp_path / "t", mask_threshold=127, **both)
    assert (Store(tmp_path / "t").case("a").label == 1).all()


def test_bad_folders(tmp_path: Path) -> None:
    _pairs(tmp_path, {"a": np.zeros((6, 8), np.uint8)})
    images, masks = tmp_path / "images", tmp_path / "masks"
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError):
        prepare("folder", tmp_path / "empty", tmp_path / "s", masks=masks)
    with pytest.raises(InputError, match="at least one mask"):
        prepare("folder", images, tmp_path / "s", masks=tmp_path / "empty")
    with pytest.raises(InputError, match="a folder of masks"):
        prepare("folder", images, tmp_path / "s", masks=tmp_path / "absent")
    with pytest.raises(UsageError, match="three fractions"):
        prepare("folder", images, tmp_path / "s", masks=masks, fractions=(0.5, 0.2))
    with pytest.raises(UsageError, match="none given"):
        prepare("folder", images, tmp_path / "s")
    with pytest.raises(UsageError, match="kind"):
        prepare("folder", images, tmp_path / "s", masks=masks, kind="several")
    _write(masks / "a_mask.png", np.zeros((5, 8), np.uint8))
    with pytest.raises(InputError, match="a_mask"):
        prepare("folder", images, tmp_path / "s", masks=masks)
    with pytest.raises(InputError, match="a_mask"):
        prepare("folder", images, tmp_path / "s", masks=masks, mask_threshold=1)
    (images / "a.png").write_bytes((images / "a.png").read_bytes()[:40])
    with pytest.raises(InputError, match=r"a\.png"):
        prepare("folder", images, tmp_path / "s", masks=masks)
    (masks / "a_mask.png").rename(masks / "b.png")
    with pytest.raises(InputError, match="names of their images"):
        prepare("folder", images, tmp_path / "s", masks=masks)
    _write(images / "a.jpg", np.zeros((6, 8), np.uint8))
    with pytest.raises(InputError, match="a second 'a'"):
        prepare("folder", images, tmp_path / "s", masks=masks)
    assert not (tmp_path / "s").exists()


def test_two_masks_of_one_image(tmp_path: Path) -> None:
    _pairs(tmp_path, {"a": np.zeros((6, 8), np.uint8)})
    _write(tmp_path / "masks" / "a_gt.png", np.zeros((6, 8), np.uint8))
    with pytest.raises(InputError, match="one mask of 'a'"):
        prepare("folder", tmp_path / "images", tmp_path / "s", masks=tmp_path / "masks")


def test_classes_that_no_mask_holds_are_named(tmp_path: Path) -> None:
    mask = np.eye(6, 8, dtype=np.uint8)
    _pairs(tmp_path, {"a": mask * 0, "b": mask * 0})
    both = {"source": tmp_path / "images", "masks": tmp_path / "masks"}
    report = prepare("folder", out=tmp_path / "s", **both)
    assert "no label holds any class: all 2 labels are background throughout" in report.warnings
    assert Store(tmp_path / "s").warnings == report.warnings
    _write(tmp_path / "masks" / "b_mask.png", mask)
    names = ["background", "gland", "vessel", "fat"]
    report = prepare("folder", out=tmp_path / "t", classes=names, **both)
    assert report.warnings[-1] == "no label holds the classes vessel, fat"
    report = prepare("folder", out=tmp_path / "u", mask_threshold=127, **both)
    assert not any(line.startswith("no ") for line in report.warnings), "0 and 1 stay"
    _write(tmp_path / "masks" / "b_mask.png", mask * 100)
    report = prepare("folder", out=tmp_path / "v", mask_threshold=127, **both)
    assert "no mask is above the threshold 127: the highest value is 100" in report.warnings
    report = prepare("folder", out=tmp_path / "w", mask_threshold=0, **both)
    assert not any(line.startswith("no ") for line in report.warnings)


def test_one_picture_under_two_names_is_reported_and_refused_if_strict(tmp_path: Path) -> None:
    mask = np.eye(6, 8, dtype=np.uint8)
    _pairs(tmp_path, {"a": mask, "b": mask, "c": mask})
    shutil.copy(tmp_path / "images" / "a.png", tmp_path / "images" / "c.png")
    table = tmp_path / "cases.csv"
    table.write_text("case,group,part\na,p,train\nb,q,valid\nc,r,test\n", encoding="utf-8")
    options = {"source": tmp_path / "images", "masks": tmp_path / "masks", "cases": table}
    with pytest.raises(InputError, match="a and c have the same image"):
        prepare("folder", out=tmp_path / "s", strict=True, **options)
    assert not (tmp_path / "s").exists()
    report = prepare("folder", out=tmp_path / "s", **options)
    (line,) = report.warnings
    assert "a and c have the same image" in line
    assert "given: train and test" in line
    assert Store(tmp_path / "s").warnings == [line]


def test_a_store_among_the_images_is_passed_over(tmp_path: Path) -> None:
    _pairs(tmp_path, {"a": np.eye(6, 8, dtype=np.uint8), "b": np.eye(6, 8, dtype=np.uint8)})
    both = {"source": tmp_path / "images", "masks": tmp_path / "masks"}
    for name in ("one", "two"):
        prepare("folder", out=tmp_path / "images" / name, **both)
        assert Store(tmp_path / "images" / name).ids == ["a", "b"]
    prepare("folder", out=tmp_path / "masks" / "three", **both)
    assert prepare("folder", out=tmp_path / "s", **both).missing == []
    assert not [p for p in check(tmp_path).problems if p.kind == "unused"]


def test_names_that_are_not_valid_text_are_refused_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _pairs(tmp_path, {"a": np.eye(6, 8, dtype=np.uint8), "b": np.eye(6, 8, dtype=np.uint8)})
    for path in (tmp_path / "images" / "b.png", tmp_path / "masks" / "b_mask.png"):
        path.rename(os.fsdecode(os.fsencode(path).replace(b"/b", b"/b\xff")))
    both = {"source": tmp_path / "images", "masks": tmp_path / "masks"}
    with pytest.raises(InputError, match=r"UTF-8[^$]*b\\xff\.png"):
        prepare("folder", out=tmp_path / "s", **both)
    assert not (tmp_path / "s").exists()
    names_found = [p.found for p in check(tmp_path).errors]
    assert [Path(name).name for name in names_found] == [r"b\xff.png", r"b\xff_mask.png"]
    with pytest.raises(SystemExit) as left:
        main(["check", str(tmp_path), "-q"])
    assert left.value.code == 0
    assert r"b\xff.png" in capsys.readouterr().out


def _mask(*ids: int) -> Any:
    """A mask that holds just these values."""
    return np.resize(np.asarray(ids, np.uint8), (6, 8))


@pytest.mark.parametrize("classes", [None, ("background", "a", "b")])
def test_an_ignored_255_never_becomes_a_class(
    tmp_path: Path, classes: tuple[str, ...] | None
) -> None:
    _pairs(tmp_path, {"a": _mask(0, 1, 2), "b": _mask(0, 2, 1), "c": _mask(0, 255)})
    with pytest.raises(InputError, match="255") as caught:
        prepare(
            "folder", tmp_path / "images", tmp_path / "s", masks=tmp_path / "masks", classes=classes
        )
    assert "c_mask" in str(caught.value) or "'c'" in str(caught.value)
    table = tmp_path / "t.csv"
    rows = [f"images/{id}.png,masks/{id}_mask.png" for id in "abc"]
    table.write_text("\n".join(["image,mask", *rows]) + "\n", encoding="utf-8")
    with pytest.raises(InputError, match="255"):
        prepare("table", table, tmp_path / "t", classes=classes)


def test_one_unusual_mask_is_named_among_those_of_0_and_255(tmp_path: Path) -> None:
    masks = {name: _mask(0, 255) for name in "abcd"}
    _pairs(tmp_path, {**masks, "e": _mask(0, 1, 255)})
    both = {"source": tmp_path / "images", "masks": tmp_path / "masks"}
    with pytest.raises(InputError, match="255 in 1 of 5 files") as caught:
        prepare("folder", out=tmp_path / "s", **both)
    assert "e_mask" in str(caught.value)
    _write(tmp_path / "masks" / "e_mask.png", _mask(0, 1))
    prepare("folder", out=tmp_path / "s", **both)
    for id in "abcde":
        label = Store(tmp_path / "s").case(id).label
        np.testing.assert_array_equal(label[0], _mask(0, 1))  # type: ignore[index]


def test_jpeg_masks_need_no_threshold(tmp_path: Path) -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[8:16, 8:17] = 1
    for name in "ab":
        _write(tmp_path / "images" / f"{name}.png", mask * 50 + ord(name))
        (tmp_path / "masks").mkdir(exist_ok=True)
        Image.fromarray(mask * np.uint8(255)).save(tmp_path / "masks" / f"{name}.jpg", quality=80)
    prepare("folder", tmp_path / "images", tmp_path / "s", masks=tmp_path / "masks")
    store = Store(tmp_path / "s")
    assert store.target.kind == "binary"
    np.testing.assert_array_equal(store.case("a").label, mask[None])
